"""An answerer attended: fed with what the ear hears, in real time, and asked for its verdict.

A recogniser that fails leaves the rules without words: then there is doubt, and a doubt counts as a person.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from agent.answerer.answerer import Answerer, GreetingOver, Verdict
from agent.ear import Ear
from agent.recogniser import Heard, Hearing, RecogniserFailed, Sound, SpeechEnded, SpeechStarted
from runtime.logs import Log
from runtime.settings import Settings

TICK_S: Final = 0.1
CLOSE_TIMEOUT_S: Final = 2.0

log = Log("agent.attending")


class Attending:
    """One callee's answerer, from `start` (the answer) to `close`."""

    def __init__(
        self, ear: Ear, settings: Settings, language: str, on_words: Callable[[str], None] | None = None
    ) -> None:
        """Listen with an ear; `on_words` is told every sentence as well, at once."""
        self._ear, self._settings, self._language, self._on_words = ear, settings, language, on_words
        self._answerer: Answerer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    def start(self, *, understands: bool = True) -> None:
        """Begin: the callee has answered. `understands` is False where somebody else `take`s in what is said."""
        self._ear.open()
        self._answerer = Answerer(self._language, time.monotonic())
        works = [self._hear(), self._tick(), *([self._understand()] if understands else [])]
        self._tasks += [asyncio.create_task(work, name="attend") for work in works]

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        await self._ear.close()

    async def verdict(self) -> Verdict:
        """Wait for the verdict; it comes within `answerer.DECIDE_MAX_S` (`CONNECTING_MAX_S` after a screener)."""
        while (found := self._judge.verdict) is None:
            await self._next()
        return found

    async def greeting_over(self) -> GreetingOver:
        """Wait until the machine that was detected has finished; within `answerer.GREETING_MAX_S`."""
        while (found := self._judge.greeting_over) is None:
            await self._next()
        return found

    async def beep_after(self, at: float) -> None:
        """Wait for a beep that ends after a moment; the caller cancels this."""
        while (self._judge.beeped_at or 0.0) <= at:
            await self._next()

    def doubt(self) -> None:
        """Go on judging whoever was taken for a person: only a machine comes of it, if anything."""
        self._judge.doubt(time.monotonic())

    def judge_again(self) -> None:
        """Judge what comes from now on: a screener was told who is calling."""
        self._judge.judge_again(time.monotonic())

    @property
    def _judge(self) -> Answerer:
        assert self._answerer is not None, "attended before the answer"
        return self._answerer

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _hear(self) -> None:
        async for frame in self._ear.frames():
            self._judge.sound(frame.data, time.monotonic())
            self._news.set()

    async def _understand(self) -> None:
        try:
            async for sound in self._ear.listen(self._settings, self._language):
                self.take(sound)
        except RecogniserFailed as failure:
            log.warning("the recogniser failed; whoever answered counts as a person", code=failure.code)

    def take(self, sound: Sound) -> None:
        """Take in what the recogniser said."""
        self._news.set()
        match sound:
            case SpeechStarted(at):
                self._judge.speech_started(at)
            case Hearing(at):
                self._judge.hearing(at)
            case Heard(text, at, _, ended_at):
                self._judge.heard(text, at, ended_at)
                if self._on_words is not None:
                    self._on_words(text)
            case SpeechEnded(at):
                self._judge.speech_ended(at)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._judge.tick(time.monotonic())
            self._news.set()
