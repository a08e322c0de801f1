"""The telephony port in memory: rooms, agents, legs, INVITEs that can be counted, and faults on order.

It does what LiveKit does where the dialer leans on it: rooms by name, a fence that holds, no two live legs of one
identity (the second dial is a second INVITE all the same), and legs that outlive a caller who went away.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dialer.telephony import (
    Deletion,
    DialAnswer,
    DialRequest,
    Leg,
    RoomAnswer,
    RoomRequest,
    TelephonyUnavailable,
    Trunk,
)
from runtime.clock import Clock

Method = Literal["create_room", "dial", "delete_room", "legs", "ensure_trunk", "auto_create_is_off"]
ANSWERED = DialAnswer(result="answered")
ROOM_GONE = DialAnswer(result="failed", code="internal", phrase="update room failed: room join failed")
NOT_SENT = DialAnswer(result="failed", code="not_sent")
RING_TIMEOUT = DialAnswer(result="failed", code="canceled", phrase="sip request timed out")
UNCLEAR = DialAnswer(result="unclear", code="timeout")
TRUNK_UNKNOWN = DialAnswer(result="failed", code="not_found", phrase="requested sip trunk does not exist")


def refused(sip_status: int, code: str, phrase: str) -> DialAnswer:
    """A final SIP response as LiveKit passes it on."""
    return DialAnswer(result="failed", sip_status=sip_status, code=code, phrase=phrase)


BUSY = refused(486, "resource_exhausted", "Busy Here")
DECLINED = refused(603, "permission_denied", "Decline")
NOT_FOUND = refused(404, "not_found", "Not Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """How a number answers one dial: what it says after how long; `rings_for_s` None rings until given up."""

    answer: DialAnswer = ANSWERED
    rings_for_s: float | None = 0.0
    talks_for_s: float | None = None
    """Hangs up so long after its answer; None stays until the room goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one request.

    `fail`: not done, answered with `code`; `not_sent`: not done, for dials; `delay`: done and answered `delay_s` later;
    `late`: done at once, answered `delay_s` later; `lose_answer`: done, and nobody learns how it went.
    """

    kind: Literal["fail", "not_sent", "delay", "late", "lose_answer"]
    delay_s: float = 1.0
    code: str = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """One INVITE, as the carrier's witness would have it."""

    at: datetime
    attempt_id: str
    to: str
    room: str
    identity: str
    caller_id: str


@dataclass(slots=True)
class _Leg:
    kind: Literal["sip", "agent", "other"]
    status: str
    answer: asyncio.Future[DialAnswer] | None = None


@dataclass(slots=True)
class Room:
    sid: str
    request: RoomRequest
    legs: dict[str, _Leg] = field(default_factory=dict)
    is_ghost: bool = False
    """The server that held it died: it is listed, nobody is in it, and deleting it fails."""


Seen = Callable[[str, str, str], None]
"""Told (room, identity, status) of every leg: a `sip.callStatus`, or `left`."""


