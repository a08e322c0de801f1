"""From the INVITE to the judgement: the dial's outcome, the leg, the agent lost, the fence."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, assert_never

from dialer.callee.evolve import Copied
from dialer.callee.inputs import AgentSilent, DeadlinePassed, Dialled, Fenced, LegGone
from dialer.callee.judge import gives_up_at, judge
from dialer.callee.policy import DIAL_MARGIN, SETTLE_GRACE, TALK_MARGIN
from dialer.callee.sip import classify
from dialer.callee.state import Call, Callee, Phase
from schemas.events import AgentLost, CallAnswered, Decision, DialFailed, DialWithdrawn, FenceConfirmed, FenceStarted
from schemas.observations import DialOutcome
from schemas.outcomes import FenceReason, Withdrawal

Decisions = list[Decision | Copied]
_WITHDRAWALS: Final = frozenset(Withdrawal)


def _number(call: Call) -> int:
    assert call.attempt is not None
    return call.attempt.number


def dialled(callee: Callee, call: Call, given: Dialled, now: datetime) -> Decisions:
    """Take the outcome of the one dial request."""
    del callee, now
    attempt = _number(call)
    if given.attempt != attempt:
        return []
    match given.outcome.result:
        case "answered":
            return [CallAnswered(attempt=attempt)]
        case "failed":
            return [_failed(attempt, given.outcome), FenceStarted(attempt=attempt, reason=FenceReason.DIAL_FAILED)]
        case "withheld":
            return [
                DialWithdrawn(attempt=attempt, reason=_withheld(given.outcome)),
                FenceStarted(attempt=attempt, reason=FenceReason.DIAL_WITHDRAWN),
            ]
        case "unclear":
            return [FenceStarted(attempt=attempt, reason=FenceReason.DIAL_UNCLEAR)]
    assert_never(given.outcome.result)


def settled(callee: Callee, call: Call, given: Dialled, now: datetime) -> Decisions:
    """Take an outcome that comes while the room is being taken down."""
    del callee, now
    assert call.attempt is not None
    if given.attempt != call.attempt.number or call.attempt.settled or call.attempt.dialed_at is None:
        return []
    match given.outcome.result:
        case "answered":
            return [CallAnswered(attempt=given.attempt)]
        case "failed":
            found = _failed(given.attempt, given.outcome)
            return [] if found.outcome is call.attempt.failed else [found]
        case "withheld":
            return [DialWithdrawn(attempt=given.attempt, reason=_withheld(given.outcome))]
        case "unclear":
            return []
    assert_never(given.outcome.result)


def _withheld(outcome: DialOutcome) -> Withdrawal:
    """Read the gate's word; one of a later version still says that nothing was sent."""
    return Withdrawal(outcome.withheld) if outcome.withheld in _WITHDRAWALS else Withdrawal.NOT_SENT


def _failed(attempt: int, outcome: DialOutcome) -> DialFailed:
    row = classify(outcome.sip_status, outcome.code, outcome.phrase)
    return DialFailed(
        attempt=attempt,
        sip_status=outcome.sip_status,
        outcome=row.outcome,
        attribution=row.attribution,
        rule=row.rule,
        sent=row.sent,
        retry=row.retry,
        code=outcome.code,
        phrase=outcome.phrase,
    )


def leg_gone(callee: Callee, call: Call, given: LegGone, now: datetime) -> Decisions:
    """Judge the attempt: the callee's leg, or the room, is not there any more."""
    del callee, now
    if given.attempt != _number(call):
        return []
    reason = FenceReason.DIAL_UNCLEAR if call.phase is Phase.DIALING else FenceReason.CALLEE_LEFT
    return [FenceStarted(attempt=given.attempt, reason=reason)]


def agent_lost(callee: Callee, call: Call, given: AgentSilent, now: datetime) -> Decisions:
    """Stop the ringing, or end the call: nobody is rung into silence (promise 4)."""
    del callee, now
    return lose_agent(call) if given.attempt == _number(call) else []


def lose_agent(call: Call) -> Decisions:
    """Say that the agent is lost, and hang up."""
    attempt = _number(call)
    return [
        AgentLost(attempt=attempt, answered=call.phase is Phase.ANSWERED),
        FenceStarted(attempt=attempt, reason=FenceReason.AGENT_LOST),
    ]


def fenced(callee: Callee, call: Call, given: Fenced, now: datetime) -> Decisions:
    """Note that nothing of this attempt can ring any more; judged when everything about it is in."""
    del callee, now
    assert call.attempt is not None
    if given.attempt != call.attempt.number or call.attempt.fenced_at is not None:
        return []
    return [FenceConfirmed(attempt=given.attempt)]


def phone_deadline(call: Call) -> datetime:
    """Return when a dial without outcome, or a talk without end, is taken down."""
    assert call.attempt is not None
    assert call.rules is not None
    if call.attempt.answered_at is not None:
        return call.attempt.answered_at + timedelta(seconds=call.rules.max_call_duration_s) + TALK_MARGIN
    assert call.attempt.dialed_at is not None
    return call.attempt.dialed_at + timedelta(seconds=call.rules.ring_timeout_s) + DIAL_MARGIN


def too_long(callee: Callee, call: Call, given: DeadlinePassed, now: datetime) -> Decisions:
    """Take the room down: the dial's outcome, or the talk's end, is overdue."""
    del callee, given
    if now < phone_deadline(call):
        return []
    reason = FenceReason.CALL_TOO_LONG if call.phase is Phase.ANSWERED else FenceReason.DIAL_UNCLEAR
    return [FenceStarted(attempt=_number(call), reason=reason)]


def fence_deadline(call: Call) -> datetime:
    """Return when the attempt is judged whatever is still missing."""
    assert call.attempt is not None
    if call.attempt.fenced_at is not None:
        return call.attempt.fenced_at + SETTLE_GRACE
    return gives_up_at(call)


def fence_too_long(callee: Callee, call: Call, given: DeadlinePassed, now: datetime) -> Decisions:
    """Judge an attempt whose fence cannot be confirmed, with an alarm: no leg outlives this."""
    del callee, given
    assert call.attempt is not None
    if call.attempt.fenced_at is None and now >= gives_up_at(call):
        return list(judge(call, now, alarm=True))
    return []
