"""One input through the core: decide by the table, fold what was decided, judge what has ripened. Pure and total.

Laws (tests/callee/test_laws.py): the same input again decides nothing; the state is the fold of its events; sequences
count up by one; an input that changes the state yields at least one event; every call ends in exactly one terminal event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dialer.callee import opening, stopping
from dialer.callee.evolve import Copied, Recorded, evolve, has_fact
from dialer.callee.inputs import AnyInput, Cancel, DeadlinePassed, FactSeen, Lift, PlaceCall, Suppress
from dialer.callee.judge import is_ripe, judge
from dialer.callee.policy import FACTS_COPIED_FOR
from dialer.callee.state import CALLS_OPEN_MAX, CALLS_REMEMBERED_MAX, Callee, Phase
from dialer.callee.table import apply
from schemas.events import Decision
from schemas.values import split_call_id


@dataclass(frozen=True, slots=True)
class Step:
    """What one input came to: the callee as it is now, what is to be recorded, or the rule it was rejected by."""

    callee: Callee
    events: tuple[Recorded, ...]
    rejected: str | None = None


class _Folding:
    """Records decisions one by one, folding each at once."""

    def __init__(self, callee: Callee, cause: str, now: datetime) -> None:
        self.callee, self.cause, self.now = callee, cause, now
        self.events: list[Recorded] = []

    def record(self, call_id: str | None, bodies: Iterable[Decision | Copied]) -> None:
        """Fold these decisions about one call, or about the callee."""
        for body in bodies:
            recorded = Recorded(self.callee.sequence + 1, self.now, call_id, body, self.cause)
            self.callee = evolve(self.callee, recorded)
            self.events.append(recorded)

    def ripen(self, call_id: str) -> None:
        """Judge the call's attempt when everything about it is in."""
        call = self.callee.calls.get(call_id)
        if call is None or call.phase is not Phase.FENCING or not is_ripe(call, self.now):
            return
        self.record(call_id, judge(call, self.now))


def step(callee: Callee, given: AnyInput) -> Step:
    """Take one input; an owner's clock never goes behind the callee's last event."""
    now = given.at if callee.now is None or given.at > callee.now else callee.now
    folding = _Folding(callee, given.id, now)
    match given:
        case PlaceCall():
            rejected = _place(folding, given)
            if rejected is not None:
                return Step(callee, (), rejected)
        case Suppress():
            if given.id not in callee.stops_seen and callee.suppressed is None:
                folding.record(None, stopping.suppressed(callee, given))
                _each_call(folding, given)
        case Lift():
            if given.id not in callee.stops_seen:
                folding.record(None, stopping.lifted(callee, given))
        case DeadlinePassed():
            _each_call(folding, given)
        case Cancel() if given.call_id not in callee.calls:
            request = split_call_id(given.call_id)[1]
            folding.record(given.call_id, stopping.cancelled_early(callee, given, request))
        case FactSeen() if given.call_id not in callee.calls:
            folding.record(given.call_id, _late_fact(callee, given, now))
        case _:
            call = callee.calls.get(given.call_id)
            if call is not None:
                folding.record(given.call_id, apply(callee, call, given, now))
                folding.ripen(given.call_id)
    return Step(folding.callee, tuple(folding.events))


def _each_call(folding: _Folding, given: Suppress | DeadlinePassed) -> None:
    for call_id in list(folding.callee.calls):
        call = folding.callee.calls[call_id]
        folding.record(call_id, apply(folding.callee, call, given, folding.now))
        folding.ripen(call_id)


def _place(folding: _Folding, given: PlaceCall) -> str | None:
    callee, now = folding.callee, folding.now
    closed = callee.closed.get(split_call_id(given.call_id)[1])
    known = callee.calls.get(given.call_id) or (closed if closed is not None and closed.until > now else None)
    if known is not None:
        return None if known.body_hash == given.body_hash else "conflict"
    if len(callee.calls) >= CALLS_OPEN_MAX or _remembered(callee, now) >= CALLS_REMEMBERED_MAX:
        return "too_many"
    folding.record(given.call_id, opening.requested(callee, given, folding.now))
    return None


def _remembered(callee: Callee, now: datetime) -> int:
    count = len(callee.calls) + len(callee.closed)
    if count < CALLS_REMEMBERED_MAX:
        return count
    return len(callee.calls) + sum(c.until > now for c in callee.closed.values())


def _late_fact(callee: Callee, given: FactSeen, now: datetime) -> list[Decision | Copied]:
    """Copy a fact of a call that ended, for a day."""
    closed = callee.closed.get(split_call_id(given.call_id)[1])
    if closed is None or has_fact(closed.facts, given.fact) or closed.ended_at + FACTS_COPIED_FOR < now:
        return []
    return [Copied(fact=given.fact, source=given.source, id=given.id)]
