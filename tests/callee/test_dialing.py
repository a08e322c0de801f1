"""Chapter 3: the one INVITE of an attempt, why it was allowed, and what came of it."""

from __future__ import annotations

import pytest

from dialer.callee import inputs as i
from dialer.callee.answers import seen_unanswered
from dialer.callee.owed import Adopt, Dial, Fence, WatchAgent
from dialer.callee.policy import DIAL_MARGIN, POLICY_VERSION, SETTLE_GRACE, WINDOW
from dialer.callee.state import Phase
from schemas import facts as f
from schemas.commands import Consent
from schemas.events import (
    AgentLost,
    CallAnswered,
    CalleeRinging,
    CallEnded,
    DialFailed,
    DialStarted,
    DialUnknown,
    DialWithdrawn,
    FenceConfirmed,
    FenceStarted,
    Permit,
    RetryScheduled,
)
from schemas.outcomes import Attribution, FenceReason, Outcome, Withdrawal
from tests import histories as h
from tests.spec import given


def test_a_turn_starts_the_dial_and_says_why_it_was_allowed() -> None:
    """Promise 3: policy, window, zones, counters, consent, suppression and control stand in the event."""
    consent = Consent(id="c-9", kind="prior_express", obtained_at=h.T0)
    spec = given(h.place(consent=consent), h.slot(1), h.room(1.1), h.ready(2)).when(h.turn(3))
    permit = Permit(
        policy=POLICY_VERSION,
        window=WINDOW,
        zones=("America/New_York",),
        region="US",
        consent_id="c-9",
        consent_kind="prior_express",
        attempts_before=0,
        openings_before=0,
        suppressed=False,
        control="7",
    )
    spec.then(DialStarted(attempt=1, trunk=h.TRUNK, caller_id=h.CALLER_ID, permit=permit))
    spec.in_phase(Phase.DIALING).owing(Dial(h.CALL, 1), WatchAgent(h.CALL, 1)).due(h.at(3 + 30) + DIAL_MARGIN)


def test_the_permit_of_a_retry_counts_what_went_before() -> None:
    """One dial and one opening before the second."""
    history = (*h.ringing(), h.failed(8, 486), h.last_word(8.5), h.fenced(10), h.slot(320), h.room(321, 2))
    spec = given(*history, h.ready(322, 2)).when(h.turn(323, 2))
    permit = spec.decided[0].body.permit
    assert (permit.attempts_before, permit.openings_before) == (1, 1)


def test_a_turn_after_the_calls_time_is_over_dials_nobody() -> None:
    """The room is taken down instead."""
    history = (h.place(not_after=h.at(20)), h.slot(1), h.room(1.1), h.ready(2))
    given(*history).when(h.turn(20)).then(FenceStarted(attempt=1, reason=FenceReason.EXPIRED))


def test_a_dial_is_owed_until_the_phone_rings_and_never_after() -> None:
    """A dial of another process is adopted, never sent again."""
    given(*h.dialing()).owing(Dial, WatchAgent).owing_after_takeover(Adopt(h.CALL, 1), WatchAgent)
    given(*h.ringing()).owing(WatchAgent).owing_after_takeover(Adopt, WatchAgent)
    given(*h.answered()).owing(WatchAgent).owing_after_takeover(Adopt, WatchAgent)
    given(*h.ringing(), h.failed(8, 486)).owing(Fence).owing_after_takeover(Fence)


def test_ringing_is_told_by_the_agent_in_the_room() -> None:
    """The leg joins before the INVITE: `dialing` is not ringing."""
    spec = given(*h.dialing()).when(h.status(4, "dialing")).then(f.CalleeStatus).in_phase(Phase.DIALING)
    spec.when(h.status(5, "ringing")).then(f.CalleeStatus, CalleeRinging(attempt=1)).in_phase(Phase.RINGING)


def test_a_busy_phone_fails_the_dial_with_the_carriers_words() -> None:
    """The row of the SIP table stands in the event."""
    spec = given(*h.ringing()).when(h.failed(8, 486, phrase="Busy Here"))
    failed = spec.decided[0].body
    assert isinstance(failed, DialFailed)
    assert (failed.sip_status, failed.outcome, failed.attribution) == (486, Outcome.BUSY, Attribution.CALLEE)
    assert (failed.rule, failed.sent, failed.retry, failed.phrase) == ("busy", True, "busy", "Busy Here")
    assert spec.decided[1].body == FenceStarted(attempt=1, reason=FenceReason.DIAL_FAILED)


