"""From the INVITE to the judgement: the dial's outcome, the leg, the agent lost, the fence."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from dialer.callee.answers import dial_failed, dial_withdrawn
from dialer.callee.evolve import Copied
from dialer.callee.inputs import AgentSilent, DeadlinePassed, Dialled, Fenced, LegGone, LegSeen
from dialer.callee.judge import gives_up_at, judge
from dialer.callee.late import outcome_heard
from dialer.callee.policy import DIAL_MARGIN, RING_MARGIN, SETTLE_GRACE, TALK_MARGIN
from dialer.callee.state import Attempt, Call, Callee, Phase
from dialer.callee.witnessed import ANSWERED
from schemas.events import AgentLost, CallAnswered, CalleeRinging, Decision, FenceConfirmed, FenceStarted
from schemas.outcomes import FenceReason

Decisions = list[Decision | Copied]


def _number(call: Call) -> int:
    assert call.attempt is not None
    return call.attempt.number


def dialled(callee: Callee, call: Call, given: Dialled, now: datetime) -> Decisions:
    """Take the outcome of the one dial request."""
    attempt = _number(call)
    if given.attempt != attempt:
        return outcome_heard(callee, call, given, now)
    match given.outcome.result:
        case "answered":
            return [CallAnswered(attempt=attempt)]
        case "failed":
            return [dial_failed(given.outcome), FenceStarted(attempt=attempt, reason=FenceReason.DIAL_FAILED)]
        case "withheld":
            return [dial_withdrawn(given.outcome), FenceStarted(attempt=attempt, reason=FenceReason.DIAL_WITHDRAWN)]
        case "unclear":
            return []  # it says nothing of the leg, which may ring and talk: agent, LiveKit and deadline tell
    assert_never(given.outcome.result)


def settled(callee: Callee, call: Call, given: Dialled, now: datetime) -> Decisions:
    """Take an outcome that comes while the room is being taken down."""
    assert call.attempt is not None
    if given.attempt != call.attempt.number:
        return outcome_heard(callee, call, given, now)
    if call.attempt.settled or call.attempt.dialed_at is None:
        return []
    match given.outcome.result:
        case "answered":
            return [CallAnswered(attempt=given.attempt)]
        case "failed":
            found = dial_failed(given.outcome)
            return [] if found.outcome is call.attempt.failed else [found]
        case "withheld":
            return [dial_withdrawn(given.outcome)]
        case "unclear":
            return []
    assert_never(given.outcome.result)


def leg_seen(callee: Callee, call: Call, given: LegSeen, now: datetime) -> Decisions:
    """Take LiveKit's word on a leg whose dial request answers to nobody here."""
    del callee, now
    attempt = _number(call)
    if given.attempt != attempt:
        return []
    if given.status in ANSWERED:
        return [CallAnswered(attempt=attempt)]
    return [CalleeRinging(attempt=attempt)] if given.status == "ringing" and call.phase is Phase.DIALING else []


def leg_seen_late(callee: Callee, call: Call, given: LegSeen, now: datetime) -> Decisions:
    """Take an answer that LiveKit tells of while the room is being taken down."""
    del callee, now
    attempt = call.attempt
    assert attempt is not None
    if given.attempt != attempt.number or given.status not in ANSWERED or not may_have_been_answered(attempt):
        return []
    return [CallAnswered(attempt=given.attempt)]


def may_have_been_answered(attempt: Attempt) -> bool:
    """Tell whether an answer that is heard of now would be news of this attempt, and could be true."""
    return attempt.dialed_at is not None and attempt.answered_at is None and not attempt.withdrawn


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
    attempt, ring = call.attempt, timedelta(seconds=call.rules.ring_timeout_s)
    assert attempt.dialed_at is not None
    due = attempt.dialed_at + ring + DIAL_MARGIN
    return due if attempt.ringing_at is None else max(due, attempt.ringing_at + ring + RING_MARGIN)


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