class TelephonyDouble:
    """`dialer.telephony.Telephony` in memory."""

    def __init__(self, clock: Clock, *, auto_create: bool = False) -> None:
        self.clock, self.auto_create = clock, auto_create
        self.rooms: dict[str, Room] = {}
        self.trunks: dict[str, tuple[str, Trunk]] = {}
        self.invites: list[Invite] = []
        self.dispatches: list[RoomRequest] = []
        self.requests: list[tuple[Method, str]] = []
        self.phones: dict[str, deque[Phone]] = defaultdict(deque)
        self.phone_default = Phone()
        self.faults: dict[Method, deque[Fault | None]] = defaultdict(deque)
        self.dispatched: Callable[[RoomRequest], None] = lambda _: None
        self.seen: Seen = lambda _room, _identity, _status: None
        self._numbers = itertools.count(1)

    # -- what a test orders and does ----------------------------------------------------------------------------------

    def script(self, to: str, *phones: Phone) -> None:
        """The next dials of a number (or of an attempt id) meet these phones, one each."""
        self.phones[to].extend(phones)

    def fault(self, method: Method, fault: Fault, *, after: int = 0) -> None:
        """The next request of this method, or the one `after` so many, meets this fault."""
        self.faults[method].extend([*[None] * after, fault])

    def join(self, room: str, identity: str, kind: Literal["agent", "other"] = "agent") -> bool:
        """Somebody joins; False where the room is not there (it is not made by joining)."""
        if room not in self.rooms or self.rooms[room].is_ghost:
            return False
        self.rooms[room].legs[identity] = _Leg(kind, "")
        return True

    def leave(self, room: str, identity: str) -> None:
        """Somebody leaves: an agent that dies, a callee that hangs up."""
        if room in self.rooms and not self.rooms[room].is_ghost and identity in self.rooms[room].legs:
            self._end(room, identity, self.rooms[room].legs[identity])

    def make_room(self, request: RoomRequest) -> RoomAnswer:
        """Make a room and dispatch its agent, once a name; a ghost becomes a room again."""
        room = self.rooms.get(request.name)
        if room is None:
            room = self.rooms[request.name] = Room(f"RM_{next(self._numbers)}", request)
            self.dispatches.append(request)
            self.dispatched(request)
        elif room.is_ghost:
            room.is_ghost, room.legs = False, {}
        return RoomAnswer(ok=True, sid=room.sid)

    def invite(self, request: DialRequest) -> DialAnswer | asyncio.Future[DialAnswer]:
        """Send the INVITE, where the room stands; the answer comes when the phone has one."""
        if request.trunk_id not in {trunk_id for trunk_id, _ in self.trunks.values()}:
            return TRUNK_UNKNOWN
        if request.room not in self.rooms or self.rooms[request.room].is_ghost:
            return ROOM_GONE
        return self._invite(request)

    def take_room(self, name: str) -> Deletion:
        """Take a room down, and everybody in it; of a ghost nobody can say."""
        room = self.rooms.get(name)
        if room is None:
            return "not_found"
        if room.is_ghost:
            return "failed"
        for identity, leg in list(room.legs.items()):
            self._end(name, identity, leg)
        del self.rooms[name]
        return "deleted"

    def list_legs(self, name: str) -> tuple[Leg, ...]:
        """List who is in a room, a ghost's shades included."""
        room = self.rooms.get(name)
        if room is None:
            return ()
        return tuple(Leg(identity=i, kind=leg.kind, call_status=leg.status) for i, leg in room.legs.items())

    def haunt(self, name: str) -> None:
        """End everybody in a room as a killed livekit-server does: the list goes on naming them (reference 4.9)."""
        room = self.rooms[name]
        shades = {identity: _Leg(leg.kind, leg.status) for identity, leg in room.legs.items()}
        for identity, leg in list(room.legs.items()):
            self._end(name, identity, leg, UNCLEAR)
        room.is_ghost, room.legs = True, shades

    def exorcise(self, name: str) -> None:
        """Forget a ghost: its entry has run out."""
        if name in self.rooms and self.rooms[name].is_ghost:
            del self.rooms[name]

    @property
    def live_legs(self) -> list[tuple[str, str]]:
        """Every callee's leg there is: (room, identity)."""
        rooms = [(n, room) for n, room in self.rooms.items() if not room.is_ghost]
        return [(n, i) for n, room in rooms for i, leg in room.legs.items() if leg.kind == "sip"]

    # -- the port -----------------------------------------------------------------------------------------------------

    async def create_room(self, request: RoomRequest) -> RoomAnswer:
        fault = await self._meet("create_room", request.name)
        if fault is not None and fault.kind in {"fail", "not_sent"}:
            return RoomAnswer(ok=False, code=fault.code)
        answer = self.make_room(request)
        lost = await self._answer(fault)
        return RoomAnswer(ok=False, code="timeout") if lost else answer

    async def dial(self, request: DialRequest) -> DialAnswer:
        fault = await self._meet("dial", request.attempt_id)
        if fault is not None and fault.kind == "not_sent":
            return NOT_SENT
        if fault is not None and fault.kind == "fail":
            return DialAnswer(result="failed", code=fault.code)
        given = self.invite(request)
        # Shielded: a caller that goes away does not cancel a dial.
        answer = given if isinstance(given, DialAnswer) else await asyncio.shield(given)
        lost = await self._answer(fault)
        return UNCLEAR if lost else answer

    async def delete_room(self, name: str) -> Deletion:
        fault = await self._meet("delete_room", name)
        if fault is not None and fault.kind in {"fail", "not_sent"}:
            return "failed"
        answer = self.take_room(name)
        lost = await self._answer(fault)
        return "failed" if lost else answer

    async def legs(self, name: str) -> tuple[Leg, ...] | None:
        fault = await self._meet("legs", name)
        if fault is not None and fault.kind in {"fail", "not_sent", "lose_answer"}:
            return None
        listed = self.list_legs(name)
        await self._answer(fault)
        return listed

    async def ensure_trunk(self, trunk: Trunk) -> str:
        fault = await self._meet("ensure_trunk", trunk.name)
        if fault is not None and fault.kind != "late":
            raise TelephonyUnavailable(fault.code)
        trunk_id = self.trunks[trunk.name][0] if trunk.name in self.trunks else f"ST_{next(self._numbers)}"
        self.trunks[trunk.name] = (trunk_id, trunk)
        return trunk_id

    async def auto_create_is_off(self) -> bool:
        fault = await self._meet("auto_create_is_off", "")
        if fault is not None:
            raise TelephonyUnavailable(fault.code)
        return not self.auto_create

    async def close(self) -> None:
        return None

    # -- within -------------------------------------------------------------------------------------------------------

    async def _meet(self, method: Method, what: str) -> Fault | None:
        self.requests.append((method, what))
        fault = self.faults[method].popleft() if self.faults[method] else None
        await self.clock.sleep(fault.delay_s if fault is not None and fault.kind == "delay" else 0)
        return fault

    async def _answer(self, fault: Fault | None) -> bool:
        """Wait as the fault has it; True where the answer is lost."""
        if fault is not None and fault.kind in {"late", "lose_answer"}:
            await self.clock.sleep(fault.delay_s)
        return fault is not None and fault.kind == "lose_answer"

    def _invite(self, request: DialRequest) -> asyncio.Future[DialAnswer]:
        legs = self.rooms[request.room].legs
        if request.identity in legs:  # LiveKit kicks the first (DUPLICATE_IDENTITY); the second INVITE goes out
            self._end(request.room, request.identity, legs[request.identity])
        answer: asyncio.Future[DialAnswer] = asyncio.get_running_loop().create_future()
        leg = legs[request.identity] = _Leg("sip", "dialing", answer)
        self.seen(request.room, request.identity, "dialing")
        self.invites.append(
            Invite(
                at=self.clock.now(),
                attempt_id=request.attempt_id,
                to=request.to,
                room=request.room,
                identity=request.identity,
                caller_id=request.caller_id,
            )
        )
        scripted = self.phones[request.attempt_id] or self.phones[request.to]
        phone = scripted.popleft() if scripted else self.phone_default
        self.clock.spawn(self._ring(request, leg, phone), f"phone-{request.attempt_id}")
        return answer

    async def _ring(self, request: DialRequest, leg: _Leg, phone: Phone) -> None:
        assert leg.answer is not None
        patience_s = float(request.ring_timeout_s)
        rings_for_s = patience_s if phone.rings_for_s is None else phone.rings_for_s
        if rings_for_s:
            self._show(request, leg, "ringing")
        await self.clock.sleep(min(rings_for_s, patience_s))
        if leg.answer.done():
            return
        given_up = phone.rings_for_s is None or rings_for_s >= patience_s
        answer = RING_TIMEOUT if given_up else phone.answer
        if answer.result != "answered":
            self._end(request.room, request.identity, leg, answer)
            return
        self._show(request, leg, "active")
        leg.answer.set_result(answer)
        if phone.talks_for_s is not None:
            await self.clock.sleep(phone.talks_for_s)
            self._end(request.room, request.identity, leg)

    def _show(self, request: DialRequest, leg: _Leg, status: str) -> None:
        leg.status = status
        self.seen(request.room, request.identity, status)

    def _end(self, room: str, identity: str, leg: _Leg, answer: DialAnswer = RING_TIMEOUT) -> None:
        """Take a leg out; a dial that waits for it gets its answer (LiveKit says "timed out" for a CANCEL too)."""
        legs = self.rooms[room].legs if room in self.rooms else {}
        if legs.get(identity) is not leg:
            return
        del legs[identity]
        if leg.answer is not None and not leg.answer.done():
            leg.answer.set_result(answer)
        self.seen(room, identity, "left")
