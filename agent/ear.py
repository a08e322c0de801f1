"""What the callee sends, from the room to whoever listens: the answerer's rules, the recogniser, any number of them.

Nobody hears anything before the answer: `open` is called when the callee is `active`, and what comes before it (comfort
noise, early media) is dropped. A listener that is slow loses its oldest frames, and nobody else's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from livekit import rtc

from agent.recogniser import Sound, recognise
from runtime.settings import Settings

SAMPLE_RATE: Final = 16_000
FRAME_MS: Final = 50
"""A frame: what the recogniser's plugin sends at once, and half of that costs twice the events."""
FRAMES_MAX: Final = 200
"""Frames that wait for one listener: 10 s, what a connection to the recogniser may take."""


class Frames:
    """One listener's frames, in order. A wait for the next one may be cancelled, and nothing is lost by it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[rtc.AudioFrame | None] = asyncio.Queue(FRAMES_MAX + 1)
        self._over = False
        self.dropped = 0
        """Frames that this listener was too slow for."""

    def put(self, frame: rtc.AudioFrame) -> None:
        """Add a frame; the oldest goes where there are too many."""
        if self._queue.qsize() >= FRAMES_MAX:
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(frame)

    def end(self) -> None:
        """Say that no frame follows."""
        self._queue.put_nowait(None)

    def __aiter__(self) -> Frames:
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        frame = None if self._over else await self._queue.get()
        if frame is None:
            self._over = True
            raise StopAsyncIteration
        return frame


class Ear:
    """One callee's audio, 16 kHz mono, in frames of `FRAME_MS`, from the answer to the end of the track."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._listeners: list[Frames] = []
        self._pumping: asyncio.Task[None] | None = None
        self._open = False
        self._ended = False
        self.opened_at = 0.0
        """Monotonic seconds of `open`."""

    @classmethod
    def attach(cls, room: rtc.Room, identity: str) -> Ear:
        """Subscribe to the callee's audio, and to nobody else's, as soon as it is published."""
        ear = cls(identity)
        room.on("track_published", ear._published)
        callee = room.remote_participants.get(identity)
        for publication in callee.track_publications.values() if callee is not None else ():
            assert callee is not None
            ear._published(publication, callee)
        return ear

    def open(self) -> None:
        """Let listeners hear from now on: the callee has answered."""
        self._open = True
        self.opened_at = time.monotonic()

    def frames(self) -> Frames:
        """Listen from now on; ends with the callee's track, or with `close`."""
        listener = Frames()
        if self._ended:
            listener.end()
        self._listeners.append(listener)
        return listener

    def listen(self, settings: Settings, language: str) -> AsyncGenerator[Sound, None]:
        """Recognise what is said from now on. Raises: RecogniserFailed, `no_language` included."""
        return recognise(self.frames(), settings, language)

    async def close(self) -> None:
        """Stop hearing; every listener comes to its end."""
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)
        self._end()

    def _published(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        if participant.identity != self._identity or publication.kind != rtc.TrackKind.KIND_AUDIO or self._pumping:
            return
        # Made before the subscription: a stream that is made when the track arrives misses its first 10 to 60 ms.
        stream = rtc.AudioStream.from_participant(
            participant=participant,
            track_source=publication.source,
            sample_rate=SAMPLE_RATE,
            num_channels=1,
            frame_size_ms=FRAME_MS,
        )
        self._pumping = asyncio.create_task(self._pump(stream), name="ear")
        publication.set_subscribed(True)

    async def _pump(self, stream: rtc.AudioStream) -> None:
        try:
            async for event in stream:
                if self._open:
                    for listener in self._listeners:
                        listener.put(event.frame)
        finally:
            self._end()
            await stream.aclose()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        for listener in self._listeners:
            listener.end()
