"""Chapter 11: the agent is the witness inside the room: what its word, its silence and its death mean in each phase."""

from __future__ import annotations

import pytest

from dialer.callee import inputs as i
from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import (
    AgentLost,
    CallAnswered,
    CallEnded,
    DialFailed,
    DialUnknown,
    FenceStarted,
    RetryScheduled,
)
from schemas.outcomes import Attribution, FenceReason, Outcome
from tests import histories as h
from tests.spec import given

ON_THE_PHONE = {"dialing": h.dialing(), "ringing": h.ringing(), "answered": h.answered()}


@pytest.mark.parametrize("phase", list(ON_THE_PHONE))
def test_an_agent_that_dies_stops_the_phone_in_every_phase(phase: str) -> None:
    """Promise 4: from the INVITE on nobody is left with a silent line."""
    lost = (
        AgentLost(attempt=1, answered=phase == "answered"),
        FenceStarted(attempt=1, reason=FenceReason.AGENT_LOST),
    )
    given(*ON_THE_PHONE[phase]).when(h.crashed(11)).then(f.AgentCrashed, *lost)
    given(*ON_THE_PHONE[phase]).when(h.silent(11)).then(*lost)


@pytest.mark.parametrize("phase", list(ON_THE_PHONE))
def test_a_leg_that_leaves_takes_its_room_with_it(phase: str) -> None:
    """Told by the agent: the callee left, whatever the phase."""
    left = FenceStarted(attempt=1, reason=FenceReason.CALLEE_LEFT)
    given(*ON_THE_PHONE[phase]).when(h.left(11)).then(f.CalleeLeft, left)


@pytest.mark.parametrize(
    ("phase", "seen", "reason"),
    [
        ("dialing", True, FenceReason.CALLEE_LEFT),
        ("dialing", False, FenceReason.DIAL_UNCLEAR),
        ("ringing", True, FenceReason.CALLEE_LEFT),
        ("ringing", False, FenceReason.DIAL_UNCLEAR),
        ("answered", True, FenceReason.CONVERSATION_ENDED),
    ],
)
def test_the_agents_last_word_takes_the_room_down_with_what_it_saw(phase: str, seen: bool, reason: FenceReason) -> None:
    """A leg that it saw has left; one that it never saw is unclear; after an answer the conversation is over."""
    spec = given(*ON_THE_PHONE[phase]).when(h.last_word(11, seen=seen))
    spec.then(f.ConversationEnded, FenceStarted(attempt=1, reason=reason))


