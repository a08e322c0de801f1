"""The ways that the phase table names: no history takes another, and those out of a fence are all taken."""

from __future__ import annotations

from collections import defaultdict

import pytest

from dialer.callee.state import Phase
from dialer.callee.step import step
from dialer.callee.table import CLOSED, TABLE, Acts
from tests import histories as h
from tests.callee.test_laws import VARIANTS
from tests.spec import given

WAITS_FOR_THE_DIAL = (*h.ringing(), h.left(7), h.last_word(7.5), h.fenced(9))
"""The agent has said all it knows; the dial's own answer is still out."""
TALKS_AFTER_AN_UNKNOWN = (*h.HISTORIES["ringing again after an unknown"][1], h.status(720, "active", 2))
"""The second attempt is answered; of the first nobody knows."""


@pytest.fixture(scope="module")
def taken() -> dict[tuple[Phase, type], set[str]]:
    """Where each input led from each phase, over every history and every variant of the input."""
    found: dict[tuple[Phase, type], set[str]] = defaultdict(set)
    for history in (*(told for _, told in h.HISTORIES.values()), WAITS_FOR_THE_DIAL, TALKS_AFTER_AN_UNKNOWN):
        before = given(*history).callee
        for one in VARIANTS:
            done = step(before, one)
            for call_id, call in before.calls.items():
                if any(e.call_id == call_id for e in done.events):
                    after = done.callee.calls.get(call_id)
                    found[call.phase, type(one)].add(CLOSED if after is None else after.phase)
    return found


def test_no_history_takes_a_way_that_its_row_does_not_name(taken: dict[tuple[Phase, type], set[str]]) -> None:
    """A row that means nothing leads nowhere; but what has ripened meanwhile is judged, whatever comes."""
    for pair, ways in taken.items():
        row = TABLE[pair]
        named = set(row.leads_to) if isinstance(row, Acts) else {Phase.WAITING, CLOSED}
        assert isinstance(row, Acts) or pair[0] is Phase.FENCING, pair
        assert ways <= named, pair


def test_every_way_out_of_a_fence_is_taken(taken: dict[tuple[Phase, type], set[str]]) -> None:
    """To go on waiting, to a retry, to the end: what the page draws there happens."""
    for pair, row in TABLE.items():
        if pair[0] is Phase.FENCING and isinstance(row, Acts):
            assert set(row.leads_to) - {pair[0]} <= taken[pair], pair  # to stay is no way out
