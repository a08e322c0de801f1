"""What the world is owed in every phase, by the owner that brought the call there and by one that takes it over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dialer.callee.owed import (
    Abandon,
    Adopt,
    AskSlot,
    AskTurn,
    Dial,
    Fence,
    LookUp,
    OpenRoom,
    WatchAgent,
    deadline,
    outstanding,
    owed,
)
from dialer.callee.state import Callee, Phase
from tests import histories as h
from tests.spec import given

OWED: dict[str, tuple[tuple[type, ...], tuple[type, ...]]] = {
    # history -> owed by its own owner, owed after a take-over
    "requested": ((LookUp,), (LookUp,)),
    "waiting": ((AskSlot,), (AskSlot,)),
    "waiting for not_before": ((), ()),
    "waiting after busy": ((), ()),
    "waiting after an unknown": ((), ()),
    "waiting behind another": ((OpenRoom,), (Abandon,)),
    "opening": ((OpenRoom,), (Abandon,)),
    "opening, agent first": ((OpenRoom,), (Abandon,)),
    "gathering": ((), ()),
    "ready": ((AskTurn, WatchAgent), (AskTurn, WatchAgent)),
    "dialing": ((Dial, WatchAgent), (Adopt, WatchAgent)),
    "ringing": ((WatchAgent,), (Adopt, WatchAgent)),
    "answered by the agent's word": ((WatchAgent,), (Adopt, WatchAgent)),
    "answered by the carrier's word": ((WatchAgent,), (Adopt, WatchAgent)),
    "fencing a room that failed": ((Fence,), (Fence,)),
    "fencing after delivery": ((Fence,), (Fence,)),
    "fencing after a failure": ((Fence,), (Fence,)),
    "fencing an unclear dial": ((Fence,), (Fence,)),
    "fencing an unclear dial that may be redialled": ((Fence,), (Fence,)),
    "fencing a cancelled ring": ((Fence,), (Fence,)),
    "fenced, waiting for the last word": ((), ()),
    "opening again after an unknown": ((OpenRoom,), (Abandon,)),
    "ringing again after an unknown": ((WatchAgent,), (Adopt, WatchAgent)),
    "second attempt ringing": ((WatchAgent,), (Adopt, WatchAgent)),
}


@pytest.mark.parametrize("name", list(h.HISTORIES))
def test_what_is_owed_follows_from_where_the_call_stands(name: str) -> None:
    """After a take-over no dial is owed, and no room: the one is adopted, the other given up."""
    own, taken_over = OWED[name]
    given(*h.HISTORIES[name][1]).owing(*own).owing_after_takeover(*taken_over)


@pytest.mark.parametrize("name", list(h.HISTORIES))
def test_every_open_call_has_a_deadline_that_moves_it_on(name: str) -> None:
    """Nothing waits for ever on a message that may never come; at its deadline a call changes, or asks for a slot."""
    spec = given(*h.HISTORIES[name][1])
    due = deadline(spec.callee, spec.now)
    assert due is not None
    before = spec.callee
    spec.when(h.tick((due - h.T0).total_seconds()))
    assert spec.callee != before or any(isinstance(e, AskSlot) for e in owed(spec.callee, due))
    after = deadline(spec.callee, due)
    assert after is None or after > due


def test_the_history_of_every_phase_is_told() -> None:
    """No phase is left out of what these tests look at."""
    assert {phase for phase, _ in h.HISTORIES.values()} == set(Phase)
    assert set(OWED) == set(h.HISTORIES)


def test_nothing_is_owed_for_a_callee_without_calls() -> None:
    """Whatever is remembered."""
    for callee in (Callee(callee_key=h.CALLEE), given(h.suppress(0)).callee, given(*h.fencing(), h.fenced(15)).callee):
        assert not owed(callee, h.at(100))
        assert not outstanding(callee, h.at(100))
        assert deadline(callee, h.at(100)) is None


def test_the_deadline_is_the_earliest_of_all_calls() -> None:
    """Of the one that rings and the one that waits."""
    given(*h.ringing(), h.place(5, 2, not_after=h.at(20))).due(h.at(20))


def test_a_call_that_is_due_but_blocked_is_not_asked_about_in_a_loop() -> None:
    """Its deadline is its expiry, not the moment that has passed."""
    spec = given(*h.answered(), h.place(10, 2, not_before=h.at(20)))
    spec.when(h.tick(20)).then_nothing()
    due = deadline(spec.callee, h.at(20))
    assert due is not None
    assert due > h.at(20) + timedelta(seconds=1)
