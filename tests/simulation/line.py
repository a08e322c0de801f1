"""LiveKit as one process reaches it: the shared double behind a network that is late, loses answers, errs and babbles.

What the adapter answers for each is answered here: a timeout is `timeout`, an error its code, garbage `malformed_answer`.
The weather says what happens to a request; every dial request and every room request is told to the witness as it is made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dialer.telephony import (
    DIAL_MARGIN_S,
    ROOM_TIMEOUT_S,
    Deletion,
    DialAnswer,
    DialRequest,
    Leg,
    RoomAnswer,
    RoomRequest,
    Trunk,
)
from schemas.steps import Step
from tests.doubles.telephony import TelephonyDouble
from tests.simulation.process import WORLD, Late, NoAnswer, Process

LATEST_S: Final = 40.0
"""No request reaches LiveKit later than this after it was sent: below the 80 s that none outlives."""
LATE_S: Final = 12.0
UNAVAILABLE: Final = "unavailable"
GARBAGE: Final = "malformed_answer"
TIMEOUT: Final = "timeout"
KINDS: Final = ("late_answer", "late_arrival", "no_answer", "error", "garbage")


@dataclass
class Weather:
    """How often what goes wrong with requests to LiveKit, and until when it is a storm of one kind."""

    chance: random.Random
    rate: float = 0.0
    storm: str = ""
    storm_until_s: float = 0.0

    def draw(self, now_s: float) -> str:
        """Say what happens to the next request; empty: nothing."""
        if self.storm and now_s < self.storm_until_s:
            return self.storm
        return self.chance.choice(KINDS) if self.rate and self.chance.random() < self.rate else ""


class Witness(Protocol):
    """Who is told of requests as production makes them, and of INVITEs as they leave."""

    def room_asked(self, process: Process, request: RoomRequest) -> None: ...
    def dial_asked(self, process: Process, request: DialRequest) -> DialAnswer | None:
        """Note a dial request; what it returns, LiveKit answers without sending an INVITE."""
        ...

    def invited(self, request: DialRequest) -> None: ...


class Line:
    """`dialer.telephony.Telephony` for one process."""

    def __init__(self, double: TelephonyDouble, process: Process, weather: Weather, witness: Witness) -> None:
        self._double, self._process, self._weather, self._witness = double, process, weather, witness

    async def create_room(self, request: RoomRequest) -> RoomAnswer:
        self._witness.room_asked(self._process, request)
        answer = await self._asked(lambda: self._double.make_room(request), ROOM_TIMEOUT_S)
        return RoomAnswer(ok=False, code=answer) if isinstance(answer, str) else answer

    async def dial(self, request: DialRequest) -> DialAnswer:
        refusal = self._witness.dial_asked(self._process, request)
        serve = (lambda: refusal) if refusal is not None else (lambda: self._invited(request))
        answer = await self._asked(serve, request.ring_timeout_s + DIAL_MARGIN_S, dialing=True)
        if isinstance(answer, str):
            return DialAnswer(result="failed" if answer == UNAVAILABLE else "unclear", code=answer)
        return answer

    async def delete_room(self, name: str) -> Deletion:
        answer = await self._asked(lambda: (self._double.take_room(name),), ROOM_TIMEOUT_S)
        return "failed" if isinstance(answer, str) else answer[0]

    async def legs(self, name: str) -> tuple[Leg, ...] | None:
        answer = await self._asked(lambda: (self._double.list_legs(name),), ROOM_TIMEOUT_S)
        return None if isinstance(answer, str) else answer[0]

    async def ensure_trunk(self, trunk: Trunk) -> str:
        self._double.trunks.setdefault(trunk.name, ("ST_1", trunk))
        return self._double.trunks[trunk.name][0]

    async def auto_create_is_off(self) -> bool:
        return True

    async def close(self) -> None:
        return None

    def _invited(self, request: DialRequest) -> Any:
        given = self._double.invite(request)
        if not isinstance(given, DialAnswer):
            self._witness.invited(request)
        return given

    async def _asked(self, serve: Callable[[], Any], timeout_s: float, *, dialing: bool = False) -> Any:
        """Ask through the weather: the answer, or a code."""
        process, chance = self._process, self._weather.chance
        fault = self._weather.draw(process.clock.monotonic())
        late_s = chance.uniform(1.0, LATEST_S if fault == "late_arrival" else LATE_S) if fault else 0.0
        done = fault != "error" and (fault != "garbage" or chance.random() < 0.5)

        def served() -> Any:
            answer = serve() if done else None
            if fault == "error":
                return UNAVAILABLE
            if fault == "garbage":
                return GARBAGE
            if fault == "no_answer":
                return NoAnswer()
            return _later(answer, late_s) if fault == "late_answer" else answer

        waits = [late_s] if fault == "late_arrival" else []
        answer = await process.send(served, arrives=lambda: waits.pop() if waits else 0.0, kept=True)
        if dialing:
            process.clock.passing(Step.DIAL_SENT)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return TIMEOUT


def _later(answer: Any, by_s: float) -> Any:
    """Hold an answer back, whenever it comes."""
    if not isinstance(answer, asyncio.Future):
        return Late(answer, by_s)
    loop = asyncio.get_running_loop()
    held: asyncio.Future[Any] = loop.create_future()
    answer.add_done_callback(
        lambda done: loop.call_later(by_s, lambda: held.done() or held.set_result(done.result()), context=WORLD),
        context=WORLD,
    )
    return held
