"""The gate: one table, one reason a row, asked synchronously with the send."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dialer.gate import GATE, Verdict, View, judge, wall_age_s
from schemas.outcomes import Withdrawal
from tests import histories as h
from tests.spec import given

DIALING = given(*h.dialing()).call()
OPEN = View(
    attempt=1,
    call=DIALING,
    owned=True,
    membership_age_s=0.5,
    membership_age_max_s=7.0,
    dial_age_s=0.1,
    dial_age_wall_s=0.1,
    stops_age_s=0.2,
    control_age_s=0.2,
    stopped=False,
    suppressed=False,
    readiness_age_s=1.0,
    skew_s=0.0,
    draining=False,
    spend=lambda: True,
)
REFUSED, STALE = Verdict.REFUSED, Verdict.STALE
ROWS: list[tuple[dict[str, Any], Verdict, Withdrawal]] = [
    ({"draining": True}, REFUSED, Withdrawal.SHUTTING_DOWN),
    ({"owned": False}, REFUSED, Withdrawal.NOT_OWNED),
    ({"membership_age_s": 7.01}, STALE, Withdrawal.NOT_OWNED),
    ({"dial_age_s": 5.01}, REFUSED, Withdrawal.STALE_DIAL),
    ({"dial_age_wall_s": 5.01}, REFUSED, Withdrawal.STALE_DIAL),
    ({"call": replace(DIALING, cancelled=True)}, REFUSED, Withdrawal.CANCELLED),
    ({"suppressed": True}, REFUSED, Withdrawal.SUPPRESSED),
    ({"call": None}, REFUSED, Withdrawal.SUPERSEDED),
    ({"attempt": 2}, REFUSED, Withdrawal.SUPERSEDED),
    ({"call": given(*h.ringing()).call()}, REFUSED, Withdrawal.SUPERSEDED),
    ({"stopped": True}, REFUSED, Withdrawal.STOPPED),
    ({"stops_age_s": 1.01}, STALE, Withdrawal.STOPS_NOT_DRAINED),
    ({"control_age_s": 1.01}, STALE, Withdrawal.CONTROL_STALE),
    ({"readiness_age_s": 5.01}, STALE, Withdrawal.AGENT_NOT_READY),
    ({"skew_s": 2.01}, REFUSED, Withdrawal.CLOCK),
    ({"spend": lambda: False}, STALE, Withdrawal.NO_TOKEN),
]


def test_the_gate_opens_when_every_row_holds() -> None:
    """And only then."""
    assert judge(OPEN) == (Verdict.OPEN, None)


@pytest.mark.parametrize(("change", "verdict", "reason"), ROWS)
def test_each_row_speaks_for_itself(change: dict[str, Any], verdict: Verdict, reason: Withdrawal) -> None:
    """One thing is not so: the verdict and the reason are that row's."""
    assert judge(replace(OPEN, **change)) == (verdict, reason)


def test_every_row_of_the_gate_is_tried_above() -> None:
    """A row without a test is a wish; each says why it stands there."""
    assert {row.reason for row in GATE} == {reason for _, _, reason in ROWS}
    assert len(GATE) == len({(verdict, reason) for _, verdict, reason in ROWS})
    assert all(row.why for row in GATE)


def test_a_refusal_outranks_what_is_merely_stale() -> None:
    """A cancelled call is not waited for."""
    view = replace(OPEN, stops_age_s=9, control_age_s=9, readiness_age_s=9, call=replace(DIALING, cancelled=True))
    assert judge(view) == (REFUSED, Withdrawal.CANCELLED)


def test_the_token_is_spent_last_and_only_when_all_else_holds() -> None:
    """A token that is spent without a dial would slow the trunk for nothing."""
    spent: list[bool] = []

    def spend() -> bool:
        spent.append(True)
        return True

    for change, _, reason in ROWS:
        if reason is not Withdrawal.NO_TOKEN:
            judge(replace(OPEN, **change, spend=spend))
    assert not spent
    assert judge(replace(OPEN, spend=spend)) == (Verdict.OPEN, None)
    assert len(spent) == 1


def test_an_age_by_the_wall_counts_in_both_directions() -> None:
    """A dial of the future is as strange as an old one; an unknown time is very far away."""
    assert wall_age_s(h.at(10), h.at(4)) == wall_age_s(h.at(4), h.at(10)) == timedelta(seconds=6).total_seconds()
    assert wall_age_s(h.at(0), None) > 1e6
