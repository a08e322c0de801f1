"""What an attempt came to, once it is certain that nothing of it can ring any more.

`judge(call, now)` is asked after the fence; it answers with the events that end the attempt: a retry or the call's end.
Order of its questions: was it answered, was it stopped, was it never sent, did it fail, is it unknown.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from dialer.callee.answers import seen_unanswered
from dialer.callee.copying import replace
from dialer.callee.policy import (
    FENCE_MIN,
    OPENINGS_MAX,
    SETTLE_GRACE,
    UNDIALED_FENCE_MAX,
    backoff,
    longest_leg,
)
from dialer.callee.state import Attempt, Call
from schemas.events import CallEnded, Decision, DialUnknown, DialWithdrawn, Durations, RetryScheduled, Rules
from schemas.outcomes import Attribution, FenceReason, Outcome, Withdrawal

_STOPPED: Final = {
    FenceReason.CANCELLED: Outcome.CANCELLED,
    FenceReason.SUPPRESSED: Outcome.SUPPRESSED,
    FenceReason.EXPIRED: Outcome.EXPIRED,
}


def is_ripe(call: Call, now: datetime) -> bool:
    """Tell whether everything that can still be learned of the attempt is in, or has been waited for long enough."""
    attempt = _attempt(call)
    if attempt.fenced_at is None:
        return False
    heard = attempt.agent_done or not attempt.job_id
    dial_known = attempt.settled or attempt.dialed_at is None
    return (heard and (dial_known or attempt.unseen)) or now >= attempt.fenced_at + SETTLE_GRACE


def gives_up_at(call: Call) -> datetime:
    """Return when a fence that cannot be confirmed ends all the same: no leg outlives this.

    After a long absence that moment may be past when the fence begins: it is tried all the same, and what was seen
    meanwhile is read, before the attempt is judged.
    """
    attempt, rules = _attempt(call), _rules(call)
    assert attempt.fencing_since is not None, "a fence that gives up has begun"
    if attempt.dialed_at is None:
        return attempt.fencing_since + UNDIALED_FENCE_MAX
    return max(longest_leg(attempt.dialed_at, rules), attempt.fencing_since + FENCE_MIN)


def judge(call: Call, now: datetime, *, alarm: bool = False) -> list[Decision]:
    """Return the events that end this attempt; the last one is a retry or the call's end."""
    attempt = _attempt(call)
    found: list[Decision] = []
    withdrawn, unknown = attempt.withdrawn, attempt.failed is Outcome.UNKNOWN
    if attempt.dialed_at is not None and not attempt.settled:
        if attempt.unseen and not alarm:
            found.append(DialWithdrawn(attempt=attempt.number, reason=Withdrawal.NOT_SENT))
            withdrawn = True
        elif attempt.unanswered and attempt.ringing_at is not None and attempt.failed is None and not alarm:
            failed = seen_unanswered(attempt.number)
            found.append(failed)
            judged = replace(attempt, failed=failed.outcome, failed_by=failed.attribution, retry=failed.retry)
            call = replace(call, attempt=judged)
        else:
            found.append(DialUnknown(attempt=attempt.number, alarm=alarm))
            unknown = True
    found.append(_verdict(call, now, withdrawn=withdrawn, unknown=unknown))
    return found


def _verdict(call: Call, now: datetime, *, withdrawn: bool, unknown: bool) -> Decision:
    attempt, rules = _attempt(call), _rules(call)
    reason = attempt.reason
    assert reason is not None, "only a fenced attempt is judged"
    if attempt.answered_at is not None:
        return _end(call, now, *_after_an_answer(call))
    if call.answered_before:
        return _end(call, now, Outcome.UNKNOWN, Attribution.UNKNOWN)
    if reason in _STOPPED:
        return _end(call, now, _STOPPED[reason], Attribution.US)
    if call.cancelled:
        return _end(call, now, Outcome.CANCELLED, Attribution.US)
    if call.suppressed:
        return _end(call, now, Outcome.SUPPRESSED, Attribution.US)
    if withdrawn:
        return _again(call, now, backoff(call.withdrawals + (0 if attempt.withdrawn else 1)))
    if reason is FenceReason.TURN_OVERDUE:
        return _again(call, now, backoff(call.withdrawals))
    if unknown:
        return _after_unknown(call, now)
    final = attempt.failed is not None and not attempt.retry
    if reason is FenceReason.AGENT_LOST and attempt.dialed_at is not None and not final:
        return _redial(call, now, Outcome.AGENT_LOST, Attribution.US, rules.agent_lost_s)
    if attempt.failed is not None:
        by = attempt.failed_by or Attribution.UNKNOWN
        if not attempt.failed_sent:
            return _reopen(call, now, attempt.failed, by) if attempt.retry else _end(call, now, attempt.failed, by)
        delay = {"busy": rules.busy_s, "no_answer": rules.no_answer_s, "trunk_failed": rules.trunk_failed_s}
        return _redial(call, now, attempt.failed, by, delay.get(attempt.retry))
    return _reopen(call, now, Outcome.AGENT_UNAVAILABLE, Attribution.US)


