"""Chapter 2: a slot, a room, an agent: everything that costs no ring."""

from __future__ import annotations

from dialer.callee.owed import AskSlot, AskTurn, Fence, OpenRoom, WatchAgent
from dialer.callee.policy import AGENT_READY_TIMEOUT, OPENINGS_MAX, backoff
from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import (
    AgentDispatched,
    AgentJoined,
    AgentUnavailable,
    AttemptOpened,
    CallEnded,
    CallRefused,
    FenceConfirmed,
    FenceStarted,
    RetryScheduled,
    RoomCreated,
    RoomFailed,
)
from schemas.outcomes import Attribution, FenceReason, Outcome, Refusal
from schemas.values import room_name
from tests import histories as h
from tests.spec import given


def test_a_slot_opens_the_attempt_and_its_room_is_owed() -> None:
    """From here on the call ends by `CallEnded`."""
    spec = given(h.place()).when(h.slot(1)).then(AttemptOpened(attempt=1))
    spec.in_phase(Phase.OPENING).owing(OpenRoom(h.CALL, 1)).due(h.at(1) + AGENT_READY_TIMEOUT)


def test_a_room_comes_with_its_agents_dispatch() -> None:
    """One request, two events."""
    spec = given(*h.opening()).when(h.room(2))
    spec.then(
        RoomCreated(attempt=1, room=room_name(h.CALL, 1), room_sid="RM_1"),
        AgentDispatched(attempt=1, agent_name="outbound-dialer"),
    )
    spec.in_phase(Phase.GATHERING).owing()


def test_a_ready_agent_lets_the_call_ask_for_its_turn() -> None:
    """The fact is copied to the log with its own source and id."""
    spec = given(*h.gathering()).when(h.ready(2)).then(f.AgentReady, AgentJoined(attempt=1, job_id="AJ_1"))
    copied = spec.decided[0].body
    assert (copied.source, copied.id) == ("/agent/1/AJ_1", f"{h.CALL}-1/AJ_1/1")
    spec.in_phase(Phase.READY).owing(AskTurn(h.CALL, 1, h.TRUNK), WatchAgent(h.CALL, 1))


def test_an_agent_may_be_ready_before_the_rooms_answer_is_known() -> None:
    """Both orders lead to `ready`."""
    spec = given(*h.opening()).when(h.ready(1.5)).then(f.AgentReady, AgentJoined).in_phase(Phase.OPENING)
    spec.when(h.room(2)).then(RoomCreated, AgentDispatched).in_phase(Phase.READY).owing(AskTurn, WatchAgent)


def test_a_second_job_in_the_same_room_changes_nothing_but_the_log() -> None:
    """The first agent that is ready is the attempt's agent."""
    spec = given(*h.is_ready()).when(h.fact(3, f.AgentReady, 1, job="AJ_other")).then(f.AgentReady)
    assert spec.call().attempt is not None
    assert spec.call().attempt.job_id == "AJ_1"


def test_a_failed_room_is_fenced_and_tried_again_later() -> None:
    """The room may stand all the same, so it is taken down first; no dial is counted."""
    spec = given(*h.opening()).when(h.room(2, ok=False))
    spec.then(RoomFailed(attempt=1, code="unavailable"), FenceStarted(attempt=1, reason=FenceReason.ROOM_FAILED))
    spec.owing(Fence(h.CALL, 1))
    spec.when(h.fenced(4)).then(
        FenceConfirmed(attempt=1), RetryScheduled(attempt=1, not_before=h.at(4) + backoff(1), outcome=None)
    )
    assert spec.call().dials == 0


def test_an_agent_that_never_comes_gives_the_attempt_up() -> None:
    """At the deadline and not before."""
    spec = given(*h.gathering())
    spec.when(h.tick(30.9)).then_nothing()
    spec.when(h.tick(31)).then(
        AgentUnavailable(attempt=1), FenceStarted(attempt=1, reason=FenceReason.AGENT_UNAVAILABLE)
    )


def test_an_agent_that_crashes_before_the_dial_gives_the_attempt_up() -> None:
    """Whether it was ready or not: nobody is rung into silence (promise 4)."""
    for history in (h.opening(), h.gathering(), h.is_ready()):
        given(*history).when(h.crashed(3)).then(f.AgentCrashed, AgentUnavailable, FenceStarted)
        given(*history).when(h.last_word(3, reason="failed", seen=False)).then(
            f.ConversationEnded, AgentUnavailable, FenceStarted
        )


