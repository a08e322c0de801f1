"""The one door to time, sleep, randomness and tasks: what a simulation must own, it owns by handing in a `Clock`.

`dialer/` imports none of `time`, `asyncio.sleep`, `random`, `os.urandom` (a house test holds it). Source: design §9.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

from schemas.steps import Step


class Clock(Protocol):
    """Time, randomness and tasks, as one seam."""

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 yields to other work."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """Draw bytes fit for keys and nonces."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that ends the process when it fails by a bug."""
        ...

    def passing(self, step: Step) -> None:
        """Pass a named point; the crash matrix and the simulation act here, production does nothing."""
        ...


class SystemClock:
    """The real one."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: asyncio.Future[BaseException] | None = None

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 yields to other work."""
        await asyncio.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        """Draw bytes fit for keys and nonces."""
        return os.urandom(count)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task; a bug in it is handed to whoever waits in `failed`."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def passing(self, step: Step) -> None:
        """Do nothing: production has no business at the named points."""

    async def failed(self) -> BaseException:
        """Wait for the first bug in any spawned task: the composition root ends the process with it."""
        if self.failure is None:
            self.failure = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.failure)  # who stops waiting must not cancel the future itself

    async def failed_or(self, stop: asyncio.Event) -> BaseException | None:
        """Wait for the first bug, or for `stop`: the bug, or None."""
        waiting = [asyncio.create_task(self.failed()), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        done = self.failure is not None and self.failure.done()
        return self.failure.result() if done and self.failure is not None else None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if self.failure is None:
            self.failure = asyncio.get_running_loop().create_future()
        if not self.failure.done():
            self.failure.set_result(error)
