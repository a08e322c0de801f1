"""State as a fold of the log: `evolve(callee, recorded)`; total over everything that may stand on `dialer.events`.

Nothing is decided here. What an event of a later version means is not known here and changes nothing but the sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from sys import intern
from typing import Any, Final, NamedTuple

from dialer.callee.copying import replace
from dialer.callee.policy import FACTS_COPIED_FOR
from dialer.callee.state import STOPS_SEEN_MAX, Attempt, Call, Callee, Closed, Phase
from dialer.callee.witnessed import with_fact, witnessed
from schemas import events as e
from schemas import facts as f
from schemas.outcomes import FenceReason, Outcome
from schemas.values import split_call_id


class Copied(NamedTuple):
    """An agent's fact as it stands on the log: with its own source and id."""

    fact: f.FactBody
    source: str
    id: str


class Recorded(NamedTuple):
    """One record of the log: the callee's sequence, the time, the call it is about, and what it says."""

    sequence: int
    at: datetime
    call_id: str | None
    body: e.Decision | Copied
    cause: str


def evolve(callee: Callee, recorded: Recorded) -> Callee:
    """Fold one record into the state."""
    sequence, at, call_id, body, _ = recorded
    if call_id is None:
        return _of_callee(callee, recorded)
    kind = type(body)
    call = callee.calls.get(call_id)
    if call is None:
        return _new(callee, call_id, recorded) if kind is e.CallRequested else _of_no_open_call(callee, recorded)
    if kind is e.CallEnded or kind is e.CallRefused:
        return _closed(callee, call, recorded)
    rule = _RULES.get(kind)
    changed = call if rule is None else rule(call, body, at)
    calls = {call_id: changed} if len(callee.calls) == 1 else {**callee.calls, call_id: changed}
    if isinstance(body, e.CallCancelled):
        stops = _seen(callee.stops_seen, body.stop_id)
        return replace(callee, sequence=sequence, now=at, calls=calls, stops_seen=stops)
    return replace(callee, sequence=sequence, now=at, calls=calls)


def _new(callee: Callee, call_id: str, recorded: Recorded) -> Callee:
    """Fold the first event of a call."""
    body, at = recorded.body, recorded.at
    assert isinstance(body, e.CallRequested)
    calls = {**callee.calls, call_id: _requested(call_id, body, at)}
    cancels = callee.cancels
    request = split_call_id(call_id)[1]
    if request in cancels:
        cancels = {k: v for k, v in cancels.items() if k != request}
    closed = callee.closed
    if closed and any(c.until <= at for c in closed.values()):
        closed = {k: v for k, v in closed.items() if v.until > at}
    return replace(callee, sequence=recorded.sequence, now=at, calls=calls, cancels=cancels, closed=closed)


def _of_callee(callee: Callee, recorded: Recorded) -> Callee:
    body = recorded.body
    base = replace(callee, sequence=recorded.sequence, now=recorded.at)
    if isinstance(body, e.CalleeSuppressed):
        calls = {k: replace(v, suppressed=True) for k, v in base.calls.items()}
        return replace(base, calls=calls, suppressed=body.reason, stops_seen=_seen(base.stops_seen, body.stop_id))
    if isinstance(body, e.SuppressionLifted):
        return replace(base, suppressed=None, stops_seen=_seen(base.stops_seen, body.stop_id))
    return base


def _of_no_open_call(callee: Callee, recorded: Recorded) -> Callee:
    """Fold what is about a call that is closed, or has not come yet."""
    body, at = recorded.body, recorded.at
    base = replace(callee, sequence=recorded.sequence, now=at)
    assert recorded.call_id is not None
    request = split_call_id(recorded.call_id)[1]
    if isinstance(body, e.CallCancelled):
        cancels = {k: v for k, v in callee.cancels.items() if v > at} | {request: body.remember_until}
        return replace(base, cancels=cancels, stops_seen=_seen(base.stops_seen, body.stop_id))
    closed = callee.closed.get(request)
    if isinstance(body, Copied) and closed is not None:
        kept = replace(closed, facts=with_fact(closed.facts, body.fact))
        return replace(base, closed={**callee.closed, request: kept})
    return base


def _closed(callee: Callee, call: Call, recorded: Recorded) -> Callee:
    at = recorded.at
    calls = {k: v for k, v in callee.calls.items() if k != call.call_id}
    kept = {k: _without_old_facts(v, at) for k, v in callee.closed.items() if v.until > at}
    if call.remember_until > at:
        kept[split_call_id(call.call_id)[1]] = Closed(
            body_hash=call.body_hash, until=call.remember_until, ended_at=at, facts=call.facts
        )
    return replace(callee, sequence=recorded.sequence, now=at, calls=calls, closed=kept)


def _without_old_facts(closed: Closed, at: datetime) -> Closed:
    if closed.facts and closed.ended_at + FACTS_COPIED_FOR < at:
        return replace(closed, facts={})
    return closed


def _seen(stops: tuple[str, ...], stop_id: str) -> tuple[str, ...]:
    return (*stops, stop_id)[-STOPS_SEEN_MAX:]


def _requested(call_id: str, body: e.CallRequested, at: datetime) -> Call:
    return Call(
        call_id=call_id,
        campaign_id=intern(body.campaign_id),
        to=body.to,
        variables=body.variables,
        body_hash=body.body_hash,
        region=intern(body.region),
        zones=body.zones,
        priority=body.priority,
        not_after=body.not_after,
        remember_until=body.remember_until,
        requested_at=at,
        phase=Phase.REQUESTED,
        due=body.not_before or at,
        consent_id=body.consent.id if body.consent else None,
        consent_kind=intern(body.consent.kind) if body.consent else None,
    )


