"""What is heard of an attempt after it was judged: it may replace `DialUnknown`, and it never reopens a call.

1. Only an attempt whose `DialUnknown` stands is spoken of again, once; answers alone are believed of any dial.
2. The retry that is committed stands, whatever is learned; a final failure or an answer ends a call that waits for it.
3. After the terminal event nothing is recorded: a call that ended as unknown stays unknown.

An outcome comes late from a process that was paused, or cut off from Kafka, while its dial was adopted by another one; an
agent's last word, from its worker's spool. Source: design §5 (dial), promises 1 and 2.
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from dialer.callee.answers import dial_failed, dial_withdrawn
from dialer.callee.evolve import Copied
from dialer.callee.inputs import Dialled
from dialer.callee.judge import durations
from dialer.callee.state import Call, Callee, Phase
from dialer.callee.witnessed import tells_of_an_answer
from schemas import facts as f
from schemas.events import CallAnswered, CallEnded, Decision, DialWithdrawn, FenceStarted
from schemas.outcomes import Attribution, FenceReason, Outcome, Withdrawal

Decisions = list[Decision | Copied]


def is_late(call: Call, attempt: int) -> bool:
    """Tell whether an attempt was judged before."""
    return call.attempt is None or call.attempt.number != attempt


def outcome_heard(callee: Callee, call: Call, given: Dialled, now: datetime) -> Decisions:
    """Take the outcome of an attempt that was judged as unknown."""
    del callee
    if given.attempt not in call.unknown or not is_late(call, given.attempt):
        return []
    match given.outcome.result:
        case "answered":
            return answer_heard(call, given.attempt, now)
        case "withheld":
            return [dial_withdrawn(given.outcome)]
        case "failed":
            failed = dial_failed(given.outcome)
            if failed.outcome is Outcome.UNKNOWN:
                return []
            if failed.retry or call.phase is not Phase.WAITING:
                return [failed]
            return [failed, _end(call, given.attempt, failed.outcome, failed.attribution, now)]
        case "unclear":
            return []
    assert_never(given.outcome.result)


def fact_heard(call: Call, fact: f.FactBody, now: datetime) -> Decisions:
    """Draw what follows from a fact of an attempt that was judged."""
    attempt = fact.attempt
    if attempt in call.dialed and tells_of_an_answer(fact):
        return answer_heard(call, attempt, now)
    if isinstance(fact, f.ConversationEnded) and attempt in call.unknown:
        unseen = fact.stayed is True and not fact.gap and not fact.callee_seen
        return [DialWithdrawn(attempt=attempt, reason=Withdrawal.NOT_SENT)] if unseen else []
    return []


def answer_heard(call: Call, attempt: int, now: datetime) -> Decisions:
    """Take an answer of an earlier attempt: there is no further attempt, a running one is ended."""
    if call.answered_before or call.phase is Phase.ANSWERED:
        return []
    answered = CallAnswered(attempt=attempt)
    if call.attempt is None:
        return [answered, _end(call, attempt, Outcome.UNKNOWN, Attribution.UNKNOWN, now)]
    if call.phase is Phase.FENCING:
        return [answered]
    return [answered, FenceStarted(attempt=call.attempt.number, reason=FenceReason.ANSWERED_BEFORE)]


def _end(call: Call, attempt: int, outcome: Outcome, by: Attribution, now: datetime) -> CallEnded:
    return CallEnded(attempt=attempt, outcome=outcome, attribution=by, durations=durations(call, now))
