"""An event loop on virtual time whose order is drawn from a seed: no selector, no threads, nothing real.

What is ready at one instant runs in rounds, each shuffled. A handle belongs to the process in whose context it was made:
those of a paused process are withheld until it wakes (SIGSTOP), those of a dead one never run (kill -9), so no `finally`
of it does anything either.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from typing import Any


class Life(Enum):
    """Whether a process runs."""

    UP = "up"
    PAUSED = "paused"
    DEAD = "dead"


class Handle:
    """A callback to be run, in its context; slimmer than asyncio's, for a simulation makes millions."""

    __slots__ = ("args", "callback", "cancelled_", "context", "due")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None, due: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.due = due
        self.cancelled_ = False
        self.context = copy_context() if context is None else context

    def cancel(self) -> None:
        self.cancelled_ = True

    def cancelled(self) -> bool:
        return self.cancelled_

    def when(self) -> float:
        return self.due


class Host:
    """A process as the loop knows it."""

    def __init__(self, name: str) -> None:
        self.name, self.life = name, Life.UP
        self.withheld: list[Handle] = []


HOST: ContextVar[Host | None] = ContextVar("host", default=None)
"""Whose work this is; None: the world's (broker, LiveKit, phones, agents, the script)."""


class Stuck(AssertionError):
    """Nothing is ready and nobody sleeps: the world would stand still for ever."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs what is ready, then jumps to the next timer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.elapsed_s = 0.0
        self._now: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = itertools.count()
        chance = random.Random(seed)
        self._random = chance.random
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self.elapsed_s

    def release(self, host: Host) -> None:
        """Let a paused process go on with all that was withheld."""
        host.life = Life.UP
        self._now.extend(host.withheld)
        host.withheld = []

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, context, 0.0)
        self._now.append(handle)
        return handle

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        """Keep a timer; equal times keep their order until they are shuffled."""
        handle = Handle(callback, args, context, when)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        when = self.elapsed_s + delay
        handle = Handle(callback, args, context, when)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _run_once(self) -> None:
        if not self._now:
            self._jump()
        batch, self._now = self._now, []
        if len(batch) == 2:
            if self._random() < 0.5:
                batch.reverse()
        elif len(batch) > 2:
            chance = self._random
            batch.sort(key=lambda _handle: chance())
        up = Life.UP
        for handle in batch:
            if handle.cancelled_:
                continue
            context = handle.context
            host = context.get(HOST)
            if host is None or host.life is up:
                context.run(handle.callback, *handle.args)
            elif host.life is Life.PAUSED:
                host.withheld.append(handle)

    def _jump(self) -> None:
        timers, pop, ready = self._timers, heapq.heappop, self._now
        while timers:
            due, _, handle = pop(timers)
            if handle.cancelled_:
                continue
            ready.append(handle)
            self.elapsed_s = max(self.elapsed_s, due)
            while timers and timers[0][0] <= due:
                handle = pop(timers)[2]
                if not handle.cancelled_:
                    ready.append(handle)
            return
        raise Stuck("nothing is ready and nobody sleeps")

    def close(self) -> None:
        """Let go of whatever would have run."""
        super().close()
        self._timers.clear()
        self._now.clear()

    def _check_closed(self) -> None:
        """What is left of a world may still be cleared away when it is over: nothing of it runs."""

    def _process_events(self, event_list: Any) -> None:
        raise NotImplementedError

    def _write_to_self(self) -> None:
        """Nothing waits outside."""
