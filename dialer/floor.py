"""The floor: one ownership of the process decides at a time, in slices; who has something urgent is let in first.

Each yielding for itself is not enough: with 24 of them ready, one round of the event loop is 24 slices long, and whoever
waits for a socket or a timer waits for all of them. And a backlog that is decided a bit here, a bit there makes many
small transactions. So a turn keeps the floor from slice to slice until it is done, unless somebody urgent waits.
Of turns over a backlog only a few wait for their commit at once: the broker answers in order, and a hang-up's commit would
stand behind all of them. Source: design §5 (other work gets a turn every 5 ms; what may pass between two drains of a partition's stops).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from runtime.clock import Clock

SLICE_S: Final = 0.005
"""Work goes on for so long at most before other work gets a turn."""


COMMITS_MAX: Final = 2
"""Patient turns whose commit is not answered, at most; the urgent are not counted and not held up."""


class Floor:
    """Held by one place at a time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._held = False
        self._commits = 0
        self._urgent: deque[Place] = deque()
        self._patient: deque[Place] = deque()

    def place(self) -> Place:
        """Return the place of one ownership."""
        return Place(self)

    def _let_in(self) -> None:
        """Give the floor to whoever is next; a place that was told leaves both lines at once."""
        while not self._held and (line := self._urgent or (self._patient if self._commits < COMMITS_MAX else None)):
            self._held = line.popleft().call()


class Place:
    """One ownership's way to the floor and off it. `slice_began` and `worked_s` tell how long it has worked."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._told: asyncio.Future[None] | None = None
        self._commits = False
        self._is_urgent = False
        self._slice_began = 0.0
        self.worked_s = 0.0

    async def take(self, *, urgent: bool) -> None:
        """Wait for the floor; what was worked before is forgotten."""
        self._is_urgent = urgent
        await self._take(first=False)
        self.worked_s = 0.0

    def slice_is_over(self) -> bool:
        """Tell whether other work must get a turn."""
        return self._floor.clock.monotonic() - self._slice_began > SLICE_S

    async def rest(self) -> None:
        """Let everything else run once; keep the floor, unless somebody urgent waits: then be the first after them."""
        self.worked_s += self._floor.clock.monotonic() - self._slice_began
        await self._floor.clock.sleep(0)
        if self._floor._urgent:
            self.give()
            await self._take(first=True)
        self._slice_began = self._floor.clock.monotonic()

    def hurry(self) -> None:
        """Go over to those who are let in first, where this place waits among the patient ones."""
        if self in self._floor._patient:
            self._floor._patient.remove(self)
            self._floor._urgent.append(self)
            self._floor._let_in()

    def give(self) -> None:
        """Leave the floor."""
        self._floor._held = False
        self._floor._let_in()

    def commits(self) -> None:
        """Count this turn's commit, which follows, among those that hold others up, until `settle`."""
        self._commits = True
        self._floor._commits += 1

    def settle(self) -> None:
        """Say that the commit is over, if it was counted."""
        if self._commits:
            self._commits = False
            self._floor._commits -= 1
            self._floor._let_in()

    def call(self) -> bool:
        """Tell the one who waits here; False where nobody does any more."""
        if self._told is None or self._told.done():
            return False
        self._told.set_result(None)
        return True

    async def _take(self, *, first: bool) -> None:
        floor, urgent = self._floor, self._is_urgent
        full = not urgent and floor._commits >= COMMITS_MAX
        if floor._held or floor._urgent or floor._patient or full:
            line = floor._urgent if urgent else floor._patient
            self._told = asyncio.get_running_loop().create_future()
            (line.appendleft if first and not urgent else line.append)(self)
            floor._let_in()
            try:
                await self._told
            except asyncio.CancelledError:
                if self._told.done() and not self._told.cancelled():
                    self.give()
                raise
            finally:
                self._told = None
        else:
            floor._held = True
        self._slice_began = floor.clock.monotonic()
