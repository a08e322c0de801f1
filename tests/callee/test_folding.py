"""Chapter 10: what each record of the log leaves in the state, told in records: also such as no step of today writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dialer.callee.evolve import Copied, Recorded, evolve
from dialer.callee.inputs import AnyInput
from dialer.callee.policy import FACTS_COPIED_FOR
from dialer.callee.state import Attempt, Call, Callee, Closed, Phase
from schemas import events as e
from schemas import facts as f
from schemas.outcomes import Attribution, Deferral, Outcome, Refusal, Withdrawal
from schemas.values import Sealed, request_hash
from tests import histories as h
from tests.spec import Spec, given

DAY_S = FACTS_COPIED_FOR.total_seconds()
REFUSED = Refusal.UNKNOWN_CAMPAIGN


def folded(callee: Callee, s: float, *bodies: e.Decision | Copied, call_id: str | None = h.CALL) -> Callee:
    """Fold these records, all of one moment."""
    for body in bodies:
        callee = evolve(callee, Recorded(callee.sequence + 1, h.at(s), call_id, body, "cause"))
    return callee


def attempt_of(callee: Callee) -> Attempt:
    """Return the attempt of the only open call."""
    attempt = call_of(callee).attempt
    assert attempt is not None
    return attempt


def call_of(callee: Callee) -> Call:
    """Return the only open call."""
    (call,) = callee.calls.values()
    return call


ENDINGS = {
    "delivered": (*h.fencing(), h.fenced(15)),
    "refused": (h.place(verdict=REFUSED),),
    "cancelled early": (h.cancel(0),),
    "cancelled before it came": (h.cancel(0), h.place(1)),
    "suppressed": (*h.ringing(), h.suppress(6), h.fenced(8), h.tick(18)),
    "expired": (h.place(not_after=h.at(60)), h.tick(60)),
    "suppressed and lifted": (h.suppress(0), h.lift(1)),
    "a fact after the end": (*h.fencing(), h.fenced(15), h.hung_up(20)),
    **{name: history for name, (_, history) in h.HISTORIES.items()},
}


@pytest.mark.parametrize("name", list(ENDINGS))
def test_a_callees_time_and_counter_are_those_of_its_last_record(name: str) -> None:
    """Nothing is recorded that does not move both: an owner's clock and the ids of events hang on them."""
    spec = given(*ENDINGS[name])
    assert (spec.callee.now, spec.callee.sequence) == (spec.log[-1].at, spec.log[-1].sequence)
    folding = Callee(callee_key=h.CALLEE)
    for record in spec.log:
        folding = evolve(folding, record)
        assert (folding.now, folding.sequence) == (record.at, record.sequence)


def test_a_record_without_meaning_here_counts_and_changes_nothing_else() -> None:
    """Of a later version, or of a call nobody knows: total over everything that may stand on the log."""
    before = given(*h.ringing(), h.suppress(6)).callee
    erased = folded(before, 9, e.CalleeErased(stop_id="s", reason="asked"), call_id=None)
    assert erased == replace(before, sequence=before.sequence + 1, now=h.at(9))
    known = given(*h.fencing(), h.fenced(15)).callee
    for body in (e.RoomFailed(attempt=1, code="x"), Copied(fact=h.hung_up(0).fact, source="/agent/1/AJ_1", id="1")):
        unknown = folded(known, 20, body, call_id=h.call(7))
        assert unknown == replace(known, sequence=known.sequence + 1, now=h.at(20))
    closed = folded(known, 20, e.RoomFailed(attempt=1, code="x"))
    assert closed == replace(known, sequence=known.sequence + 1, now=h.at(20))


def test_each_stop_is_remembered_by_its_id_in_the_order_it_came() -> None:
    """Whatever it stops, and whether its call is there or not: delivered again it changes nothing."""
    spec = given(*h.ringing(), h.cancel(6, name="s1"), h.cancel(7, 2, name="s2"), h.suppress(8, "s3"), h.lift(9, "s4"))
    assert spec.callee.stops_seen == ("s1", "s2", "s3", "s4")


def test_a_preparation_leaves_the_definition_the_call_is_made_by() -> None:
    """Its hash goes into the agent's brief; the variables are needed no more."""
    call = given(h.place(0, verdict=None), h.defined(1)).call()
    assert (call.campaign_hash, call.rules, call.message, call.variables) == ("h" * 32, h.RULES, h.BOX, None)
    assert call.words is None


