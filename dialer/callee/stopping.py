"""Cancel, suppress, expire: a stop is a stop, in every phase and in any order (promise 6)."""

from __future__ import annotations

from datetime import datetime

from dialer.callee.evolve import Copied
from dialer.callee.inputs import Cancel, DeadlinePassed, Lift, Suppress
from dialer.callee.judge import durations
from dialer.callee.state import Call, Callee
from schemas.events import (
    CallCancelled,
    CalleeSuppressed,
    CallEnded,
    CallRefused,
    Decision,
    FenceStarted,
    SuppressionLifted,
)
from schemas.outcomes import Attribution, FenceReason, Outcome, Refusal

Decisions = list[Decision | Copied]


def _cancelled(given: Cancel) -> CallCancelled:
    return CallCancelled(stop_id=given.id, reason=given.reason, remember_until=given.remember_until)


def end_waiting(call: Call, refusal: Refusal, outcome: Outcome, now: datetime) -> Decision:
    """End a call that waits: refused before its first room was asked for, ended after."""
    if call.openings == 0:
        return CallRefused(reason=refusal)
    return CallEnded(attempt=call.openings, outcome=outcome, attribution=Attribution.US, durations=durations(call, now))


def cancelled_early(callee: Callee, given: Cancel, request: str) -> Decisions:
    """Remember a cancel that comes before its call; one that comes after its end changes nothing."""
    if request in callee.closed or request in callee.cancels:
        return []
    return [_cancelled(given)]


def cancelled_waiting(callee: Callee, call: Call, given: Cancel, now: datetime) -> Decisions:
    """Cancel a call that has no room."""
    del callee
    return [_cancelled(given), end_waiting(call, Refusal.CANCELLED, Outcome.CANCELLED, now)]


def cancelled_active(callee: Callee, call: Call, given: Cancel, now: datetime) -> Decisions:
    """Hang up."""
    del callee, now
    assert call.attempt is not None
    return [_cancelled(given), FenceStarted(attempt=call.attempt.number, reason=FenceReason.CANCELLED)]


def cancelled_fencing(callee: Callee, call: Call, given: Cancel, now: datetime) -> Decisions:
    """Note the cancel: the attempt is being taken down, no further one follows."""
    del callee, now
    return [] if call.cancelled else [_cancelled(given)]


def suppressed(callee: Callee, given: Suppress) -> Decisions:
    """Suppress the callee; the calls' own rows say what becomes of each."""
    if callee.suppressed is not None:
        return []
    return [CalleeSuppressed(stop_id=given.id, scope=given.scope, reason=given.reason)]


def suppressed_waiting(callee: Callee, call: Call, given: Suppress, now: datetime) -> Decisions:
    """Refuse a call that has no room."""
    del callee, given
    return [end_waiting(call, Refusal.SUPPRESSED, Outcome.SUPPRESSED, now)]


def suppressed_active(callee: Callee, call: Call, given: Suppress, now: datetime) -> Decisions:
    """Hang up."""
    del callee, given, now
    assert call.attempt is not None
    return [FenceStarted(attempt=call.attempt.number, reason=FenceReason.SUPPRESSED)]


def lifted(callee: Callee, given: Lift) -> Decisions:
    """Lift a suppression that is in force."""
    if callee.suppressed is None:
        return []
    return [SuppressionLifted(stop_id=given.id, scope=given.scope, reason=given.reason)]


def expired_waiting(callee: Callee, call: Call, given: DeadlinePassed, now: datetime) -> Decisions:
    """End a waiting call whose time is over; one that has merely become due is asked for by `owed`."""
    del callee, given
    return [end_waiting(call, Refusal.EXPIRED, Outcome.EXPIRED, now)] if now >= call.not_after else []