def _prepared(call: Call, body: e.CallPrepared, at: datetime) -> Call:
    del at
    return replace(
        call,
        phase=Phase.WAITING,
        campaign_hash=body.campaign_hash,
        rules=body.rules,
        message=body.message,
        words=body.words,
        variables=None,
    )


def _opened(call: Call, body: e.AttemptOpened, at: datetime) -> Call:
    return replace(
        call,
        phase=Phase.OPENING,
        openings=body.attempt,
        openings_spent=call.openings_spent + 1,
        attempt=Attempt(number=body.attempt, opened_at=at),
    )


def _of(call: Call) -> Attempt:
    assert call.attempt is not None, "an event of an attempt follows its opening"
    return call.attempt


def _attempt(call: Call, phase: Phase | None = None, **changes: Any) -> Call:
    return replace(call, phase=phase or call.phase, attempt=replace(_of(call), **changes))


def _room_created(call: Call, body: e.RoomCreated, at: datetime) -> Call:
    del body, at
    if call.phase is not Phase.OPENING:
        return _attempt(call, room_stands=True)
    return _attempt(call, Phase.READY if _of(call).job_id else Phase.GATHERING, room_stands=True)


def _agent_joined(call: Call, body: e.AgentJoined, at: datetime) -> Call:
    phase = Phase.READY if call.phase is Phase.GATHERING else None
    return _attempt(call, phase, job_id=body.job_id, ready_at=at)


def _dial_started(call: Call, body: e.DialStarted, at: datetime) -> Call:
    del body
    return replace(
        _attempt(call, Phase.DIALING, dialed_at=at), dials=call.dials + 1, dialed=(*call.dialed, _of(call).number)
    )


def _is_late(call: Call, attempt: int) -> bool:
    """Tell whether this is about an attempt that was judged before."""
    return call.attempt is None or call.attempt.number != attempt


def _without(attempts: tuple[int, ...], attempt: int) -> tuple[int, ...]:
    return tuple(n for n in attempts if n != attempt)


def _not_dialed(call: Call, attempt: int) -> Call:
    return replace(call, dials=call.dials - 1, dialed=_without(call.dialed, attempt))


def _dial_withdrawn(call: Call, body: e.DialWithdrawn, at: datetime) -> Call:
    del at
    call = replace(_not_dialed(call, body.attempt), openings_spent=call.openings_spent - 1)
    if _is_late(call, body.attempt):
        return replace(call, unknown=_without(call.unknown, body.attempt))
    return replace(_attempt(call, settled=True, withdrawn=True), withdrawals=call.withdrawals + 1)


def _dial_failed(call: Call, body: e.DialFailed, at: datetime) -> Call:
    del at
    if _is_late(call, body.attempt):
        changed = replace(call, unknown=_without(call.unknown, body.attempt))
    else:
        changed = _attempt(
            call,
            settled=body.outcome is not Outcome.UNKNOWN,
            failed=body.outcome,
            failed_by=body.attribution,
            failed_sent=body.sent,
            retry=body.retry,
        )
    return changed if body.sent else _not_dialed(changed, body.attempt)


def _answered(call: Call, body: e.CallAnswered, at: datetime) -> Call:
    if _is_late(call, body.attempt):
        return replace(call, answered_before=True, unknown=_without(call.unknown, body.attempt))
    phase = None if call.phase is Phase.FENCING else Phase.ANSWERED
    return _attempt(call, phase, answered_at=at, settled=True)


def _ringing(call: Call, body: e.CalleeRinging, at: datetime) -> Call:
    del body
    return _attempt(call, Phase.RINGING if call.phase is Phase.DIALING else None, ringing_at=at)


def _fencing(call: Call, body: e.FenceStarted, at: datetime) -> Call:
    changed = _attempt(call, Phase.FENCING, fencing_since=at, reason=body.reason)
    if body.reason is not FenceReason.TURN_OVERDUE:
        return changed
    return replace(changed, openings_spent=call.openings_spent - 1, withdrawals=call.withdrawals + 1)


def _fenced(call: Call, body: e.FenceConfirmed, at: datetime) -> Call:
    del body
    return _attempt(call, fenced_at=at)


def _retry(call: Call, body: e.RetryScheduled, at: datetime) -> Call:
    del at
    rang = body.outcome is not None
    withdrawals = 0 if rang else call.withdrawals
    return replace(call, phase=Phase.WAITING, due=body.not_before, attempt=None, withdrawals=withdrawals)


def _cancelled(call: Call, body: e.CallCancelled, at: datetime) -> Call:
    del body, at
    return replace(call, cancelled=True)


def _deferred(call: Call, body: e.CallDeferred, at: datetime) -> Call:
    del at
    return replace(call, due=max(call.due, body.not_before))


def _unknown(call: Call, body: e.DialUnknown, at: datetime) -> Call:
    del at
    return replace(_attempt(call, settled=True, failed=Outcome.UNKNOWN), unknown=(*call.unknown, body.attempt))


def _copied(call: Call, body: Copied, at: datetime) -> Call:
    del at
    return witnessed(call, body.fact)


_RULES: Final[dict[type[Any], Callable[[Call, Any, datetime], Call]]] = {
    Copied: _copied,
    e.CallPrepared: _prepared,
    e.CallDeferred: _deferred,
    e.AttemptOpened: _opened,
    e.RoomCreated: _room_created,
    e.AgentJoined: _agent_joined,
    e.DialStarted: _dial_started,
    e.DialWithdrawn: _dial_withdrawn,
    e.DialFailed: _dial_failed,
    e.DialUnknown: _unknown,
    e.CalleeRinging: _ringing,
    e.CallAnswered: _answered,
    e.FenceStarted: _fencing,
    e.FenceConfirmed: _fenced,
    e.RetryScheduled: _retry,
    e.CallCancelled: _cancelled,
}
