"""One sleeper that is woken by whoever has work for it, or by the clock when a deadline comes: never by real time alone."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final

from runtime.clock import Clock

SLEEP_MAX_S: Final = 60.0
"""The wall clock may be set; deadlines are wall times, so a long sleep looks again this often."""


class Wakeup:
    """Waits for `wake()` or for an instant; at most one alarm is set, and a later instant leaves an earlier one be."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock, self._name = clock, name
        self._woken = asyncio.Event()
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at: datetime | None = None

    def wake(self) -> None:
        """End the wait that runs, or the next one."""
        self._woken.set()

    async def wait(self, due: datetime | None) -> None:
        """Return when woken, or once `due` has come; early now and then: the caller looks again."""
        self._woken.clear()
        now = self._clock.now()
        if due is not None and due <= now:
            await self._clock.sleep(0)
            return
        if due is not None and (self._alarm is None or self._alarm_at is None or due < self._alarm_at):
            self.cancel()
            self._alarm_at = due
            wait_s = min((due - now).total_seconds(), SLEEP_MAX_S)
            self._alarm = self._clock.spawn(self._ring(wait_s), self._name)
        await self._woken.wait()

    def cancel(self) -> None:
        """Set no alarm any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._alarm_at = None

    async def _ring(self, wait_s: float) -> None:
        await self._clock.sleep(wait_s)
        self._alarm = self._alarm_at = None
        self._woken.set()