@pytest.mark.parametrize("reason", list(Withdrawal))
def test_a_withheld_dial_is_withdrawn_and_costs_neither_dial_nor_opening(reason: Withdrawal) -> None:
    """Known not sent: it backs off and tries again."""
    spec = given(*h.dialing()).when(h.dialled(4, "withheld", withheld=reason.value))
    spec.then(DialWithdrawn(attempt=1, reason=reason), FenceStarted(attempt=1, reason=FenceReason.DIAL_WITHDRAWN))
    assert (spec.call().dials, spec.call().openings_spent, spec.call().withdrawals) == (0, 0, 1)
    spec.when(h.fenced(5)).then(FenceConfirmed).when(h.last_word(6, reason="no_callee", seen=False))
    spec.then(f.ConversationEnded, RetryScheduled(attempt=1, not_before=h.at(7), outcome=None))


def test_a_withdrawal_in_words_of_a_later_version_still_counts_as_not_sent() -> None:
    """The core is total over what its own contract lets in."""
    spec = given(*h.dialing()).when(h.dialled(4, "withheld", withheld="a later word"))
    spec.then(DialWithdrawn(attempt=1, reason=Withdrawal.NOT_SENT), FenceStarted)


def test_withdrawals_back_off_up_to_a_minute_until_the_call_expires() -> None:
    """Neither `attempts_max` nor `openings_max` ends them: `not_after` does."""
    spec, s, waits = given(h.place(not_after=h.at(1000))), 1.0, []
    for attempt in range(1, 40):
        spec.when(h.slot(s), h.room(s, attempt), h.ready(s, attempt), h.turn(s, attempt))
        spec.when(h.dialled(s, "withheld", attempt, withheld="stopped"), h.fenced(s, attempt))
        spec.when(h.last_word(s, attempt, reason="no_callee", seen=False))
        ended = spec.decided[-1].body
        if isinstance(ended, CallEnded):
            assert ended.outcome is Outcome.EXPIRED
            break
        waits.append((ended.not_before - h.at(s)).total_seconds())
        s += waits[-1]
    spec.over()
    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(waits) > 12, "more than attempts_max and openings_max"


def test_a_dial_without_outcome_is_taken_down_at_its_deadline() -> None:
    """Ring timeout, plus what a request outlives it by."""
    spec = given(*h.dialing())
    spec.when(h.tick(57.9)).then_nothing().when(h.tick(58)).then(
        FenceStarted(attempt=1, reason=FenceReason.DIAL_UNCLEAR)
    )


def test_an_unclear_dial_takes_no_leg_down() -> None:
    """The line to LiveKit broke, the phone rings on: agent, LiveKit and deadline tell what becomes of it."""
    given(*h.dialing()).when(h.dialled(8, "unclear")).then_nothing()
    spec = given(*h.ringing()).when(h.dialled(8, "unclear")).then_nothing()
    spec.when(h.status(9, "active")).then(f.CalleeStatus, CallAnswered(attempt=1)).in_phase(Phase.ANSWERED)


def test_livekits_word_on_a_leg_counts_as_the_agents() -> None:
    """A leg that another process dialed: ringing, answered, and nothing while it is `dialing`."""
    spec = given(*h.dialing()).when(h.listed(4, "dialing")).then_nothing()
    spec.when(h.listed(5, "ringing")).then(CalleeRinging(attempt=1)).when(h.listed(6, "ringing")).then_nothing()
    spec.when(h.listed(7, "active")).then(CallAnswered(attempt=1)).when(h.listed(8, "active")).then_nothing()
    given(*h.dialing()).when(h.listed(5, "active", 2)).then_nothing()
    given(*h.is_ready()).when(h.listed(5, "active")).then_nothing()


def test_an_answer_livekit_tells_of_while_the_room_is_taken_down_is_never_rung_after() -> None:
    """Promise 2, also where the agent can say nothing any more."""
    rules = h.prepared(h.REDIALS_UNKNOWN)
    spec = given(*h.ringing(rules), h.crashed(6)).when(h.listed(6.5, "active")).then(CallAnswered(attempt=1))
    spec.when(h.fenced(8)).then(FenceConfirmed, CallEnded).over()
    given(*h.is_ready(), h.cancel(3)).when(h.listed(4, "active")).then_nothing()


def test_a_phone_that_is_heard_ringing_of_late_is_given_its_time() -> None:
    """The owner reads a backlog: from the word on, the ring timeout and 10 s."""
    given(*h.ringing()).due(h.at(58))
    given(*h.dialing(), h.status(50, "ringing")).due(h.at(50 + 30 + 10))