def test_a_preparation_keeps_what_is_said_beyond_the_message() -> None:
    """Sealed apart, and as it was sealed: for the agent's brief, of every attempt."""
    words = Sealed(key="1", box="d29yZHM")
    verdict = replace(h.PREPARED, words=words)
    for history in ((h.place(0, verdict=verdict),), (h.place(0, verdict=None), h.defined(1, verdict=verdict))):
        spec = given(*history)
        assert [r.body.words for r in spec.log if isinstance(r.body, e.CallPrepared)] == [words]
        spec.when(h.slot(2), h.room(3, ok=False), h.fenced(4), h.slot(10))
        assert (spec.call().words, spec.call().openings) == (words, 2)


def test_a_deferral_moves_the_due_time_later_and_never_earlier() -> None:
    """A policy may defer a call again and again; what was promised before stands."""
    waiting = given(h.place(0, not_before=h.at(60))).callee
    later = folded(waiting, 1, e.CallDeferred(not_before=h.at(90), reason=Deferral.NOT_BEFORE))
    assert call_of(later).due == h.at(90)
    earlier = folded(later, 2, e.CallDeferred(not_before=h.at(30), reason=Deferral.NOT_BEFORE))
    assert call_of(earlier).due == h.at(90)


def test_an_unknown_dial_is_settled_and_known_by_its_number() -> None:
    """What is heard of it later may replace it; until then it is neither open nor failed otherwise."""
    callee = folded(given(*h.dialing(), h.gone(8), h.fenced(10)).callee, 20, e.DialUnknown(attempt=1))
    attempt = attempt_of(callee)
    assert (attempt.settled, attempt.failed) == (True, Outcome.UNKNOWN)
    assert call_of(callee).unknown == (1,)


def test_each_unknown_attempt_is_kept_until_it_is_heard_of() -> None:
    """News of one leaves the others as they were."""
    callee = folded(given(*h.HISTORIES["ringing again after an unknown"][1]).callee, 2000, e.DialUnknown(attempt=2))
    assert call_of(callee).unknown == (1, 2)
    for news in (
        e.CallAnswered(attempt=1),
        e.DialWithdrawn(attempt=1, reason=Withdrawal.NOT_SENT),
        e.DialFailed(
            attempt=1, sip_status=486, outcome=Outcome.BUSY, attribution=Attribution.CALLEE, rule="busy", sent=True
        ),
    ):
        assert call_of(folded(callee, 2001, news)).unknown == (2,)
    assert call_of(folded(callee, 2001, e.CallAnswered(attempt=1))).answered_before


def test_an_agent_whose_api_failed_is_marked_as_such() -> None:
    """Kept with the attempt, for who judges it."""
    spec = given(*h.answered(), h.fact(10, f.AgentApiFailed, 20, service="agent_api", code="timeout"))
    assert attempt_of(spec.callee).agent_failed


def test_what_the_agents_facts_say_stays_with_their_own_attempt() -> None:
    """A fact of the first attempt says nothing of the second."""
    second = given(*h.HISTORIES["second attempt ringing"][1])
    for late in (h.hung_up(330), h.crashed(330), h.left(330, reason="USER_UNAVAILABLE")):
        marked = attempt_of(given(*h.HISTORIES["second attempt ringing"][1]).when(late).callee)
        assert marked == attempt_of(second.callee)
    for own, name in ((h.hung_up(330, 2), "hung_up"), (h.crashed(330, 2), "agent_done")):
        assert getattr(attempt_of(given(*h.HISTORIES["second attempt ringing"][1]).when(own).callee), name)


