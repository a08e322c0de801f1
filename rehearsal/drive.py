"""Sends a scenario as a pipeline would, and does in the right moment what hangs on what was seen before."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rehearsal.accounts import TERMINAL
from rehearsal.producer import Pipeline, call_id_of
from rehearsal.reader import LogReader
from rehearsal.scenario import Request, Role, Scenario
from rehearsal.witness import Dial, dials_of
from schemas.values import callee_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One campaign under way: who sends, who reads, what the carrier saw."""

    scenario: Scenario
    pipeline: Pipeline
    reader: LogReader
    witness_file: Path
    pepper: bytes

    def call_id(self, request: Request) -> str:
        """Name the call of a request."""
        return call_id_of(request.data, self.pepper)

    def by_call(self) -> dict[str, Request]:
        """Return the requests by their call_id."""
        return {self.call_id(request): request for request in self.scenario.requests}

    def dials(self) -> list[Dial]:
        """Return what the carrier saw so far."""
        return dials_of(self.witness_file)

    def has(self, request: Request, *names: str) -> bool:
        """Tell whether the log has a decision of one of these names about a request's call."""
        return not self.reader.decided[self.call_id(request)].isdisjoint(names)

    def unfinished(self) -> list[Request]:
        """Return the requests without a terminal event."""
        return [request for request in self.scenario.requests if not self.has(request, *TERMINAL)]

    async def send_all(self) -> list[str]:
        """Send everything, answering calls first; returns, with no findings, when what hangs on something was sent too."""
        async with asyncio.TaskGroup() as group:
            for request in self.scenario.requests:
                group.create_task(_STEPS.get(request.role, Drive._place)(self, request))
            for why, value in self.scenario.broken:
                group.create_task(self.pipeline.send_broken(why, value))
        return []

    async def _place(self, request: Request) -> None:
        await self.pipeline.place(request)

    async def _repeat(self, request: Request) -> None:
        """Ask again at once, while it is open, and after its end."""
        await self.pipeline.place(request)
        await self.pipeline.repeat(request)
        await self._until(lambda: self.has(request, *TERMINAL))
        await self.pipeline.repeat(request)

    async def _contradict(self, request: Request) -> None:
        await self.pipeline.place(request)
        await self._until(lambda: self.has(request, "call_requested"))
        await self.pipeline.contradict(request)

    async def _cancel_waiting(self, request: Request) -> None:
        await self.pipeline.place(request)
        await self._until(lambda: self.has(request, "call_requested"))
        await self.pipeline.cancel(request)

    async def _cancel_ringing(self, request: Request) -> None:
        await self.pipeline.place(request)
        call = self.call_id(request)
        await self._until(lambda: any(d.attempt_id.startswith(call) and d.ringing_at for d in self.dials()))
        await self.pipeline.cancel(request)

    async def _suppress(self, request: Request) -> None:
        await self.pipeline.suppress(request)
        callee = callee_of(self.call_id(request))
        await self._until(lambda: "callee_suppressed" in self.reader.decided[callee])
        await self.pipeline.place(request)

    async def _place_after_opt_out(self, request: Request) -> None:
        """Ask for somebody again who said meanwhile that they do not want to be called."""
        callee = callee_of(self.call_id(request))
        await self._until(lambda: "callee_suppressed" in self.reader.decided[callee])
        await self.pipeline.place(request)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Wait for a fact; whoever waits for the whole run bounds it."""
        await self.reader.wait_for(holds, math.inf)


_STEPS: Final = {
    Role.REPEATED: Drive._repeat,
    Role.CONFLICT: Drive._contradict,
    Role.CANCEL_WAITING: Drive._cancel_waiting,
    Role.CANCEL_RINGING: Drive._cancel_ringing,
    Role.SUPPRESSED: Drive._suppress,
    Role.OPTED_OUT: Drive._place_after_opt_out,
}
"""What is done with a request of a role; all others are just sent."""
