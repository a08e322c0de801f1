"""The gate's figures: what is exactly as old as it may be still counts, what is a moment older does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dialer.gate import Verdict, judge, wall_age_s
from schemas.outcomes import Withdrawal
from tests import histories as h
from tests.shell.test_gate import OPEN

LIMITS = [
    ("dial_age_s", 5.0, Withdrawal.STALE_DIAL),
    ("dial_age_wall_s", 5.0, Withdrawal.STALE_DIAL),
    ("stops_age_s", 1.0, Withdrawal.STOPS_NOT_DRAINED),
    ("control_age_s", 1.0, Withdrawal.CONTROL_STALE),
    ("readiness_age_s", 5.0, Withdrawal.AGENT_NOT_READY),
    ("skew_s", 2.0, Withdrawal.CLOCK),
    ("membership_age_s", 7.0, Withdrawal.NOT_OWNED),
]
"""What is looked at, how many seconds it may be old (design §5; membership: what the view says), what it is else."""


@pytest.mark.parametrize(("name", "limit_s", "reason"), LIMITS)
def test_an_age_at_its_limit_holds_and_a_moment_more_does_not(name: str, limit_s: float, reason: Withdrawal) -> None:
    """The figures of the design, to the moment: none may drift unseen."""
    at_limit = replace(OPEN, membership_age_max_s=7.0, **{name: limit_s})
    assert judge(at_limit) == (Verdict.OPEN, None)
    assert judge(replace(at_limit, **{name: limit_s + 0.001}))[1] is reason


def test_a_call_that_is_closed_or_was_never_known_is_refused() -> None:
    """A process that lost the partition has no state to dial by."""
    assert judge(replace(OPEN, call=None)) == (Verdict.REFUSED, Withdrawal.SUPERSEDED)


def test_an_unknown_age_is_older_than_any_limit() -> None:
    """Nothing known is a no, never a yes."""
    age_s = wall_age_s(h.at(0), None)
    assert all(age_s > limit_s for _, limit_s, _ in LIMITS)
