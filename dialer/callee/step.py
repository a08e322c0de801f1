"""One input through the core: decide by the table, fold what was decided, judge what has ripened. Pure and total.

Laws (tests/callee/test_laws.py): the same input again decides nothing; the state is the fold of its events; sequences
count up by one; an input that changes the state yields at least one event; every call ends in exactly one terminal event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from dialer.callee import opening, stopping
from dialer.callee.evolve import Copied, Recorded, evolve
from dialer.callee.inputs import AnyInput, Cancel, DeadlinePassed, FactSeen, Lift, PlaceCall, Suppress
from dialer.callee.judge import is_ripe, judge
from dialer.callee.late import is_late
from dialer.callee.policy import FACTS_COPIED_FOR
from dialer.callee.state import CALLS_OPEN_MAX, CALLS_REMEMBERED_MAX, Callee, Phase
from dialer.callee.table import apply
from dialer.callee.witnessed import has_fact
from schemas.events import Decision
from schemas.facts import OptOutHeard
from schemas.values import split_call_id

OPTED_OUT: Final = "opt_out"
"""`reason` of a suppression that the callee asked for in a call."""


class Step(NamedTuple):
    """What one input came to: the callee as it is now, what is to be recorded, or the rule it was rejected by."""

    callee: Callee
    events: tuple[Recorded, ...]
    rejected: str | None = None


class _Folding:
    """Records decisions one by one, folding each at once."""

    __slots__ = ("callee", "cause", "events", "now")

    def __init__(self, callee: Callee, cause: str, now: datetime) -> None:
        self.callee, self.cause, self.now = callee, cause, now
        self.events: list[Recorded] = []

    def record(self, call_id: str | None, bodies: Iterable[Decision | Copied]) -> None:
        """Fold these decisions about one call, or about the callee."""
        callee, now, cause = self.callee, self.now, self.cause
        for body in bodies:
            recorded = Recorded(callee.sequence + 1, now, call_id, body, cause)
            callee = evolve(callee, recorded)
            self.events.append(recorded)
        self.callee = callee

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
    special = _SPECIAL.get(type(given))
    if special is not None and (rejected := special(folding, given)) is not None:
        return Step(callee, (), rejected)
    if special is None:
        call = callee.calls.get(given.call_id)  # type: ignore[union-attr]  # what has none is special
        if call is not None:
            folding.record(call.call_id, apply(callee, call, given, now))
            _opted_out(folding, given)
            folding.ripen(call.call_id)
        elif isinstance(given, Cancel):
            request = split_call_id(given.call_id)[1]
            folding.record(given.call_id, stopping.cancelled_early(callee, given, request))
        elif isinstance(given, FactSeen):
            folding.record(given.call_id, _late_fact(callee, given, now))
            _opted_out(folding, given)
    return Step(folding.callee, tuple(folding.events))


def _suppress(folding: _Folding, given: Suppress) -> None:
    callee = folding.callee
    if given.id not in callee.stops_seen and callee.suppressed is None:
        folding.record(None, stopping.suppressed(callee, given))
        _each_call(folding, given)


def _opted_out(folding: _Folding, given: AnyInput) -> None:
    """Suppress who asked not to be called again, in the step that hears of it.

    The talk itself is left to its agent, which says so aloud and hangs up; every other call of the callee is stopped. A
    request that is shipped again after the person has opted in is an old one.
    """
    if not (isinstance(given, FactSeen) and isinstance(given.fact, OptOutHeard) and folding.events):
        return
    if folding.callee.suppressed is not None or given.id in folding.callee.stops_seen:
        return
    stop = Suppress(id=given.id, at=given.at, scope="all", reason=OPTED_OUT)
    folding.record(None, stopping.suppressed(folding.callee, stop))
    for call_id, call in list(folding.callee.calls.items()):
        talks = call_id == given.call_id and call.phase is Phase.ANSWERED and not is_late(call, given.attempt)
        if not talks:
            folding.record(call_id, apply(folding.callee, call, stop, folding.now))


def _lift(folding: _Folding, given: Lift) -> None:
    if given.id not in folding.callee.stops_seen:
        folding.record(None, stopping.lifted(folding.callee, given))


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
    """Copy a fact of a call that ended, for a day; an opt-out for as long as the call is remembered (design §6)."""
    closed = callee.closed.get(split_call_id(given.call_id)[1])
    if closed is None or has_fact(closed.facts, given.fact):
        return []
    if closed.ended_at + FACTS_COPIED_FOR < now and not isinstance(given.fact, OptOutHeard):
        return []
    return [Copied(fact=given.fact, source=given.source, id=given.id)]


_SPECIAL: Final[dict[type[Any], Callable[[_Folding, Any], str | None]]] = {
    PlaceCall: _place,
    Suppress: _suppress,
    Lift: _lift,
    DeadlinePassed: _each_call,
}
"""Inputs that are not about one open call; what they return is the rule they were rejected by."""
