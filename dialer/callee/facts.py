"""What the agent's facts mean: copied to the log once, and in some phases more than that.

The agent is the witness inside the room; it never decides the call's fate.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from dialer.callee.dialing import lose_agent, may_have_been_answered
from dialer.callee.evolve import Copied
from dialer.callee.inputs import FactSeen
from dialer.callee.late import ANSWERED, fact_heard, is_late
from dialer.callee.opening import agent_unavailable
from dialer.callee.state import Call, Callee, Phase
from dialer.callee.witnessed import has_fact
from schemas import facts as f
from schemas.events import AgentJoined, CallAnswered, CalleeRinging, Decision, FenceStarted
from schemas.outcomes import FenceReason

Decisions = list[Decision | Copied]


def fact_seen(callee: Callee, call: Call, given: FactSeen, now: datetime) -> Decisions:
    """Copy a fact that is not on the log yet, and draw what follows from it in this phase."""
    del callee
    fact = given.fact
    if has_fact(call.facts, fact) or fact.attempt > call.openings:
        return []
    copied = Copied(fact=fact, source=given.source, id=given.id)
    if is_late(call, fact.attempt):
        return [copied, *fact_heard(call, fact, now)]
    reaction = _REACTIONS.get((call.phase, type(fact)))
    return [copied, *(reaction(call, fact) if reaction else ())]


def _joined(call: Call, fact: f.AgentReady) -> Decisions:
    assert call.attempt is not None
    return [] if call.attempt.job_id else [AgentJoined(attempt=fact.attempt, job_id=fact.job_id)]


def _no_agent(call: Call, fact: f.Fact) -> Decisions:
    del call
    return agent_unavailable(fact.attempt)


def _lost(call: Call, fact: f.Fact) -> Decisions:
    del fact
    return lose_agent(call)


def _status(call: Call, fact: f.CalleeStatus) -> Decisions:
    if fact.status == "ringing" and call.phase is Phase.DIALING:
        return [CalleeRinging(attempt=fact.attempt)]
    if fact.status in ANSWERED:
        return [CallAnswered(attempt=fact.attempt)]
    return []


def _answered_late(call: Call, fact: f.CalleeStatus | f.NotificationDelivered | f.VoicemailLeft) -> Decisions:
    """Take an answer that is heard of while the room is being taken down: such an attempt is never followed by another."""
    attempt = call.attempt
    assert attempt is not None
    if isinstance(fact, f.CalleeStatus) and fact.status not in ANSWERED:
        return []
    return [CallAnswered(attempt=fact.attempt)] if may_have_been_answered(attempt) else []


def _left(call: Call, fact: f.CalleeLeft) -> Decisions:
    del call
    return [FenceStarted(attempt=fact.attempt, reason=FenceReason.CALLEE_LEFT)]


def _ended(call: Call, fact: f.ConversationEnded) -> Decisions:
    if call.phase is Phase.ANSWERED:
        return [FenceStarted(attempt=fact.attempt, reason=FenceReason.CONVERSATION_ENDED)]
    reason = FenceReason.CALLEE_LEFT if fact.callee_seen else FenceReason.DIAL_UNCLEAR
    return [FenceStarted(attempt=fact.attempt, reason=reason)]


P = Phase
_REACTIONS: Final[dict[tuple[Phase, type[Any]], Callable[[Call, Any], Decisions]]] = {
    (P.OPENING, f.AgentReady): _joined,
    (P.GATHERING, f.AgentReady): _joined,
    (P.OPENING, f.AgentCrashed): _no_agent,
    (P.OPENING, f.ConversationEnded): _no_agent,
    (P.GATHERING, f.AgentCrashed): _no_agent,
    (P.GATHERING, f.ConversationEnded): _no_agent,
    (P.READY, f.AgentCrashed): _no_agent,
    (P.READY, f.ConversationEnded): _no_agent,
    (P.DIALING, f.AgentCrashed): _lost,
    (P.DIALING, f.CalleeStatus): _status,
    (P.DIALING, f.CalleeLeft): _left,
    (P.DIALING, f.ConversationEnded): _ended,
    (P.RINGING, f.AgentCrashed): _lost,
    (P.RINGING, f.CalleeStatus): _status,
    (P.RINGING, f.CalleeLeft): _left,
    (P.RINGING, f.ConversationEnded): _ended,
    (P.ANSWERED, f.AgentCrashed): _lost,
    (P.ANSWERED, f.CalleeLeft): _left,
    (P.ANSWERED, f.ConversationEnded): _ended,
    (P.FENCING, f.CalleeStatus): _answered_late,
    (P.FENCING, f.NotificationDelivered): _answered_late,
    (P.FENCING, f.VoicemailLeft): _answered_late,
}
"""Pairs that are not here mean nothing beyond the copy; `evolve` keeps what a judgement needs of them."""