def _after_an_answer(call: Call) -> tuple[Outcome, Attribution]:
    attempt = _attempt(call)
    if attempt.came_to is not None:
        return attempt.came_to, Attribution.US if attempt.came_to is Outcome.MACHINE_HUNG_UP else Attribution.CALLEE
    if attempt.delivered:
        return Outcome.DELIVERED, Attribution.CALLEE
    if attempt.reason in _STOPPED:
        return _STOPPED[attempt.reason], Attribution.US
    if call.cancelled:
        return Outcome.CANCELLED, Attribution.US
    # A hint may tell of the end that a failed agent made before the agent does: the callee's own is told by the agent.
    if attempt.hung_up or (attempt.reason is FenceReason.CALLEE_LEFT and not attempt.agent_failed):
        return Outcome.HUNG_UP_EARLY, Attribution.US if attempt.agent_failed else Attribution.CALLEE
    return Outcome.AGENT_LOST, Attribution.US


def _after_unknown(call: Call, now: datetime) -> Decision:
    attempt, rules = _attempt(call), _rules(call)
    if rules.unknown_after_s is None or call.dials >= rules.attempts_max:
        return _end(call, now, Outcome.UNKNOWN, Attribution.UNKNOWN)
    due = now + timedelta(seconds=rules.unknown_after_s)
    if attempt.dialed_at is not None:
        due = max(due, longest_leg(attempt.dialed_at, rules))
    return _scheduled(call, now, due, Outcome.UNKNOWN, Attribution.UNKNOWN)


def _redial(call: Call, now: datetime, outcome: Outcome, by: Attribution, delay_s: int | None) -> Decision:
    if delay_s is None or call.dials >= _rules(call).attempts_max:
        return _end(call, now, outcome, by)
    return _scheduled(call, now, now + timedelta(seconds=delay_s), outcome, by)


def _reopen(call: Call, now: datetime, outcome: Outcome, by: Attribution) -> Decision:
    if call.openings_spent >= OPENINGS_MAX:
        return _end(call, now, outcome, by)
    return _again(call, now, backoff(call.openings_spent))


def _again(call: Call, now: datetime, delay: timedelta) -> Decision:
    """Open again, nobody having been rung: what comes too late for that has expired."""
    return _scheduled(call, now, now + delay, None, Attribution.US)


def _scheduled(call: Call, now: datetime, due: datetime, outcome: Outcome | None, by: Attribution) -> Decision:
    """Return the retry, or the call's end where that would come too late."""
    if due >= call.not_after:
        return _end(call, now, outcome or Outcome.EXPIRED, by)
    return RetryScheduled(attempt=_attempt(call).number, not_before=due, outcome=outcome)


def _end(call: Call, now: datetime, outcome: Outcome, by: Attribution) -> CallEnded:
    return CallEnded(attempt=_attempt(call).number, outcome=outcome, attribution=by, durations=durations(call, now))


def durations(call: Call, now: datetime) -> Durations:
    """Return how long the call waited, rang and was talked on, as far as its last attempt got."""
    attempt = call.attempt
    if attempt is None or attempt.dialed_at is None:
        return Durations(waited_s=_seconds(call.requested_at, now))
    ended = attempt.fencing_since or now
    answered = attempt.answered_at
    return Durations(
        waited_s=_seconds(call.requested_at, attempt.dialed_at),
        rang_s=_seconds(attempt.dialed_at, min(answered, ended) if answered else ended),
        talked_s=_seconds(answered, max(answered, ended)) if answered else None,
    )


def _seconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds(), 3)


def _attempt(call: Call) -> Attempt:
    assert call.attempt is not None, "an attempt is judged while it is there"
    return call.attempt


def _rules(call: Call) -> Rules:
    assert call.rules is not None, "an attempt is opened once the rules are known"
    return call.rules
