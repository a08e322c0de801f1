"""What a phone sends: a marked utterance or a tone, in real time into a source without a queue."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import numpy as np
from livekit import rtc

from rehearsal import marks
from rehearsal.espeak import Samples, synthesize

SAMPLE_RATE: Final = 16_000
_FRAME_MS, _FRAMES_A_WAKE = 10, 10  # such a source takes 10 ms frames only; ten at a time, ten times a second
_BREATH_MS, _BREATH_LEVEL = 300, 20.0


BEEP_HZ: Final = 1_000.0
_BEEP_LEVEL, _RAMP_MS = 6_000.0, 5


def spoken(text: str, language: str = "en-US") -> Samples:
    """Return a marked utterance after a faint breath, during which the far end's jitter buffer settles."""
    breath = np.random.default_rng(0).normal(0, _BREATH_LEVEL, SAMPLE_RATE * _BREATH_MS // 1000).astype(np.int16)
    return np.concatenate([breath, marks.enclose(synthesize(text, SAMPLE_RATE, language), text, SAMPLE_RATE)])


def beep(ms: int) -> Samples:
    """Return a machine's tone."""
    at = np.arange(SAMPLE_RATE * ms // 1000) / SAMPLE_RATE
    fade = np.minimum(1.0, np.minimum(at, at[::-1]) * 1000 / _RAMP_MS)
    return (_BEEP_LEVEL * fade * np.sin(2 * np.pi * BEEP_HZ * at)).astype(np.int16)


def _frames(samples: Samples) -> list[rtc.AudioFrame]:
    size = SAMPLE_RATE * _FRAME_MS // 1000
    whole = np.concatenate([samples, np.zeros(-len(samples) % size, dtype=np.int16)])
    return [rtc.AudioFrame(part.tobytes(), SAMPLE_RATE, 1, size) for part in whole.reshape(-1, size)]


async def speak(text: str, source: rtc.AudioSource) -> None:
    """Say a text at its natural pace; returns when it is out. `source`: `SAMPLE_RATE`, mono, `queue_size_ms=0`."""
    await send(spoken(text), source)


async def send(samples: Samples, source: rtc.AudioSource) -> None:
    """Send a sound in real time; returns when it is out."""
    frames, due = _frames(samples), time.monotonic()
    for start in range(0, len(frames), _FRAMES_A_WAKE):
        for frame in frames[start : start + _FRAMES_A_WAKE]:
            await source.capture_frame(frame)
        due += _FRAMES_A_WAKE * _FRAME_MS / 1000
        await asyncio.sleep(max(0.0, due - time.monotonic()))