@pytest.mark.parametrize(
    "news",
    [h.gone(11, 2), h.silent(11, 2), h.dialled(11, "answered", 2), h.failed(11, 486, 2), h.turn(11, 2)],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("phase", list(ON_THE_PHONE))
def test_news_of_another_attempt_moves_no_call_that_is_on_the_phone(phase: str, news: i.AnyInput) -> None:
    """Every observation names its attempt."""
    given(*ON_THE_PHONE[phase]).when(news).then_nothing()


def test_a_fence_of_another_attempt_confirms_nothing() -> None:
    """Only this attempt's room counts."""
    spec = given(*h.ringing(), h.failed(8, 486), h.last_word(8.5)).when(h.fenced(10, 2)).then_nothing()
    spec.in_phase(Phase.FENCING)


def test_an_outcome_of_an_attempt_that_never_dialed_means_nothing() -> None:
    """Nothing was sent: whatever claims to be its outcome is not."""
    for news in (h.failed(5, 486), h.dialled(5, "answered"), h.dialled(5, "withheld", withheld="stopped")):
        given(*h.is_ready(), h.cancel(4)).when(news).then_nothing()


def test_a_failed_dial_says_everything_that_the_carrier_said() -> None:
    """Status, LiveKit's code and phrase: who investigates a call reads them in the event."""
    spec = given(*h.ringing()).when(h.failed(8, 503, code="unavailable", phrase="CPS limit exceeded"))
    assert spec.decided[0].body == DialFailed(
        attempt=1,
        sip_status=503,
        outcome=Outcome.TRUNK_FAILED,
        attribution=Attribution.CARRIER,
        rule="trunk_overloaded",
        sent=True,
        retry="trunk_failed",
        code="unavailable",
        phrase="CPS limit exceeded",
    )


def test_an_attempt_that_is_fenced_is_judged_without_an_alarm_however_late() -> None:
    """The alarm says that no fence was confirmed; this one was, and the owner slept."""
    given(*h.dialing(), h.gone(8), h.fenced(10)).when(h.tick(5000)).then(DialUnknown(attempt=1, alarm=False), CallEnded)


def test_an_early_hang_up_is_the_callees_whatever_the_agent_says_last() -> None:
    """`CalleeHungUp` without a delivered message."""
    spec = given(*h.answered(), h.hung_up(11)).when(h.last_word(12), h.fenced(13))
    end = spec.over().decided[-1].body
    assert isinstance(end, CallEnded)
    assert (end.outcome, end.attribution) == (Outcome.HUNG_UP_EARLY, Attribution.CALLEE)


def test_a_conversation_that_ends_without_a_word_delivered_was_lost_by_us() -> None:
    """Answered, nothing played, nobody hung up: the callee heard silence, and that is our doing."""
    spec = given(*h.answered()).when(h.last_word(12), h.fenced(13))
    assert (spec.over().decided[-1].body.outcome, spec.decided[-1].body.attribution) == (
        Outcome.AGENT_LOST,
        Attribution.US,
    )


def test_an_answer_is_told_once_however_often_it_is_seen() -> None:
    """`automation` and `active` of one leg: the second is copied, and nothing follows."""
    given(*h.ringing(), h.status(9, "automation")).when(h.status(10, "active")).then(f.CalleeStatus)
    assert CallAnswered(attempt=1) not in [d.body for d in given(*h.answered()).when(h.delivered(12)).decided]


def test_a_phone_that_nobody_took_up_is_the_callees_not_answering() -> None:
    """What the agent saw is written as what a carrier would have said."""
    rang_out = (h.left(36, reason="USER_UNAVAILABLE"), h.last_word(36.5, stayed=False), h.fenced(60))
    spec = given(*h.ringing(), *rang_out).when(h.tick(70))
    assert spec.decided[0].body == DialFailed(
        attempt=1,
        sip_status=None,
        outcome=Outcome.NO_ANSWER,
        attribution=Attribution.CALLEE,
        rule="seen_unanswered",
        sent=True,
        retry="no_answer",
    )


def test_a_leg_that_still_rings_while_its_room_is_taken_down_is_no_answer() -> None:
    """LiveKit lists it as ringing: only `active` and `automation` are answers."""
    given(*h.ringing(), h.crashed(6)).when(h.listed(6.5, "ringing")).then_nothing()
    given(*h.ringing(), h.crashed(6)).when(h.listed(6.5, "active", 2)).then_nothing()


def test_an_attempt_whose_turn_never_came_costs_neither_a_dial_nor_an_opening() -> None:
    """The trunk was busy for 240 s: it backs off like a dial that was withheld, and every time longer."""
    spec, s, waits = given(h.place()), 1.0, []
    for attempt in (1, 2, 3):
        spec.when(h.slot(s), h.room(s, attempt), h.ready(s, attempt)).due(h.at(s + 240))
        spec.when(h.tick(s + 239.9)).then_nothing()
        spec.when(h.tick(s + 240)).then(FenceStarted(attempt=attempt, reason=FenceReason.TURN_OVERDUE))
        s += 250
        spec.when(h.fenced(s, attempt), h.last_word(s, attempt, seen=False))
        retry = spec.decided[-1].body
        assert isinstance(retry, RetryScheduled)
        waits.append((retry.not_before - h.at(s)).total_seconds())
        s += 10
    assert waits == [1, 2, 4]
    assert (spec.call().dials, spec.call().openings_spent, spec.call().withdrawals) == (0, 0, 3)


def test_any_other_end_before_the_dial_costs_an_opening() -> None:
    """An agent that never came is none of the trunk's doing."""
    spec = given(*h.is_ready(), h.crashed(3), h.fenced(5))
    assert (spec.call().openings_spent, spec.call().withdrawals) == (1, 0)


def test_a_second_job_that_is_ready_before_the_rooms_answer_does_not_take_over() -> None:
    """The first agent that is ready is the attempt's agent, whichever comes first, room or agent."""
    spec = given(*h.opening(), h.ready(1.5)).when(h.fact(1.6, f.AgentReady, 1, job="AJ_other")).then(f.AgentReady)
    assert spec.call().attempt is not None
    assert spec.call().attempt.job_id == "AJ_1"


def test_a_phone_rings_once_on_the_log_however_often_the_agent_says_so() -> None:
    """Another job in the room sees the same leg."""
    again = h.fact(6, f.CalleeStatus, 4, job="AJ_other", status="ringing")
    given(*h.ringing()).when(again).then(f.CalleeStatus)


def test_a_leg_that_is_seen_in_a_room_being_taken_down_is_answered_only_if_it_says_so() -> None:
    """`ringing` and `hangup` while the fence is on are copied, and nothing follows."""
    for word in ("ringing", "hangup"):
        given(*h.dialing(), h.crashed(4)).when(h.status(5, word)).then(f.CalleeStatus)
    given(*h.dialing(), h.crashed(4)).when(h.status(5, "active")).then(f.CalleeStatus, CallAnswered(attempt=1))
