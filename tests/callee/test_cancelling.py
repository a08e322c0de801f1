"""Chapter 6: a cancel is a cancel, in every phase and in any order (promise 6)."""

from __future__ import annotations

import pytest

from dialer.callee.owed import Fence
from dialer.callee.state import Phase
from schemas.events import CallCancelled, CallEnded, CallRefused, CallRequested, DialStarted, FenceStarted
from schemas.outcomes import Attribution, FenceReason, Outcome, Refusal
from tests import histories as h
from tests.spec import given

ACTIVE = [
    name for name, (phase, _) in h.HISTORIES.items() if phase not in {Phase.REQUESTED, Phase.WAITING, Phase.FENCING}
]


@pytest.mark.parametrize("name", ["requested", "waiting", "waiting for not_before"])
def test_a_call_without_a_room_is_refused(name: str) -> None:
    """Cancelled before its first room was asked for."""
    spec = given(*h.HISTORIES[name][1]).when(h.cancel(5))
    accepted = CallCancelled(stop_id="stop-1", reason="requested", remember_until=h.at(5) + h.MEMORY)
    spec.then(accepted, CallRefused(reason=Refusal.CANCELLED)).over()


def test_a_call_that_waits_for_its_retry_ends_as_cancelled() -> None:
    """It had a room: `CallEnded`."""
    spec = given(*h.HISTORIES["waiting after busy"][1]).when(h.cancel(20)).then(CallCancelled, CallEnded).over()
    end = spec.decided[-1].body
    assert (end.outcome, end.attribution, end.attempt) == (Outcome.CANCELLED, Attribution.US, 1)


@pytest.mark.parametrize("name", ACTIVE)
def test_a_call_under_way_is_hung_up(name: str) -> None:
    """The room is taken down; a dial that was not sent is not owed any more."""
    spec = given(*h.HISTORIES[name][1])
    attempt = spec.call(h.CALL).openings
    spec.when(h.cancel(800)).then(CallCancelled, FenceStarted(attempt=attempt, reason=FenceReason.CANCELLED))
    spec.owing(Fence(h.CALL, attempt))
    spec.when(h.fenced(801, attempt), h.tick(811)).over()
    assert spec.decided[-1].body.outcome is Outcome.CANCELLED
    assert not [d for d in spec.decided if isinstance(d.body, DialStarted)]


def test_a_cancel_while_the_room_is_taken_down_prevents_the_retry() -> None:
    """Busy would have been retried."""
    spec = given(*h.ringing(), h.failed(8, 486)).when(h.cancel(9)).then(CallCancelled).in_phase(Phase.FENCING)
    spec.when(h.cancel(9.5, name="stop-9")).then_nothing()
    spec.when(h.last_word(9.6), h.fenced(10)).over()
    assert spec.decided[-1].body.outcome is Outcome.CANCELLED


def test_a_cancel_that_comes_before_its_call_is_remembered() -> None:
    """The call, when it comes, is refused."""
    spec = given().when(h.cancel(0)).then(CallCancelled).owing().due(None)
    spec.when(h.place(3600)).then(CallRequested, CallRefused(reason=Refusal.CANCELLED)).over()


def test_a_cancel_of_another_call_changes_nothing_of_this_one() -> None:
    """It is remembered for the other one."""
    given(*h.answered()).when(h.cancel(10, 2)).then(CallCancelled).in_phase(Phase.ANSWERED)


def test_a_cancel_that_is_delivered_again_changes_nothing() -> None:
    """Before its call, during it and after it."""
    given(h.cancel(0)).when(h.cancel(1)).then_nothing()
    given(*h.ringing(), h.cancel(6)).when(h.cancel(7)).then_nothing()
    given(h.place(), h.cancel(5)).when(h.cancel(6)).then_nothing()


def test_a_cancel_after_the_end_changes_nothing() -> None:
    """The call's fate is decided."""
    given(*h.fencing(), h.fenced(15)).when(h.cancel(20)).then_nothing().over()


def test_a_cancel_refuses_the_repetition_of_its_call_too() -> None:
    """The same request again is the same, refused call."""
    given(h.cancel(0), h.place(1)).when(h.place(2)).then_nothing().over()
