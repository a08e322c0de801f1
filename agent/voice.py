"""The agent's sound in the room: one published track, warm before the call, and a message played to its end.

Frames of 100 ms: they cost half the CPU of 20 ms ones, and nothing else (reference/livekit.md 9).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from livekit import rtc

from agent.speech import SAMPLE_BYTES, SAMPLE_RATE, Spoken

FRAME_MS: Final = 100
QUEUE_MS: Final = 500
LEAD_IN_MIN_S: Final = 0.12
LEAD_IN_MAX_S: Final = 0.3
"""Silence between the subscription and the first word, as long as the subscription itself took within these bounds: the
listener's decoder is set up and its jitter buffer settles meanwhile, which else costs a piece of the first word (seen
with three phones answering at once; the slower the machine, the more)."""
BITRATE: Final = 32_000
"""Opus for one voice; the telephone network behind carries 8 kHz."""
_FRAME_SAMPLES: Final = SAMPLE_RATE * FRAME_MS // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How far a message came."""

    whole: bool
    spoken_ms: int


class Voice:
    """The published track and its source."""

    def __init__(self, source: rtc.AudioSource, publication: rtc.LocalTrackPublication) -> None:
        self._source, self._publication = source, publication
        self._capturing: asyncio.Future[None] | None = None

    @property
    def source(self) -> rtc.AudioSource:
        """Return what frames are handed to; one speaks at a time."""
        return self._source

    async def capture(self, frame: rtc.AudioFrame) -> None:
        """Hand a frame over. One whose waiter was cancelled is on its way still: the next waits for it.

        The native source takes one at a time, and raises for a second.
        """
        if self._capturing is not None and not self._capturing.done():
            await asyncio.wait({self._capturing})
        self._capturing = asyncio.ensure_future(self._source.capture_frame(frame))
        await asyncio.shield(self._capturing)

    @classmethod
    async def publish(cls, room: rtc.Room) -> Voice:
        """Publish the track; nobody subscribes before the answer."""
        source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=QUEUE_MS)
        track = rtc.LocalAudioTrack.create_audio_track("agent", source)
        # No DTX: silence is sent too, so that jitter buffers settle before the first word.
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
        options.audio_encoding.max_bitrate = BITRATE
        return cls(source, await room.local_participant.publish_track(track, options))

    async def has_listener(self, over: asyncio.Future[Any], timeout_s: float) -> bool:
        """Wait until somebody subscribed and hears, so that the first word is not lost; False when nobody does."""
        began = time.monotonic()
        subscribed: asyncio.Future[Any] = asyncio.ensure_future(self._publication.wait_for_subscription())
        try:
            await asyncio.wait({subscribed, over}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if subscribed.done():
                took_s = time.monotonic() - began
                await asyncio.wait([over], timeout=min(max(took_s, LEAD_IN_MIN_S), LEAD_IN_MAX_S))
            return subscribed.done() and not over.done()
        finally:
            subscribed.cancel()

    async def play(self, message: Spoken, over: asyncio.Future[Any], started: Callable[[], None]) -> Played:
        """Play a message unless `over` comes first; `started` is called when the first frame was handed over."""
        handed_ms = 0
        for frame in _frames(message):
            if over.done():
                break
            await self.capture(frame)
            if not handed_ms:
                started()
            handed_ms += FRAME_MS
        if not over.done():
            playout: asyncio.Future[Any] = asyncio.ensure_future(self._source.wait_for_playout())
            await asyncio.wait({playout, over}, return_when=asyncio.FIRST_COMPLETED)
            playout.cancel()
        if not over.done():
            return Played(whole=True, spoken_ms=message.duration_ms)
        left_ms = round(self._source.queued_duration * 1000)
        self._source.clear_queue()
        return Played(whole=False, spoken_ms=min(max(0, handed_ms - left_ms), message.duration_ms))


def _frames(message: Spoken) -> Iterator[rtc.AudioFrame]:
    size = _FRAME_SAMPLES * SAMPLE_BYTES
    for start in range(0, len(message.pcm), size):
        yield rtc.AudioFrame(message.pcm[start : start + size].ljust(size, b"\0"), SAMPLE_RATE, 1, _FRAME_SAMPLES)
