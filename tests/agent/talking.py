"""A phone that talks: it hears what is said to it by its marks, and speaks, waits, presses and hangs up as a test says."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from rehearsal import marks, voice
from rehearsal.ear import SAMPLE_RATE
from rehearsal.marks import Mark, Side
from rehearsal.phone import QUEUE_MS, Leg
from rehearsal.witness import EndedBy

WAIT_S = 30.0
LOOK_EVERY_S = 0.05


@dataclass
class Heard:
    """A mark that this phone heard, and when it knew."""

    mark: Mark
    at: float


@dataclass
class _Talk:
    heard: list[Heard] = field(default_factory=list)
    taken: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


class TalkingPhone(Leg):
    """A leg whose words a test says."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._heard: _Talk = _Talk()
        self.answered_at = 0.0

    def _queue_ms(self) -> int:
        return QUEUE_MS

    async def picked_up(self) -> None:
        """Wait for the answer."""
        assert await asyncio.wait_for(asyncio.shield(self.answered), WAIT_S) is None
        self.answered_at = time.monotonic()

    async def says(self, text: str) -> float:
        """Speak; returns when the last word was sent, monotonic."""
        assert self._source is not None
        began = time.monotonic()
        await voice.speak(text, self._source)
        return max(began, time.monotonic() - marks.MARK_MS / 1000 - 0.06)

    async def hears(self, text: str, side: Side = Side.END, timeout_s: float = WAIT_S) -> float:
        """Wait until a text was heard to its end (or began), after what was waited for before; returns when."""
        code = marks.code_of(text)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    while self._heard.taken < len(self._heard.heard):
                        found = self._heard.heard[self._heard.taken]
                        self._heard.taken += 1
                        if found.mark.code == code and found.mark.side is side:
                            return found.at
                    self._heard.news.clear()
                    await self._heard.news.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} was not heard ({side}); marks: {self.marks}") from None

    def now_s(self) -> float:
        """Return where the recording of what was heard is now, in seconds."""
        assert self._ear is not None
        return len(self._ear.heard) / SAMPLE_RATE

    def heard_at_s(self) -> float:
        """Return where in it the mark stands that was waited for last."""
        return self._heard.heard[self._heard.taken - 1].mark.start / SAMPLE_RATE

    @property
    def marks(self) -> list[tuple[int, str]]:
        """Return all marks heard so far."""
        return [(heard.mark.code, heard.mark.side.value) for heard in self._heard.heard]

    async def presses(self, digit: str) -> None:
        """Press a key."""
        await self._room.local_participant.publish_dtmf(code="0123456789*#".index(digit), digit=digit)

    def hangs_up(self) -> None:
        """Hang up."""
        self.hang_up(EndedBy.CALLEE_BYE)

    async def _speak(self) -> None:
        """Listen for as long as the call lasts; what is said comes from the test."""
        decoder, position = marks.Decoder(SAMPLE_RATE), 0
        while self._ear is not None:
            samples = self._ear.heard[position:]
            position += len(samples)
            for mark in decoder.feed(samples) if len(samples) else ():
                self._heard.heard.append(Heard(mark, time.monotonic()))
                self._heard.news.set()
            await asyncio.sleep(LOOK_EVERY_S)


async def register(speech_port: int, *phrases: str) -> None:
    """Let the recogniser know what phones will say."""
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{speech_port}/rehearsal/phrases"
        async with http.post(url, json={"phrases": list(phrases)}) as answer:
            assert answer.status == 200
