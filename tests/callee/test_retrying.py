"""Chapter 5: what follows a known outcome, an unknown one, and none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import (
    CallAnswered,
    CallEnded,
    DialUnknown,
    DialWithdrawn,
    FenceConfirmed,
    FenceStarted,
    RetryScheduled,
)
from schemas.outcomes import Attribution, Outcome
from tests import histories as h
from tests.spec import Spec, given


def after_failure(sip: int | None, verdict: object = h.PREPARED, **place: object) -> Spec:
    """Return a call whose first dial failed so, judged at second 10."""
    history = (h.place(0, verdict=verdict, **place), *h.ringing()[1:], h.failed(8, sip), h.last_word(8.5))
    return given(*history).when(h.fenced(10))


@pytest.mark.parametrize(
    ("sip", "delay_s", "outcome"),
    [
        (486, 300, Outcome.BUSY),
        (600, 300, Outcome.BUSY),
        (480, 1800, Outcome.NO_ANSWER),
        (408, 1800, Outcome.NO_ANSWER),
        (503, 60, Outcome.TRUNK_FAILED),
        (403, 60, Outcome.TRUNK_FAILED),
    ],
)
def test_busy_is_retried_after_the_rules_delay(sip: int, delay_s: int, outcome: Outcome) -> None:
    """Each outcome takes the delay the campaign set for it."""
    spec = after_failure(sip)
    assert spec.decided[-1].body == RetryScheduled(attempt=1, not_before=h.at(10 + delay_s), outcome=outcome)
    spec.in_phase(Phase.WAITING).owing().due(h.at(10 + delay_s))


@pytest.mark.parametrize(
    ("sip", "outcome", "by"),
    [
        (603, Outcome.DECLINED, Attribution.CALLEE),
        (607, Outcome.DECLINED, Attribution.CALLEE),
        (608, Outcome.BLOCKED, Attribution.CARRIER),
        (404, Outcome.INVALID_NUMBER, Attribution.CARRIER),
        (488, Outcome.TRUNK_FAILED, Attribution.US),
    ],
)
def test_some_failures_are_final(sip: int, outcome: Outcome, by: Attribution) -> None:
    """No means no, and a bad number stays bad."""
    end = after_failure(sip).over().decided[-1].body
    assert isinstance(end, CallEnded)
    assert (end.outcome, end.attribution) == (outcome, by)


def test_an_answer_that_proves_nothing_is_unknown_unless_the_agent_saw_no_leg() -> None:
    """A merged request may be a duplicate: the question is left to the witness in the room."""
    spec = after_failure(482).in_phase(Phase.FENCING).when(h.failed(11, 482)).then_nothing()
    spec.when(h.tick(20)).then(DialUnknown, CallEnded).over()
    spec = given(*h.dialing(), h.failed(8, 482), h.fenced(10)).when(h.last_word(11, reason="no_callee", seen=False))
    spec.then(f.ConversationEnded, DialWithdrawn, RetryScheduled)


def test_dials_are_bounded_by_attempts_max() -> None:
    """Three rings, then the last outcome is the call's."""
    spec, s = given(h.place()), 1.0
    for attempt in (1, 2, 3):
        spec.when(h.slot(s), h.room(s, attempt), h.ready(s, attempt), h.turn(s, attempt), h.failed(s, 486, attempt))
        spec.when(h.last_word(s, attempt), h.fenced(s, attempt))
        s += 300
    assert spec.over().decided[-1].body.outcome is Outcome.BUSY
    assert sum(isinstance(r.body, RetryScheduled) for r in spec.log) == 2


def test_a_slot_before_the_retrys_time_opens_nothing() -> None:
    """A further attempt only after its committed time."""
    spec = after_failure(486)
    spec.when(h.slot(309.9)).then_nothing()
    spec.when(h.slot(310))
    assert spec.call().phase is Phase.OPENING
    assert spec.call().openings == 2


def test_a_retry_beyond_not_after_ends_the_call_with_what_it_came_to() -> None:
    """Busy stays busy; it did not expire, it was tried."""
    end = after_failure(486, not_after=h.at(200)).over().decided[-1].body
    assert end.outcome is Outcome.BUSY


def test_a_failure_before_sending_costs_no_dial() -> None:
    """No livekit-sip answered: the trunk failed, nobody was rung, openings are spent instead."""
    history = (*h.dialing(), h.failed(4, None, code="unavailable"), h.last_word(5, reason="no_callee", seen=False))
    spec = given(*history).when(h.fenced(6))
    assert spec.decided[-1].body == RetryScheduled(attempt=1, not_before=h.at(7), outcome=None)
    assert (spec.call().dials, spec.call().openings_spent) == (0, 1)


