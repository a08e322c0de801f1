"""A virtual clock: time stands until a test moves it; randomness is seeded; tasks run on asyncio, their bugs surface."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.steps import Step

START = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
SETTLE_ROUNDS_MAX = 10_000


class VirtualClock:
    """`runtime.clock.Clock` for tests: `await advance(s)` wakes every sleeper at its own moment, in order."""

    def __init__(self, start: datetime = START, seed: int = 1, passing: Callable[[Step], None] | None = None) -> None:
        self._start, self._elapsed_s = start, 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = passing
        self.failures: list[BaseException] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._order), woken))
        await woken

    def random_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def passing(self, step: Step) -> None:
        if self._passing is not None:
            self._passing(step)

    def move(self, seconds: float) -> None:
        """Move time without waking anybody: for synchronous tests."""
        assert seconds >= 0
        self._elapsed_s += seconds

    async def advance(self, seconds: float) -> None:
        """Let time pass: sleepers wake at their moments, and what they start runs before time goes on."""
        until = self._elapsed_s + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            due, _, woken = heapq.heappop(self._sleepers)
            if woken.done():  # its task was cancelled
                continue
            self._elapsed_s = max(self._elapsed_s, due)
            woken.set_result(None)
            await self.settle()
        self._elapsed_s = until
        await self.settle()

    async def settle(self) -> None:
        """Run everything that can run without time passing; the first bug of a spawned task is raised here."""
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        for _ in range(SETTLE_ROUNDS_MAX):
            await asyncio.sleep(0)
            if self.failures:
                raise self.failures[0]
            if not ready:
                return
        raise AssertionError("the tasks never come to rest")

    async def next_wake(self) -> bool:
        """Jump to the next sleeper's moment; False where nobody sleeps."""
        await self.settle()
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        if not self._sleepers:
            return False
        await self.advance(max(0.0, self._sleepers[0][0] - self._elapsed_s))
        return True

    async def close(self) -> None:
        """Cancel what was spawned and still runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)
