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
from dialer.callee.late import fact_heard, is_late
from dialer.callee.opening import agent_unavailable
from dialer.callee.state import Call, Callee, Phase
from dialer.callee.witnessed import CAME_TO, has_fact, tells_of_an_answer
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
    assert call.attempt is not None, "a fact that is not late is of the attempt under way"
    is_news = may_have_been_answered(call.attempt) and tells_of_an_answer(fact)
    answered: Decisions = [CallAnswered(attempt=fact.attempt)] if is_news else []
    reaction = _REACTIONS.get((call.phase, type(fact)))
    return [copied, *answered, *(reaction(call, fact) if reaction else ())]


def _joined(call: Call, fact: f.AgentReady) -> Decisions:
    assert call.attempt is not None
    return [] if call.attempt.job_id else [AgentJoined(attempt=fact.attempt, job_id=fact.job_id)]


def _no_agent(call: Call, fact: f.Fact) -> Decisions:
    del call
    return agent_unavailable(fact.attempt)


def _lost(call: Call, fact: f.Fact) -> Decisions:
    del fact
    return lose_agent(call)


def _rings(call: Call, fact: f.CalleeStatus) -> Decisions:
    del call
    return [CalleeRinging(attempt=fact.attempt)] if fact.status == "ringing" else []


def _left(call: Call, fact: f.CalleeLeft) -> Decisions:
    del call
    return [FenceStarted(attempt=fact.attempt, reason=FenceReason.CALLEE_LEFT)]


def _ended(call: Call, fact: f.ConversationEnded) -> Decisions:
    if call.phase is Phase.ANSWERED or fact.reason in CAME_TO:
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
    (P.DIALING, f.CalleeStatus): _rings,
    (P.DIALING, f.CalleeLeft): _left,
    (P.DIALING, f.ConversationEnded): _ended,
    (P.RINGING, f.AgentCrashed): _lost,
    (P.RINGING, f.CalleeLeft): _left,
    (P.RINGING, f.ConversationEnded): _ended,
    (P.ANSWERED, f.AgentCrashed): _lost,
    (P.ANSWERED, f.CalleeLeft): _left,
    (P.ANSWERED, f.ConversationEnded): _ended,
}
"""Pairs that are not here mean nothing beyond the copy, and an answer where they prove one; `witnessed` keeps what a
judgement needs of them."""
