"""Chapter 4: the callee answers, hears the message, and the call ends."""

from __future__ import annotations

import pytest

from dialer.callee.policy import TALK_MARGIN
from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import AgentLost, CallAnswered, CallEnded, DialFailed, Durations, FenceConfirmed, FenceStarted
from schemas.outcomes import Attribution, FenceReason, Outcome
from tests import histories as h
from tests.spec import Spec, given


def ended(spec: Spec) -> tuple[Outcome, Attribution]:
    end = spec.decided[-1].body
    assert isinstance(end, CallEnded)
    return end.outcome, end.attribution


def test_the_answer_is_whoever_tells_it_first() -> None:
    """The agent sees `active`, the dial request returns: one `CallAnswered`."""
    given(*h.ringing()).when(h.status(9, "active")).then(f.CalleeStatus, CallAnswered(attempt=1)).in_phase(
        Phase.ANSWERED
    )
    given(*h.ringing()).when(h.dialled(9, "answered")).then(CallAnswered(attempt=1)).in_phase(Phase.ANSWERED)
    given(*h.answered()).when(h.dialled(9, "answered")).then_nothing()
    given(*h.ringing(), h.dialled(9, "answered")).when(h.status(9, "active")).then(f.CalleeStatus)


def test_an_automatic_answer_is_an_answer() -> None:
    """`automation`: DTMF is played to an answered leg."""
    given(*h.dialing()).when(h.status(9, "automation")).then(f.CalleeStatus, CallAnswered).in_phase(Phase.ANSWERED)


def test_a_delivered_message_ends_the_call_as_delivered() -> None:
    """Copied fact, fence, confirmation, end; with what each part took."""
    spec = given(*h.answered()).when(h.delivered(12)).then(f.NotificationDelivered).in_phase(Phase.ANSWERED)
    spec.when(h.last_word(13)).then(f.ConversationEnded, FenceStarted(attempt=1, reason=FenceReason.CONVERSATION_ENDED))
    spec.when(h.fenced(15)).then(FenceConfirmed, CallEnded).over()
    assert ended(spec) == (Outcome.DELIVERED, Attribution.CALLEE)
    assert spec.decided[-1].body.durations == Durations(waited_s=3, rang_s=6, talked_s=4)


def test_a_callee_who_hangs_up_early_ends_the_call_as_such() -> None:
    """Told by the agent's fact, or by the leg that left."""
    for news in ((h.hung_up(11), h.left(11), h.last_word(12, reason="callee_left")), (h.gone(11), h.last_word(12))):
        spec = given(*h.answered(), *news).when(h.fenced(13))
        assert ended(spec) == (Outcome.HUNG_UP_EARLY, Attribution.CALLEE)
        spec.over()


def test_a_message_that_was_delivered_counts_whatever_ended_the_call() -> None:
    """Delivered wins over a leg that left, an agent lost, and a cancel that came after."""
    for news in ((h.left(13),), (h.crashed(13),), (h.cancel(13),), (h.suppress(13),)):
        spec = given(*h.answered(), h.delivered(12), *news).when(h.fenced(15), h.tick(25))
        assert ended(spec) == (Outcome.DELIVERED, Attribution.CALLEE)


def test_a_delivery_told_while_the_room_is_taken_down_still_counts() -> None:
    """The leg's end overtakes the agent's fact; the last word is waited for."""
    spec = given(*h.answered(), h.gone(12), h.fenced(13)).in_phase(Phase.FENCING)
    spec.when(h.delivered(13.1), h.last_word(13.2))
    assert ended(spec) == (Outcome.DELIVERED, Attribution.CALLEE)


def test_an_agent_lost_in_a_call_ends_it_and_nobody_is_rung_again() -> None:
    """An answered attempt is never followed by another (promise 2)."""
    for lost in (h.crashed(11), h.silent(11)):
        spec = given(*h.answered()).when(lost)
        assert AgentLost(attempt=1, answered=True) in [d.body for d in spec.decided]
        spec.when(h.fenced(12), h.tick(22))
        assert ended(spec) == (Outcome.AGENT_LOST, Attribution.US)
        spec.over()


def test_a_call_that_talks_too_long_is_hung_up() -> None:
    """LiveKit's own limit first, ours after."""
    spec = given(*h.answered()).due(h.at(9 + 600) + TALK_MARGIN)
    spec.when(h.tick(638.9)).then_nothing()
    spec.when(h.tick(639)).then(FenceStarted(attempt=1, reason=FenceReason.CALL_TOO_LONG))


@pytest.mark.parametrize(
    "evidence", [h.status(21, "active"), h.status(21, "automation"), h.delivered(21), h.dialled(21, "answered")]
)
def test_an_answer_heard_of_after_the_fence_began_is_an_answer(evidence: object) -> None:
    """The agent's spool is shipped late, the dial returns late: such an attempt is never followed by another."""
    spec = given(*h.ringing(h.prepared(h.REDIALS_UNKNOWN)), h.silent(20)).when(evidence)
    assert CallAnswered(attempt=1) in [d.body for d in spec.decided]
    spec.when(h.fenced(23), h.tick(33)).over()
    assert isinstance(spec.decided[-1].body, CallEnded)


def test_a_failure_told_after_the_answer_means_nothing() -> None:
    """The agent saw the answer first."""
    given(*h.answered()).when(h.failed(10, 487)).then_nothing()


def test_an_answer_in_the_room_outweighs_a_failure_told_before() -> None:
    """A 200 that races our CANCEL: rung once, answered, ended."""
    spec = given(*h.ringing()).when(h.failed(8, 487)).then(DialFailed, FenceStarted)
    spec.when(h.status(8.1, "active")).then(f.CalleeStatus, CallAnswered)
    spec.when(h.fenced(10), h.tick(20)).over()


def test_a_dial_that_was_withdrawn_cannot_have_been_answered() -> None:
    """A status that contradicts the gate is copied, and nothing follows."""
    given(*h.dialing(), h.dialled(4, "withheld", withheld="stopped")).when(h.status(5, "active")).then(f.CalleeStatus)


def test_news_of_an_earlier_attempt_does_not_answer_this_one() -> None:
    """An answer that is heard of late takes the running attempt down: there was to be no further one (promise 2)."""
    second = h.HISTORIES["second attempt ringing"][1]
    late = given(*second).when(h.status(330, "active", 1))
    late.then(f.CalleeStatus, CallAnswered(attempt=1), FenceStarted(attempt=2, reason=FenceReason.ANSWERED_BEFORE))
    given(*second).when(h.dialled(330, "answered", 1)).then_nothing().in_phase(Phase.RINGING)
