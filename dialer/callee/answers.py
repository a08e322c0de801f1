"""Reads the outcome of the one dial request of an attempt: what is recorded of a dial that failed, or was never sent."""

from __future__ import annotations

from typing import Final

from dialer.callee.sip import classify
from schemas.events import DialFailed, DialWithdrawn
from schemas.observations import DialOutcome
from schemas.outcomes import Attribution, Outcome, Withdrawal

_WITHDRAWALS: Final = frozenset(Withdrawal)


def dial_withdrawn(outcome: DialOutcome) -> DialWithdrawn:
    """Read the gate's word; one of a later version still says that nothing was sent."""
    known = outcome.withheld in _WITHDRAWALS
    return DialWithdrawn(attempt=outcome.attempt, reason=Withdrawal(outcome.withheld) if known else Withdrawal.NOT_SENT)


def dial_failed(outcome: DialOutcome) -> DialFailed:
    """Read what the carrier, or LiveKit, said."""
    row = classify(outcome.sip_status, outcome.code, outcome.phrase)
    return DialFailed(
        attempt=outcome.attempt,
        sip_status=outcome.sip_status,
        outcome=row.outcome,
        attribution=row.attribution,
        rule=row.rule,
        sent=row.sent,
        retry=row.retry,
        code=outcome.code,
        phrase=outcome.phrase,
    )


def seen_unanswered(attempt: int) -> DialFailed:
    """Read what the agent saw, where the dial's own answer reached nobody: it rang, and stopped, and nobody took it."""
    return DialFailed(
        attempt=attempt,
        sip_status=None,
        outcome=Outcome.NO_ANSWER,
        attribution=Attribution.CALLEE,
        rule="seen_unanswered",
        sent=True,
        retry="no_answer",
    )