def test_a_bad_address_before_sending_ends_the_call() -> None:
    """Not sent, and no use trying."""
    history = (*h.dialing(), h.failed(4, None, code="invalid_argument"), h.last_word(5, seen=False))
    assert given(*history).when(h.fenced(6)).over().decided[-1].body.outcome is Outcome.TRUNK_FAILED


def test_an_agent_lost_while_it_rang_is_tried_again_after_its_delay() -> None:
    """The callee was rung and nobody spoke: our doing, a dial is counted."""
    history = (*h.ringing(), h.crashed(6), h.failed(7, 487))
    spec = given(*history).when(h.fenced(8))
    assert spec.decided[-1].body == RetryScheduled(attempt=1, not_before=h.at(98), outcome=Outcome.AGENT_LOST)
    assert spec.call().dials == 1


@pytest.mark.parametrize("sip", [603, 607, 608, 404])
def test_a_final_no_is_final_even_when_the_agent_was_lost_meanwhile(sip: int) -> None:
    """Who declined is not rung again because our agent died in the same second."""
    spec = given(*h.ringing(), h.crashed(6), h.failed(7, sip)).when(h.fenced(8)).over()
    assert isinstance(spec.decided[-1].body, CallEnded)


def test_an_unknown_dial_is_never_repeated_unless_the_campaign_says_so() -> None:
    """`redial: never` is the default."""
    spec = given(*h.dialing(), h.gone(8), h.fenced(10)).when(h.tick(20))
    spec.then(DialUnknown, CallEnded).over()


def test_an_unknown_dial_is_repeated_by_rule_once_no_leg_can_be_left() -> None:
    """Not before 80 s + ring + maximum duration after the dial, however short the rule's delay."""
    rules = h.prepared(h.REDIALS_UNKNOWN)
    spec = given(*h.dialing(rules), h.gone(8), h.fenced(10)).when(h.tick(20))
    spec.then(DialUnknown, RetryScheduled(attempt=1, not_before=h.at(3 + 80 + 30 + 600), outcome=Outcome.UNKNOWN))
    later = h.prepared(replace(h.REDIALS_UNKNOWN, unknown_after_s=5000))
    spec = given(*h.dialing(later), h.gone(8), h.fenced(10)).when(h.tick(20))
    assert spec.decided[-1].body.not_before == h.at(5020)


def test_an_unknown_dial_counts_as_a_ring() -> None:
    """It may have been one."""
    rules = h.prepared(replace(h.REDIALS_UNKNOWN, attempts_max=1))
    spec = given(*h.dialing(rules), h.gone(8), h.fenced(10)).when(h.tick(20))
    spec.then(DialUnknown, CallEnded).over()


def test_a_late_fact_of_an_earlier_attempt_is_copied_once_and_moves_nothing() -> None:
    """The call waits for its retry."""
    spec = after_failure(486)
    spec.when(h.hung_up(20)).then(f.CalleeHungUp).in_phase(Phase.WAITING).when(h.hung_up(21)).then_nothing()


def test_a_late_outcome_of_an_earlier_attempt_moves_nothing() -> None:
    """No dial of this call is under way."""
    after_failure(486).when(h.failed(20, 404)).then_nothing().when(h.fenced(21)).then_nothing()


def test_the_last_word_is_waited_for_before_an_attempt_is_judged() -> None:
    """Ten seconds at most, after the fence."""
    spec = given(*h.ringing(), h.failed(8, 486), h.fenced(10)).due(h.at(20))
    spec.when(h.tick(19.9)).then_nothing()
    spec.when(h.tick(20)).then(RetryScheduled)


def test_an_answer_heard_of_late_ends_a_call_that_waits_for_its_retry() -> None:
    """Never a further attempt after an answered one, however late the answer is known (promise 2)."""
    rules = h.prepared(h.REDIALS_UNKNOWN)
    spec = given(*h.dialing(rules), h.gone(8), h.fenced(10), h.tick(20))
    spec.when(h.status(25, "active")).then(f.CalleeStatus, CallAnswered, CallEnded).over()


def test_an_answer_heard_of_late_takes_the_next_attempt_down() -> None:
    """The room of the next attempt is fenced; what is known of the call ends it."""
    rules = h.prepared(h.REDIALS_UNKNOWN)
    spec = given(*h.dialing(rules), h.gone(8), h.fenced(10), h.tick(20), h.slot(714), h.room(715, 2))
    spec.when(h.delivered(716)).then(f.NotificationDelivered, CallAnswered, FenceStarted)
    spec.when(h.fenced(718, 2), h.tick(730)).then(FenceConfirmed, CallEnded).over()
