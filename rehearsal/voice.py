"""What a phone says: a marked utterance, sent in real time into a source without a queue."""

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


def _spoken(text: str) -> Samples:
    """A marked utterance after a faint breath, during which the far end's jitter buffer settles."""
    breath = np.random.default_rng(0).normal(0, _BREATH_LEVEL, SAMPLE_RATE * _BREATH_MS // 1000).astype(np.int16)
    return np.concatenate([breath, marks.enclose(synthesize(text, SAMPLE_RATE), text, SAMPLE_RATE)])


def _frames(samples: Samples) -> list[rtc.AudioFrame]:
    size = SAMPLE_RATE * _FRAME_MS // 1000
    whole = np.concatenate([samples, np.zeros(-len(samples) % size, dtype=np.int16)])
    return [rtc.AudioFrame(part.tobytes(), SAMPLE_RATE, 1, size) for part in whole.reshape(-1, size)]


async def speak(text: str, source: rtc.AudioSource) -> None:
    """Say a text at its natural pace; returns when it is out. `source`: `SAMPLE_RATE`, mono, `queue_size_ms=0`."""
    frames, due = _frames(_spoken(text)), time.monotonic()
    for start in range(0, len(frames), _FRAMES_A_WAKE):
        for frame in frames[start : start + _FRAMES_A_WAKE]:
            await source.capture_frame(frame)
        due += _FRAMES_A_WAKE * _FRAME_MS / 1000
        await asyncio.sleep(max(0.0, due - time.monotonic()))
