"""A process of the simulation: its clock, its tasks, and the one way its requests take to a server.

A request leaves, is served at the server's moment, and is answered, whatever has become of who asked: a paused process
finds the answer when it wakes, a dead one never, and what it had sent is served all the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from schemas.steps import Step
from tests.simulation.loop import HOST, Host, Life, SeededLoop

START: Final = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
T = TypeVar("T")
PARTITION: ContextVar[int] = ContextVar("partition", default=-1)
"""The partition whose owner started this work."""
OWNER_TASK: Final = "owner-"
POLLS: ContextVar[bool] = ContextVar("polls", default=False)
POLLERS: Final = frozenset({"stops-ends", "control-end", "agent-silence", "intake-membership"})
"""Tasks of `dialer/` that ask again and again: while no room stands they ask less often, to spare time."""


class Killed(BaseException):
    """The process died at this very point."""


class SimClock:
    """`runtime.clock.Clock` on the loop's virtual time; `host` None is the world's own."""

    def __init__(self, loop: SeededLoop, host: Process | None, chance: random.Random) -> None:
        self._loop, self._host, self._chance = loop, host, chance
        self._context = Context()
        if host is not None:
            self._context.run(HOST.set, host)
        self.skew_s = 0.0
        self._now_s, self._now = 0.0, START
        self.idle_factor = 1.0
        """How much longer than they mean to the pollers sleep: nothing happens, and nobody needs their evidence."""
        self._idlers: dict[asyncio.Future[None], None] = {}
        """Pollers that sleep longer than they mean to."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.failures: list[BaseException] = []

    def now(self) -> datetime:
        at = self._loop.elapsed_s + self.skew_s
        if at != self._now_s:
            self._now_s, self._now = at, START + timedelta(seconds=at)
        return self._now

    def monotonic(self) -> float:
        return self._loop.elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = self._loop
        woken: asyncio.Future[None] = asyncio.Future(loop=loop)
        idles = self.idle_factor != 1.0 and POLLS.get()
        if idles:
            seconds *= self.idle_factor
            self._idlers[woken] = None
        timer = loop.call_later(seconds, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()
            if idles:
                del self._idlers[woken]

    def hurry(self) -> None:
        """Let pollers ask as often as they mean to, from now on: their evidence is needed."""
        if self.idle_factor != 1.0:
            self.idle_factor = 1.0
            for woken in self._idlers:
                _wake(woken)

    def random_bytes(self, count: int) -> bytes:
        return self._chance.randbytes(count)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task in its process; a dead process starts nothing."""
        context = copy_context() if HOST.get() is self._host else self._context.copy()
        if name.startswith(OWNER_TASK):
            context.run(PARTITION.set, int(name.removeprefix(OWNER_TASK)))
        elif name in POLLERS:
            context.run(POLLS.set, True)
        if self._host is not None and self._host.life is Life.DEAD:
            work.close()
            return self._loop.create_future()  # type: ignore[return-value]
        task = self._loop.create_task(work, name=name, context=context)
        self.tasks.add(task)
        task.add_done_callback(self._ended, context=context)
        return task

    def passing(self, step: Step) -> None:
        if self._host is not None:
            self._host.passed(self._host, step, PARTITION.get())
            if self._host.life is Life.DEAD:
                raise Killed(step)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class Process(Host):
    """One dialer process, as far as the world sees it."""

    def __init__(
        self,
        name: str,
        loop: SeededLoop,
        chance: random.Random,
        passed: Callable[[Process, Step, int], None],
        latency_s: Callable[[], float],
        index: int = 0,
    ) -> None:
        super().__init__(name)
        self.index = index
        self._loop, self._latency_s = loop, latency_s
        self.passed = passed
        self.clock = SimClock(loop, self, chance)

    async def ask(self, serve: Callable[[], T], *, arrives: Callable[[], float] | None = None) -> T:
        """Send a request and wait for its answer."""
        return await (await self.send(serve, arrives=arrives))

    async def send(
        self, serve: Callable[[], T], *, arrives: Callable[[], float] | None = None, kept: bool = False
    ) -> asyncio.Future[T]:
        """Send a request: it is served after a while by the world, and its answer comes back.

        `arrives` tells, at the server, how much longer the request is on its way: 0 once it is served. Unless `kept`, a
        request whose answer nobody waits for any more is given up on its way.
        """
        if self.life is not Life.UP:
            await asyncio.sleep(0)  # what a paused process has in its pocket leaves when it wakes
        answer: asyncio.Future[T] = self._loop.create_future()
        self._loop.call_later(self._latency_s(), self._serve, answer, serve, arrives, kept, context=WORLD)
        return answer

    def _serve(
        self, answer: asyncio.Future[T], serve: Callable[[], T], arrives: Callable[[], float] | None, kept: bool
    ) -> None:
        wait_s = arrives() if arrives is not None else 0.0
        if wait_s > 0:
            if kept or not answer.done():
                self._loop.call_later(wait_s, self._serve, answer, serve, arrives, kept, context=WORLD)
            return
        try:
            result = serve()
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
            return
        if isinstance(result, NoAnswer):
            return
        if isinstance(result, Late):
            self._loop.call_later(result.by_s, _deliver, answer, result.answer, context=WORLD)
        elif isinstance(result, asyncio.Future):
            result.add_done_callback(lambda done: _deliver(answer, done.result()), context=WORLD)
        else:
            _deliver(answer, result)


class NoAnswer:
    """The server did what it was asked, and nobody ever hears of it."""


class Late:
    """The server did what it was asked; the answer takes so much longer."""

    def __init__(self, answer: Any, by_s: float) -> None:
        self.answer, self.by_s = answer, by_s


def _deliver(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


WORLD: Final = Context()
"""Where servers work: no process' pause or death touches it."""