def test_a_ring_lets_withdrawals_back_off_from_the_beginning() -> None:
    """Withdrawn three times, rung, withdrawn again: the next wait is 1 s, not 8."""
    spec, s = given(h.place()), 1.0
    for attempt in (1, 2, 3):
        spec.when(h.slot(s), h.room(s, attempt), h.ready(s, attempt), h.turn(s, attempt))
        spec.when(h.dialled(s, "withheld", attempt, withheld="stopped"), h.fenced(s, attempt))
        spec.when(h.last_word(s, attempt, seen=False))
        s += 10
    assert spec.call().withdrawals == 3
    spec.when(h.slot(s), h.room(s, 4), h.ready(s, 4), h.turn(s, 4), h.failed(s, 486, 4), h.last_word(s, 4))
    spec.when(h.fenced(s, 4))
    assert spec.call().withdrawals == 0
    s += 300
    spec.when(h.slot(s), h.room(s, 5), h.ready(s, 5), h.turn(s, 5))
    spec.when(h.dialled(s, "withheld", 5, withheld="stopped"), h.fenced(s, 5), h.last_word(s, 5, seen=False))
    assert spec.decided[-1].body == e.RetryScheduled(attempt=5, not_before=h.at(s + 1), outcome=None)


# ---- memory ----------------------------------------------------------------------------------------------------------

SOON, LATE = h.at(1000), h.at(5000)


def remembering(**until: object) -> Callee:
    """Return a callee with closed calls by name and until when each is remembered."""
    kept = {name: Closed(body_hash="b", until=moment, ended_at=h.T0) for name, moment in until.items()}
    return Callee(callee_key=h.CALLEE, sequence=1, now=h.T0, closed=kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("given_last", [h.place(1000, 2), h.cancel(1000)], ids=["with a request", "with an end"])
def test_only_what_is_beyond_its_time_is_forgotten(given_last: AnyInput) -> None:
    """With the next request, or the next end; a memory ends at its moment, not after it."""
    callee = replace(given(h.place(999)).callee, closed=remembering(first=SOON, second=LATE).closed)
    kept = Spec(callee).when(given_last).callee.closed
    assert "first" not in kept
    assert "second" in kept


def test_a_call_that_outlived_its_memory_leaves_none() -> None:
    """What is refused or ended after its `remember_until` could not be refused again either."""
    spec = given(h.place(0, remember_until=h.at(100)), h.tick(50), h.cancel(100)).over()
    assert not spec.callee.closed
    spec = given(h.place(0, remember_until=h.at(100)), h.cancel(99)).over()
    assert list(spec.callee.closed) == [request_hash(h.CAMPAIGN, "refill-1")]


def test_a_cancel_that_came_ahead_is_kept_until_its_moment() -> None:
    """The next cancel forgets those whose time has come, and no other."""
    for moment, left in ((1000, 1), (999, 2)):
        ahead = h.cancel(0, 1, "s1", remember_until=SOON)
        spec = given(ahead, h.cancel(moment, 2, "s2", remember_until=LATE))
        assert len(spec.callee.cancels) == left


def test_the_numbers_of_facts_are_kept_for_a_day_after_the_end() -> None:
    """To the second; then another call's end forgets them, and the closed call keeps its 40 bytes."""
    request = request_hash(h.CAMPAIGN, "refill-1")
    ended = (*h.fencing(), h.fenced(15))
    for after_s, kept in ((DAY_S, True), (DAY_S + 1, False)):
        spec = given(*ended).when(h.place(15 + after_s, 2, verdict=REFUSED))
        assert bool(spec.callee.closed[request].facts) is kept
        assert spec.callee.closed[request].body_hash == "body1"


def test_a_closed_calls_facts_are_marked_in_it_and_in_no_other() -> None:
    """A late fact is copied once, by its own call's memory."""
    spec = given(h.place(0, 2, verdict=REFUSED), *h.fencing(), h.fenced(15)).when(h.hung_up(20))
    assert spec.callee.closed[request_hash(h.CAMPAIGN, "refill-2")].facts == {}
    spec.then(f.CalleeHungUp).when(h.hung_up(21)).then_nothing()


def test_a_room_that_answers_while_it_is_taken_down_stays_being_taken_down() -> None:
    """Events in any order fold: the phase is not set back."""
    fencing = given(*h.opening(), h.cancel(2)).callee
    callee = folded(fencing, 3, e.RoomCreated(attempt=1, room="r", room_sid="RM_1"))
    assert call_of(callee).phase is Phase.FENCING
    assert attempt_of(callee).room_stands
    ringing = folded(given(*h.ringing(), h.cancel(6)).callee, 7, e.CalleeRinging(attempt=1))
    assert call_of(ringing).phase is Phase.FENCING
    joined = attempt_of(given(*h.is_ready()).callee)
    assert (joined.room_stands, joined.job_id, joined.ready_at) == (True, "AJ_1", h.at(2))