def test_a_silent_agent_or_a_lost_room_before_the_dial_gives_the_attempt_up() -> None:
    """Both are told by LiveKit, or by nobody renewing."""
    given(*h.is_ready()).when(h.silent(9)).then(AgentUnavailable, FenceStarted)
    given(*h.is_ready()).when(h.gone(9)).then(AgentUnavailable, FenceStarted)
    given(*h.gathering()).when(h.gone(9)).then(AgentUnavailable, FenceStarted)


def test_news_of_another_attempt_is_not_taken_for_this_one() -> None:
    """Every observation names its attempt."""
    spec = given(*h.gathering())
    spec.when(h.room(2, 2)).then_nothing().when(h.gone(2, 7)).then_nothing()
    spec.when(h.ready(2, attempt=2)).then_nothing()
    given(*h.is_ready()).when(h.turn(3, 2)).then_nothing().when(h.silent(3, 2)).then_nothing()


def test_openings_that_cost_no_ring_back_off_and_end() -> None:
    """1, 2, 4 … 60 s; after the tenth the agents are taken to be gone."""
    spec, s, waits = given(h.place()), 1.0, []
    for attempt in range(1, OPENINGS_MAX + 1):
        spec.when(h.slot(s)).then(AttemptOpened(attempt=attempt))
        spec.when(h.room(s + 1, attempt, ok=False))
        spec.when(h.fenced(s + 2, attempt))
        if attempt < OPENINGS_MAX:
            retry = spec.decided[-1].body
            assert isinstance(retry, RetryScheduled)
            waits.append((retry.not_before - h.at(s + 2)).total_seconds())
            s = s + 2 + waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    end = spec.decided[-1].body
    assert isinstance(end, CallEnded)
    assert (end.outcome, end.attribution) == (Outcome.AGENT_UNAVAILABLE, Attribution.US)
    spec.over()


def test_a_slot_for_a_call_whose_turn_it_is_not_opens_nothing() -> None:
    """Not before it is due, not while another call of the callee is under way, not after `not_after`."""
    given(h.place(not_before=h.at(60))).when(h.slot(1)).then_nothing()
    given(*h.answered(), h.place(10, 2)).when(h.slot(11, 2)).then_nothing()
    given(h.place(not_after=h.at(60))).when(h.slot(60)).then_nothing().when(h.tick(60)).then(CallRefused).over()


def test_a_slot_goes_to_the_callees_most_urgent_call_only() -> None:
    """The shell's grant for the other one is given back."""
    spec = given(h.place(0, 1, priority=3), h.place(1, 2, priority=9))
    spec.when(h.slot(2, 1)).then_nothing().owing(AskSlot(h.call(2), h.TRUNK, h.CAMPAIGN, 9))


def test_a_call_expires_while_it_is_opened() -> None:
    """It has asked for a room, so it ends, and is not refused."""
    spec = given(h.place(not_after=h.at(20)), h.slot(1), h.room(2)).due(h.at(20))
    spec.when(h.tick(20)).then(FenceStarted(attempt=1, reason=FenceReason.EXPIRED))
    spec.when(h.fenced(21)).then(FenceConfirmed, CallEnded).over()
    assert spec.decided[-1].body.outcome is Outcome.EXPIRED


def test_a_retry_that_would_come_after_not_after_ends_the_call() -> None:
    """Expired, by us."""
    spec = given(h.place(not_after=h.at(5)), h.slot(1), h.room(2, ok=False)).when(h.fenced(4.5))
    assert spec.decided[-1].body.outcome is Outcome.EXPIRED
    spec.over()


def test_a_waiting_call_that_has_no_room_is_refused_when_it_expires() -> None:
    """Before its first room: `CallRefused`; after one: `CallEnded`."""
    given(h.place(not_after=h.at(60))).when(h.tick(60)).then(CallRefused(reason=Refusal.EXPIRED)).over()
    spec = given(h.place(not_after=h.at(60)), h.slot(1), h.room(2, ok=False), h.fenced(3))
    spec.in_phase(Phase.WAITING).when(h.tick(60)).then(CallEnded).over()
    assert spec.decided[-1].body.outcome is Outcome.EXPIRED
