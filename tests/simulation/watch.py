"""The watch over the world: invariants of promises 1 to 6 that no log can tell, checked as things happen.

Who watches knows what no dialer knows: every request as production made it, every INVITE that left, which agent lives,
when a stop was accepted. `INVARIANTS` names each check; a violation names its row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from dialer.gate import CONTROL_AGE_MAX_S, READINESS_AGE_MAX_S, STOPS_AGE_MAX_S
from dialer.log import Record
from dialer.telephony import DialAnswer, DialRequest, RoomRequest
from schemas.topics import CALLEES, EVENTS, OFFSETS_KEY
from schemas.values import attempt_of_room
from tests.simulation.model import Attempt, LogModel, Violation
from tests.simulation.plan import phone_of, refusal_of
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

INVARIANTS: Final[dict[str, int]] = {
    "no process ends by a bug": 1,
    "every valid request makes a call that ends": 1,
    "nothing but requests makes calls": 1,
    "no slot is held for a call that is over": 1,
    "every invalid command is rejected once": 1,
    "one dial request an attempt": 2,
    "one INVITE an attempt": 2,
    "one live leg a callee": 2,
    "no INVITE after an answered attempt": 2,
    "no INVITE into a fenced attempt": 2,
    "a room is asked for before its dial, never after its fence": 2,
    "a room is asked for once": 2,
    "a room is asked for after its committed attempt_opened": 3,
    "a dial follows its committed dial_started": 3,
    "a dial goes out with a ready agent": 4,
    "no leg outlives its agent": 4,
    "replay of the log gives the same state": 5,
    "no dial after an accepted stop": 6,
    "a leg ends after an accepted stop": 6,
    "no dial after the kill switch": 6,
    "a forged webhook is refused": 6,
}
"""Every invariant of the world with its promise; those of the log are `model.LAWS`."""
TRAVEL_S: Final = 0.1
"""What a fact or an answer takes at most when nothing is wrong."""
HANGS_UP_WITHIN_S: Final = 45.0
"""After everything is healed: session timeout, take-over, a fence's longest backoff, an agent's silence."""


@dataclass(slots=True)
class _Dialed:
    asked_at: float
    by: str
    invites: int = 0


@dataclass
class Watch:
    """Sees everything, keeps what it needs, says what is wrong; each wrong once a subject."""

    world: World
    model: LogModel = field(default_factory=LogModel)
    violations: list[Violation] = field(default_factory=list)
    dialed: dict[str, _Dialed] = field(default_factory=dict)
    rooms: dict[str, str] = field(default_factory=dict)
    """Which was asked for, by whom."""
    answered: dict[str, int] = field(default_factory=dict)
    """By call: the attempt whose phone was answered."""
    cancelled_at: dict[str, float] = field(default_factory=dict)
    suppressed_at: dict[str, float] = field(default_factory=dict)
    stopped_at: float | None = None
    steps: int = 0
    """Named points passed: what can go wrong is looked at as it changes, not at each of them."""
    _said: set[tuple[str, str]] = field(default_factory=set)
    _stops: set[str] = field(default_factory=set)

    def wrong(self, invariant: str, subject: str, text: str) -> None:
        """Note a violation, the first of its kind about a subject."""
        if (invariant, subject) not in self._said:
            self._said.add((invariant, subject))
            at = f"at {self.world.loop.time():.3f} s, {subject}: {text}"
            self.violations.append(Violation(promise=INVARIANTS[invariant], invariant=invariant, text=at))

    # ---- what production asks ------------------------------------------------------------------------------------

    def room_asked(self, process: Process, request: RoomRequest) -> None:
        place = attempt_of_room(request.name)
        assert place is not None
        if request.name in self.rooms:
            self.wrong(
                "a room is asked for once", request.name, f"{process.name} asks, {self.rooms[request.name]} asked"
            )
        self.rooms[request.name] = process.name
        attempt = self._attempt(*place)
        if attempt is None:
            text = "create_room without a committed attempt_opened"
            self.wrong("a room is asked for after its committed attempt_opened", request.name, text)
        elif request.agent_metadata and self.world.owns(process, place[0]) and (attempt.dialed or attempt.fenced):
            text = f"create_room, dialed={attempt.dialed}, fenced={attempt.fenced}"
            self.wrong("a room is asked for before its dial, never after its fence", request.name, text)

    def dial_asked(self, process: Process, request: DialRequest) -> DialAnswer | None:
        name, now = request.attempt_id, self.world.loop.time()
        if name in self.dialed:
            text = f"{process.name} asks, {self.dialed[name].by} asked"
            self.wrong("one dial request an attempt", name, text)
        else:
            self.dialed[name] = _Dialed(now, process.name)
        place = attempt_of_room(request.room)
        assert place is not None
        attempt = self._attempt(*place)
        if attempt is None or not attempt.dialed:
            self.wrong("a dial follows its committed dial_started", name, "no dial_started is committed")
        self._judge_stops(name, place[0], now)
        self._judge_agent(name, request.room)
        self.world.livekit.script(name, phone_of(self.world.chance))
        return refusal_of(self.world.chance)

    def invited(self, request: DialRequest) -> None:
        """An INVITE leaves LiveKit."""
        name, place = request.attempt_id, attempt_of_room(request.room)
        assert place is not None
        call_id = place[0]
        dialed = self.dialed[name]
        dialed.invites += 1
        if dialed.invites > 1:
            self.wrong("one INVITE an attempt", name, f"INVITE number {dialed.invites}")
        if call_id in self.answered and not self._may_follow_an_unknown(call_id, self.answered[call_id]):
            self.wrong("no INVITE after an answered attempt", name, "this call was answered before")
        attempt = self._attempt(*place)
        if attempt is not None and attempt.fenced:
            self.wrong("no INVITE into a fenced attempt", name, "fence_confirmed is on the log")
        self.check_legs()

    def _may_follow_an_unknown(self, call_id: str, number: int) -> bool:
        """Nobody could know of that answer, and the campaign's rule says to ring again (promise 2)."""
        attempt, call = self._attempt(call_id, number), self.model.calls[call_id]
        return attempt is not None and attempt.unknown and call.redials_unknown and not call.answered

    def _judge_stops(self, name: str, call_id: str, now: float) -> None:
        cancelled = self.cancelled_at.get(call_id)
        suppressed = self.suppressed_at.get(call_id[:26])
        for kind, at in (("cancel", cancelled), ("suppression", suppressed)):
            if at is not None and at < now - STOPS_AGE_MAX_S:
                self.wrong("no dial after an accepted stop", name, f"a {kind} was accepted {now - at:.3f} s before")
        if self.stopped_at is not None and self.stopped_at < now - CONTROL_AGE_MAX_S:
            self.wrong("no dial after the kill switch", name, f"stopped {now - self.stopped_at:.3f} s before")

    def _judge_agent(self, name: str, room: str) -> None:
        heard_s = self.world.agents.heard_s.get(room)
        if heard_s is None:
            self.wrong("a dial goes out with a ready agent", name, "no agent was ever ready in the room")
            return
        ago_s = self.world.loop.time() - heard_s
        if ago_s > READINESS_AGE_MAX_S + TRAVEL_S:
            self.wrong("a dial goes out with a ready agent", name, f"the agent was last heard of {ago_s:.3f} s before")

    # ---- what happens --------------------------------------------------------------------------------------------

    def committed(self, partition: int, records: list[Record]) -> None:
        """Take a transaction the moment it is committed."""
        del partition
        for record in records:
            if record.topic == EVENTS.name and record.value is not None:
                if self.model.take(orjson.loads(record.value)) == "attempt_opened":
                    self.world.hurry()
            elif record.topic == CALLEES.name and record.key != OFFSETS_KEY and record.value:
                self.model.snapshot(record.key.decode(), record.value)

    def stop_accepted(self, document: dict[str, object]) -> None:
        """Take a stop that lies on `dialer.stops`."""
        data, kind, stop_id = document["data"], str(document["type"]).split(".")[2], str(document["id"])
        if stop_id in self._stops:
            return  # forwarded again after an abort
        self._stops.add(stop_id)
        assert isinstance(data, dict)
        now = self.world.loop.time()
        if kind == "cancel_call":
            self.cancelled_at.setdefault(data["call_id"], now)
        elif kind == "suppress_callee":
            self.suppressed_at.setdefault(data["callee_key"], now)
        elif kind == "lift_suppression":
            self.suppressed_at.pop(data["callee_key"], None)

    def seen(self, room: str, identity: str, status: str) -> None:
        """A participant of a room changed, as LiveKit has it."""
        if status == "active" and identity.startswith("callee-"):
            place = attempt_of_room(room)
            assert place is not None
            self.answered.setdefault(*place)

    def check_legs(self) -> None:
        """A callee has one live leg at most: looked at whenever one is added."""
        legs = self.world.livekit.live_legs
        if len(legs) > 1:
            callees = [room[5:31] for room, _ in legs]
            for callee in {c for c in callees if callees.count(c) > 1}:
                self.wrong("one live leg a callee", callee, f"{callees.count(callee)} legs live")

    def check_healed(self) -> None:
        """With everything healed: no leg outlives its agent, none outlives a stop."""
        now = self.world.loop.time()
        for room, _ in self.world.livekit.live_legs:
            job = self.world.agents.rooms.get(room)
            gone = job.lost_at if job is not None else None
            since = max(self.world.healed_at_s, self.world.elapsed(gone)) if gone is not None else now
            if now - since > HANGS_UP_WITHIN_S:
                self.wrong("no leg outlives its agent", room, f"the agent is gone for {now - since:.1f} s")
            place = attempt_of_room(room)
            assert place is not None
            stopped = self.cancelled_at.get(place[0]) or self.suppressed_at.get(place[0][:26])
            if stopped is not None and now - max(self.world.healed_at_s, stopped) > HANGS_UP_WITHIN_S:
                self.wrong("a leg ends after an accepted stop", room, f"stopped {now - stopped:.1f} s ago")

    def _attempt(self, call_id: str, number: int) -> Attempt | None:
        call = self.model.calls.get(call_id)
        return next((a for a in call.attempts if a.number == number), None) if call is not None else None
