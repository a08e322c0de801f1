"""What one phone hears: its recording on the time axis of the answer, and when the first sound came."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from livekit import rtc

from rehearsal import marks, reception
from rehearsal.espeak import Samples
from rehearsal.marks import Mark
from rehearsal.reception import Reception

SAMPLE_RATE: Final = 16_000
RECORDING_MAX_S: Final = 120
FRAME_MS: Final = 100  # the lever of what a live phone costs: ten events a second and track
SOUND_MIN: Final = 130  # of 32768 (-48 dBFS): what a person would call a sound; comfort noise lies below
_GROWTH_S = 10
_BREAK_S: Final = 0.6  # a longer silence ends what somebody says


class Ear:
    """Records every track it is given, mixed, sample 0 being the answer; at most `RECORDING_MAX_S`."""

    def __init__(
        self, on_first_sound: Callable[[float], None], on_mark: Callable[[Mark, int], None] | None = None
    ) -> None:
        """`on_first_sound` is called once, with the milliseconds from the answer to the first audible sample.

        `on_mark` is called for every mark, with the sample of the recording that the mark's own positions count from.
        """
        self.answered_at = time.monotonic()
        self._on_first_sound, self._on_mark = on_first_sound, on_mark
        self._samples = np.zeros(_GROWTH_S * SAMPLE_RATE, dtype=np.int16)
        self._length = 0
        self._listening: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self.reception: Reception = {}
        """What the receiver said last of the track it was last asked about."""
        self.first_sound = asyncio.Event()
        self.first_mark = asyncio.Event()
        """Somebody began an utterance (or ended one) and its mark was heard whole."""
        self.sounding_since = self.sounded_at = 0.0
        """Monotonic: when the sound that is heard began, and when it was heard last; 0 before the first."""

    def listen(self, participant: rtc.Participant, source: rtc.TrackSource.ValueType) -> None:
        """Record what a participant sends from one source, from its subscription on, until it ends or `close`.

        Called *before* the subscription: the stream then attaches inside the library the moment the track arrives. A
        stream made in a `track_subscribed` handler comes some 10 to 60 ms late and misses a speaker who starts at once.
        """
        stream = rtc.AudioStream.from_participant(
            participant=participant,
            track_source=source,
            sample_rate=SAMPLE_RATE,
            num_channels=1,
            frame_size_ms=FRAME_MS,
        )
        task = asyncio.create_task(self._record(stream))
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)

    def watch(self, track: rtc.Track) -> None:
        """Keep what the receiver of a subscribed track says of it."""

        def told(figures: Reception) -> None:
            self.reception = figures

        self._watching.add(asyncio.create_task(reception.watch(track, told)))

    async def _record(self, stream: rtc.AudioStream) -> None:
        position: int | None = None
        first = 0
        decoder = marks.Decoder(SAMPLE_RATE)
        try:
            async for event in stream:
                samples = np.frombuffer(event.frame.data, dtype=np.int16)
                since_answer_s = time.monotonic() - self.answered_at
                if position is None:
                    position = first = max(0, round(since_answer_s * SAMPLE_RATE) - len(samples))
                self._look_for_sound(samples, since_answer_s)
                if self._on_mark is not None or not self.first_mark.is_set():
                    self._look_for_marks(decoder.feed(samples), first)
                self._mix(samples, position)
                position += len(samples)
        finally:
            await stream.aclose()

    def _look_for_sound(self, samples: Samples, since_answer_s: float) -> None:
        loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > SOUND_MIN)
        if not len(loud):
            return
        now = time.monotonic()
        if now - self.sounded_at > _BREAK_S:
            self.sounding_since = now
        self.sounded_at = now
        if not self.first_sound.is_set():
            self.first_sound.set()
            self._on_first_sound((since_answer_s - (len(samples) - int(loud[0])) / SAMPLE_RATE) * 1000)

    def _look_for_marks(self, found: list[Mark], first: int) -> None:
        if not found:
            return
        self.first_mark.set()
        if self._on_mark is not None:
            for mark in found:
                self._on_mark(mark, first)

    def _mix(self, samples: Samples, position: int) -> None:
        end = min(position + len(samples), RECORDING_MAX_S * SAMPLE_RATE)
        if end <= position:
            return
        if end > len(self._samples):
            self._samples = np.concatenate([self._samples, np.zeros(_GROWTH_S * SAMPLE_RATE, dtype=np.int16)])
        there = self._samples[position:end].astype(np.int32) + samples[: end - position]
        self._samples[position:end] = np.clip(there, -32768, 32767)
        self._length = max(self._length, end)

    @property
    def heard(self) -> Samples:
        """What was recorded so far."""
        return self._samples[: self._length]

    async def close(self) -> None:
        """Stop listening."""
        for task in list(self._listening):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)  # a track that is gone has no figures any more


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardCall:
    """What one answered phone heard; `samples` at `SAMPLE_RATE`, sample 0 being the answer."""

    attempt_id: str
    dial_id: str
    answer_to_audio_ms: float | None
    samples: Samples
    reception: Reception = field(default_factory=dict)


def stem(attempt_id: str) -> str:
    """An attempt id as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", attempt_id) or "unnamed"


def save(directory: Path, heard: HeardCall) -> None:
    """Write `<directory>/heard/<attempt id>.json` and `.wav` (16 kHz mono); a second leg of an attempt gets `+<dial id>`."""
    folder = directory / "heard"
    folder.mkdir(parents=True, exist_ok=True)
    name = stem(heard.attempt_id)
    if (folder / f"{name}.json").exists():
        name = f"{name}+{stem(heard.dial_id)}"
    with wave.open(str(folder / f"{name}.wav"), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(SAMPLE_RATE)
        recording.writeframes(heard.samples.tobytes())
    about = {
        "attempt_id": heard.attempt_id,
        "dial_id": heard.dial_id,
        "answer_to_audio_ms": heard.answer_to_audio_ms,
        "seconds": len(heard.samples) / SAMPLE_RATE,
        "reception": heard.reception,
        "wav": f"{name}.wav",
    }
    unfinished = folder / f"{name}.json.part"
    unfinished.write_text(json.dumps(about), encoding="utf-8")
    unfinished.rename(folder / f"{name}.json")  # whoever sees the JSON finds the recording whole


def heard_of(directory: Path, attempt_id: str) -> HeardCall | None:
    """What the phone of an attempt heard; None when none answered (or it has not hung up yet)."""
    folder = directory / "heard"
    path = folder / f"{stem(attempt_id)}.json"
    if not path.exists():
        return None
    about = json.loads(path.read_text(encoding="utf-8"))
    with wave.open(str(folder / about["wav"]), "rb") as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), dtype=np.int16)
    return HeardCall(
        attempt_id=about["attempt_id"],
        dial_id=about["dial_id"],
        answer_to_audio_ms=about["answer_to_audio_ms"],
        samples=samples,
        reception=about["reception"],
    )
