"""Chapter 1: a request becomes a call, or is refused."""

from __future__ import annotations

import pytest

from dialer.callee.owed import AskSlot, LookUp
from dialer.callee.state import Phase
from schemas.events import CallDeferred, CallPrepared, CallRefused, CallRequested
from schemas.outcomes import Deferral, Refusal
from tests import histories as h
from tests.spec import given


def test_a_request_with_its_definition_at_hand_waits_for_a_slot() -> None:
    """Two events, and one thing owed."""
    spec = given().when(h.place()).then(CallRequested, CallPrepared)
    spec.in_phase(Phase.WAITING).owing(AskSlot(h.CALL, h.TRUNK, h.CAMPAIGN, 5)).due(h.at(8 * 3600))


def test_a_request_keeps_what_it_was_asked_with() -> None:
    """What `CallRequested` says is what the state holds; the clear number is nowhere in it."""
    spec = given().when(h.place(priority=9, not_before=h.at(60)))
    call, event = spec.call(), spec.decided[0].body
    assert isinstance(event, CallRequested)
    assert (call.to, call.region, call.zones, call.priority) == (event.to, "US", ("America/New_York",), 9)
    assert (call.due, call.not_after, call.remember_until) == (h.at(60), event.not_after, event.remember_until)


def test_a_request_whose_definition_is_not_at_hand_is_looked_up() -> None:
    """The call waits in `requested`; nothing else is owed."""
    spec = given().when(h.place(verdict=None)).then(CallRequested)
    spec.in_phase(Phase.REQUESTED).owing(LookUp(h.CALL, h.CAMPAIGN))
    spec.when(h.defined(5)).then(CallPrepared).in_phase(Phase.WAITING).owing(AskSlot)


def test_variables_are_forgotten_once_the_message_is_rendered() -> None:
    """The state keeps one sealed text, not two."""
    spec = given(h.place(verdict=None))
    assert spec.call().variables is not None
    spec.when(h.defined(1))
    assert spec.call().variables is None
    assert spec.call().message == h.BOX


@pytest.mark.parametrize("refusal", [r for r in Refusal if r not in {Refusal.EXPIRED, Refusal.CANCELLED}])
def test_a_refusing_verdict_ends_the_call_at_once(refusal: Refusal) -> None:
    """Unknown campaign, missing variable, empty, too long, country: the call ends before a room, in either order."""
    given().when(h.place(verdict=refusal)).then(CallRequested, CallRefused(reason=refusal)).over()
    given(h.place(verdict=None)).when(h.defined(1, verdict=refusal)).then(CallRefused(reason=refusal)).over()


def test_a_request_whose_time_is_over_is_refused_as_expired() -> None:
    """`not_after` in the past, and exactly now."""
    for s in (-1, 0):
        given().when(h.place(not_after=h.at(s))).then(CallRequested, CallRefused(reason=Refusal.EXPIRED)).over()


def test_a_request_for_later_is_deferred_and_says_until_when() -> None:
    """Nothing is owed before; then a slot is asked for."""
    spec = given().when(h.place(not_before=h.at(60)))
    spec.then(CallRequested, CallPrepared, CallDeferred(not_before=h.at(60), reason=Deferral.NOT_BEFORE))
    spec.owing().due(h.at(60))
    spec.when(h.tick(60)).then_nothing().owing(AskSlot)


def test_a_lookup_that_answers_late_still_honours_not_before() -> None:
    """The definition comes before the time does."""
    spec = given(h.place(verdict=None, not_before=h.at(60))).when(h.defined(5))
    spec.then(CallPrepared, CallDeferred(not_before=h.at(60), reason=Deferral.NOT_BEFORE)).owing()


def test_a_second_call_of_the_same_person_waits_for_the_first() -> None:
    """One call at a time per callee: the second says that it waits, and no slot is asked for it."""
    spec = given(*h.answered()).when(h.place(20, 2))
    spec.then(CallRequested, CallPrepared, CallDeferred(not_before=h.at(20), reason=Deferral.CALLEE_BUSY))
    assert not [e for e in _slots(spec) if e.call_id == h.call(2)]
    spec.when(h.delivered(21), h.last_word(22), h.fenced(23))
    assert [e.call_id for e in _slots(spec)] == [h.call(2)]


def test_the_more_urgent_of_two_waiting_calls_is_next() -> None:
    """Priority first, 9 before 0; then age."""
    spec = given(h.place(0, 1, priority=3), h.place(1, 2, priority=9), h.place(2, 3, priority=9))
    assert [e.call_id for e in _slots(spec)] == [h.call(2)]


def test_a_call_nobody_defines_expires() -> None:
    """The campaign service is unreachable until `not_after`: refused, for no room was asked for."""
    spec = given(h.place(verdict=None, not_after=h.at(60))).due(h.at(60))
    spec.when(h.tick(60)).then(CallRefused(reason=Refusal.EXPIRED)).over()


def test_a_late_definition_of_a_known_call_means_nothing() -> None:
    """The definition is known already."""
    given(h.place(verdict=None), h.defined(1)).when(h.defined(2)).then_nothing()


def _slots(spec) -> list[AskSlot]:
    from dialer.callee.owed import owed

    return [e for e in owed(spec.callee, spec.now) if isinstance(e, AskSlot)]
