"""Chapter 7: a person who is not to be rung is not rung, whatever is under way (promise 6)."""

from __future__ import annotations

import pytest

from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import (
    CalleeSuppressed,
    CallEnded,
    CallPrepared,
    CallRefused,
    CallRequested,
    FenceConfirmed,
    FenceStarted,
    SuppressionLifted,
)
from schemas.outcomes import FenceReason, Outcome, Refusal
from tests import histories as h
from tests.spec import given

ON_RECORD = CalleeSuppressed(stop_id="stop-2", scope="all", reason="opted_out")


@pytest.mark.parametrize(("name", "phase"), [(n, p) for n, (p, _) in h.HISTORIES.items()])
def test_a_suppression_ends_what_is_open_in_every_phase(name: str, phase: Phase) -> None:
    """Waiting calls end at once, one under way is hung up, one being taken down is not tried again."""
    spec = given(*h.HISTORIES[name][1]).when(h.suppress(400))
    assert spec.decided[0].body == ON_RECORD
    for call in list(spec.callee.calls.values()):
        assert call.phase is Phase.FENCING
        number = 2 if call.call_id == h.call(2) else 1
        spec.when(h.fenced(401, call.openings, number))
    spec.when(h.tick(2000)).over()


def test_a_waiting_call_is_refused_and_one_with_a_room_ended() -> None:
    """Before its first room: refused; after: ended."""
    given(h.place()).when(h.suppress(5)).then(ON_RECORD, CallRefused(reason=Refusal.SUPPRESSED)).over()
    spec = given(*h.HISTORIES["waiting after busy"][1]).when(h.suppress(20)).then(ON_RECORD, CallEnded).over()
    assert spec.decided[-1].body.outcome is Outcome.SUPPRESSED


def test_a_ringing_call_is_hung_up() -> None:
    """And ends as suppressed."""
    spec = given(*h.ringing()).when(h.suppress(6))
    spec.then(ON_RECORD, FenceStarted(attempt=1, reason=FenceReason.SUPPRESSED))
    spec.when(h.failed(7, 487), h.last_word(7.5), h.fenced(8)).over()
    assert spec.decided[-1].body.outcome is Outcome.SUPPRESSED


def test_several_calls_are_all_stopped_by_one_suppression() -> None:
    """One rings, two wait."""
    spec = given(*h.ringing(), h.place(6, 2), h.place(7, 3)).when(h.suppress(8))
    spec.then(ON_RECORD, FenceStarted, CallRefused, CallRefused)


def test_a_call_that_comes_after_its_suppression_is_refused() -> None:
    """However much later."""
    spec = given(h.suppress(0)).when(h.place(86_400 * 300)).then(CallRequested, CallRefused(reason=Refusal.SUPPRESSED))
    spec.over()


def test_a_second_suppression_changes_nothing() -> None:
    """One is in force."""
    given(h.suppress(0)).when(h.suppress(1, "stop-9")).then_nothing().when(h.suppress(2)).then_nothing()


def test_a_lifted_suppression_lets_new_calls_through() -> None:
    """And only new ones."""
    spec = given(h.suppress(0), h.place(1)).when(h.lift(2))
    spec.then(SuppressionLifted(stop_id="stop-3", scope="all", reason="opted_in"))
    spec.when(h.place(3)).then_nothing().when(h.place(4, 2)).then(CallRequested, CallPrepared)


def test_a_lift_does_not_bring_back_a_call_that_was_being_taken_down() -> None:
    """Suppressed and lifted within the seconds of a fence: busy would have been retried, the person said no."""
    spec = given(*h.ringing(), h.failed(8, 486)).when(h.suppress(9), h.lift(9.1)).then(ON_RECORD, SuppressionLifted)
    spec.when(h.last_word(9.5)).then(f.ConversationEnded).when(h.fenced(10)).then(FenceConfirmed, CallEnded).over()
    assert spec.decided[-1].body.outcome is Outcome.SUPPRESSED


def test_a_lift_without_a_suppression_changes_nothing() -> None:
    """Nor does it lift the next one."""
    given().when(h.lift(0)).then_nothing().when(h.suppress(1)).then(ON_RECORD)


def test_a_stop_that_is_delivered_again_after_its_opposite_changes_nothing() -> None:
    """An old suppression does not come back, an old lift does not lift a new one."""
    spec = given(h.suppress(0), h.lift(1)).when(h.suppress(2)).then_nothing()
    spec.when(h.suppress(3, "stop-9")).then(CalleeSuppressed).when(h.lift(4)).then_nothing()
    assert spec.callee.suppressed == "opted_out"