def test_a_leg_that_is_gone_is_unknown_once_nothing_more_can_be_learned() -> None:
    """The fence is confirmed, the grace is over: and by the campaign's rule the call ends."""
    spec = given(*h.dialing()).when(h.gone(8)).then(FenceStarted(attempt=1, reason=FenceReason.DIAL_UNCLEAR))
    spec.when(h.fenced(10)).then(FenceConfirmed).due(h.at(10) + SETTLE_GRACE)
    spec.when(h.tick(20)).then(DialUnknown(attempt=1), CallEnded).over()
    assert spec.decided[-1].body.outcome is Outcome.UNKNOWN


def test_an_outcome_that_comes_while_the_room_is_taken_down_is_taken() -> None:
    """The dial's end is the only source of SIP codes, however late."""
    history = (*h.dialing(), h.tick(58), h.fenced(60))
    spec = given(*history).when(h.failed(61, 486)).then(DialFailed)
    spec.when(h.last_word(62, reason="no_callee", seen=True)).then(f.ConversationEnded, RetryScheduled)
    given(*history).when(h.dialled(61, "withheld", withheld="stale_dial")).then(DialWithdrawn)
    given(*history).when(h.dialled(61, "unclear")).then_nothing()
    given(*history).when(h.dialled(61, "answered")).then(CallAnswered)


def test_only_the_first_outcome_of_a_dial_counts() -> None:
    """Handed over in process and through observations: the second changes nothing."""
    given(*h.ringing(), h.failed(8, 486)).when(h.failed(9, 404)).then_nothing().when(
        h.dialled(9, "answered")
    ).then_nothing()


def test_an_agent_that_stayed_to_the_fence_and_saw_no_leg_proves_that_nothing_was_sent() -> None:
    """Unknown is mostly knowable: the leg joins before the INVITE goes out."""
    spec = given(*h.dialing(), h.tick(58), h.fenced(60))
    spec.when(h.last_word(61, reason="no_callee", seen=False))
    spec.then(f.ConversationEnded, DialWithdrawn(attempt=1, reason=Withdrawal.NOT_SENT), RetryScheduled)


def test_an_agent_that_says_that_it_stayed_proves_it_whenever_it_is_heard() -> None:
    """Its word counts, not the order in which it came: stayed before the fence was known here, or left amid it."""
    word = {"reason": "cancelled", "seen": False}
    spec = given(*h.dialing()).when(h.last_word(5, **word, stayed=True)).then(f.ConversationEnded, FenceStarted)
    spec.when(h.fenced(7)).then(FenceConfirmed, DialWithdrawn, RetryScheduled)
    spec = given(*h.dialing(), h.cancel(4)).when(h.last_word(5, reason="failed", seen=False, stayed=False))
    spec.when(h.fenced(7)).then(FenceConfirmed).when(h.tick(17)).then(DialUnknown, CallEnded)


@pytest.mark.parametrize(
    "word",
    [
        (h.left(36, reason="USER_UNAVAILABLE"), h.last_word(36.5, reason="callee_left", stayed=False)),
        (h.tick(58), h.last_word(58.5, reason="cancelled", stayed=True)),
    ],
    ids=["rang out", "rang on and was taken down"],
)
def test_a_phone_that_was_seen_to_ring_and_not_taken_up_was_not_answered(word: tuple[i.AnyInput, ...]) -> None:
    """Nobody heard the dial's own answer, but the agent was there to the leg's end: no answer, by the campaign's rule."""
    spec = given(*h.ringing(), *word).when(h.fenced(60)).then(FenceConfirmed)
    spec.when(h.tick(70)).then(seen_unanswered(1), RetryScheduled)
    assert spec.decided[-1].body == RetryScheduled(attempt=1, not_before=h.at(70 + 1800), outcome=Outcome.NO_ANSWER)
    assert spec.call().dials == 1


def test_what_the_carrier_says_counts_before_what_the_agent_saw() -> None:
    """The SIP status comes within the grace, and decides."""
    spec = given(*h.ringing(), h.left(9, reason="USER_UNAVAILABLE"), h.last_word(9.5, stayed=False), h.fenced(11))
    spec.when(h.failed(12, 404)).then(DialFailed, CallEnded).over()
    assert spec.decided[-1].body.outcome is Outcome.INVALID_NUMBER


@pytest.mark.parametrize(
    "words",
    [
        (h.left(9, reason="USER_REJECTED"), h.last_word(9.5, stayed=False)),
        (h.left(9, reason="USER_UNAVAILABLE"), h.delivered(9.2), h.last_word(9.5, stayed=False)),
        (h.gone(9), h.last_word(9.5, reason="cancelled", stayed=True, gap=True)),
        (h.gone(9), h.last_word(9.5, reason="cancelled")),
    ],
    ids=["busy or declined", "answered all the same", "it looked away", "an agent of a former version"],
)
def test_a_phone_whose_end_nobody_saw_is_not_called_unanswered(words: tuple[i.AnyInput, ...]) -> None:
    """LiveKit says USER_REJECTED of 486 and of 603 alike: only a SIP status tells them apart."""
    spec = given(*h.ringing(), *words, h.fenced(11)).when(h.tick(21)).over()
    assert not any(isinstance(r.body, DialFailed) for r in spec.log)


def test_a_number_that_never_rang_is_not_called_unanswered() -> None:
    """USER_UNAVAILABLE before ringing may be a number that does not exist."""
    spec = given(*h.dialing(), h.left(4, reason="USER_UNAVAILABLE"), h.last_word(5, stayed=False), h.fenced(6))
    spec.when(h.tick(16)).then(DialUnknown, CallEnded).over()


def test_an_agent_that_looked_away_proves_nothing() -> None:
    """With a gap the dial stays unknown."""
    spec = given(*h.dialing(), h.tick(58), h.fenced(60))
    spec.when(h.last_word(61, reason="no_callee", seen=False, gap=True)).then(f.ConversationEnded)
    spec.when(h.tick(70)).then(DialUnknown, CallEnded)


def test_an_agent_that_left_while_the_dial_was_out_proves_nothing() -> None:
    """It gave up waiting a moment after the INVITE was allowed: the leg may have come after it (promise 2)."""
    spec = given(*h.dialing()).when(h.last_word(4, reason="no_callee", seen=False))
    spec.then(f.ConversationEnded, FenceStarted(attempt=1, reason=FenceReason.DIAL_UNCLEAR))
    spec.when(h.fenced(6)).then(FenceConfirmed)
    spec.when(h.tick(16)).then(DialUnknown, CallEnded)


def test_a_leg_that_is_gone_before_the_outcome_is_taken_down() -> None:
    """LiveKit's word about a leg is enough to stop, never enough to know the outcome."""
    given(*h.dialing()).when(h.gone(5)).then(FenceStarted(attempt=1, reason=FenceReason.DIAL_UNCLEAR))
    given(*h.ringing()).when(h.gone(6)).then(FenceStarted(attempt=1, reason=FenceReason.CALLEE_LEFT))


def test_an_agent_lost_while_it_rings_stops_the_ringing() -> None:
    """Promise 4: crashed, or silent."""
    for lost in (h.crashed(6), h.silent(6)):
        spec = given(*h.ringing()).when(lost)
        assert [d.body for d in spec.decided[-2:]] == [
            AgentLost(attempt=1, answered=False),
            FenceStarted(attempt=1, reason=FenceReason.AGENT_LOST),
        ]


def test_a_fence_that_is_never_confirmed_ends_the_attempt_with_an_alarm() -> None:
    """No leg outlives 80 s + ring + maximum duration: `DialUnknown` with an alarm."""
    spec = given(*h.dialing(), h.tick(58)).due(h.at(3 + 80 + 30 + 600))
    spec.when(h.tick(712.9)).then_nothing()
    spec.when(h.tick(713)).then(DialUnknown(attempt=1, alarm=True), CallEnded).over()
    spec = given(*h.opening(), h.room(2, ok=False)).due(h.at(2 + 120))
    spec.when(h.tick(122)).then(RetryScheduled)


def test_a_fence_that_begins_late_is_tried_all_the_same() -> None:
    """After an outage longer than any leg: what was seen meanwhile is read before the attempt is judged."""
    spec = given(*h.answered()).when(h.tick(10_000)).then(FenceStarted).due(h.at(10_000 + 30))
    spec.when(h.delivered(10_001), h.last_word(10_001), h.fenced(10_002)).over()
    assert spec.decided[-1].body.outcome is Outcome.DELIVERED
    spec = given(*h.is_ready()).when(h.cancel(5000)).due(h.at(5000 + 120)).owing(Fence)


def test_a_fence_confirmed_twice_is_confirmed_once() -> None:
    """The second answer is news of nothing."""
    given(*h.ringing(), h.failed(8, 486), h.fenced(10)).when(h.fenced(11)).then_nothing()
