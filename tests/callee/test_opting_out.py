"""Chapter 12: a person says "stop calling me" in a call: suppressed in the step that hears of it (promise 6)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dialer.callee import inputs as i
from dialer.callee.owed import Adopt, WatchAgent
from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import (
    CallAnswered,
    CalleeSuppressed,
    CallEnded,
    CallRefused,
    CallRequested,
    FenceConfirmed,
    FenceStarted,
    SuppressionLifted,
)
from schemas.outcomes import Attribution, FenceReason, Outcome, Refusal
from tests import histories as h
from tests.spec import Spec, given

HEARD = h.opted_out(12)
ON_RECORD = CalleeSuppressed(stop_id=HEARD.id, scope="all", reason="opt_out")
DAY_S = 86_400
OPENED = set(Phase) - {Phase.REQUESTED, Phase.WAITING}


def ended(spec: Spec) -> tuple[Outcome, Attribution]:
    end = spec.decided[-1].body
    assert isinstance(end, CallEnded)
    return end.outcome, end.attribution


def test_the_talk_itself_is_left_to_its_agent() -> None:
    """It says aloud that it has understood; nobody is cut off in the middle of that."""
    spec = given(*h.answered()).when(HEARD).then(f.OptOutHeard, ON_RECORD).in_phase(Phase.ANSWERED)
    spec.owing(WatchAgent).owing_after_takeover(Adopt, WatchAgent)
    spec.when(h.last_word(16, reason="opted_out"))
    spec.then(f.ConversationEnded, FenceStarted(attempt=1, reason=FenceReason.CONVERSATION_ENDED))
    spec.when(h.fenced(18)).then(FenceConfirmed, CallEnded).over()
    assert ended(spec) == (Outcome.OPTED_OUT, Attribution.CALLEE)


def test_every_other_call_of_the_callee_is_stopped_at_once() -> None:
    """One talks, two wait: those are refused before anything can dial that number."""
    spec = given(*h.answered(), h.place(10, 2), h.place(11, 3, verdict=None)).when(HEARD)
    spec.then(f.OptOutHeard, ON_RECORD, *[CallRefused(reason=Refusal.SUPPRESSED)] * 2).owing(WatchAgent)
    spec.when(h.place(13, 4)).then(CallRequested, CallRefused(reason=Refusal.SUPPRESSED))
    assert list(spec.callee.calls) == [h.CALL]


@pytest.mark.parametrize("name", [name for name, (phase, _) in h.HISTORIES.items() if phase in OPENED])
def test_an_opt_out_suppresses_in_every_phase_and_nothing_is_asked_for_after_it(name: str) -> None:
    """Whatever became of the attempt that heard it; the call ends, and is never opened again."""
    spec = given(*h.HISTORIES[name][1])
    spec.when(h.opted_out(800))
    assert ON_RECORD in [r.body for r in spec.decided]
    assert spec.callee.suppressed == "opt_out"
    spec.when(h.crashed(801), h.crashed(801, 2), h.fenced(802), h.fenced(802, 2), h.tick(900), h.tick(5000)).over()
    assert not [r for r in spec.log if type(r.body).__name__ in {"AttemptOpened", "DialStarted"} and r.at >= h.at(800)]


def test_an_opt_out_is_the_word_of_somebody_who_answered() -> None:
    """Out of a spool it may overtake the status: the phone was taken, so it is left to talk, and never rung again."""
    for history in (h.dialing(), h.ringing()):
        spec = given(*history).when(h.opted_out(9)).then(f.OptOutHeard, CallAnswered(attempt=1), ON_RECORD)
        spec.in_phase(Phase.ANSWERED).when(h.status(9.5, "active")).then(f.CalleeStatus)
        spec.when(h.last_word(16, reason="opted_out"), h.fenced(18)).over()
        assert ended(spec) == (Outcome.OPTED_OUT, Attribution.CALLEE)


def test_an_opt_out_told_while_the_room_is_taken_down_says_what_the_call_came_to() -> None:
    """The leg's end overtakes the agent's fact."""
    spec = given(*h.answered(), h.gone(12)).when(h.opted_out(13)).then(f.OptOutHeard, ON_RECORD)
    spec.when(h.last_word(13.5, reason="callee_left"), h.fenced(14)).over()
    assert ended(spec) == (Outcome.OPTED_OUT, Attribution.CALLEE)
    spec = given(*h.ringing(), h.gone(12)).when(h.opted_out(13))
    spec.then(f.OptOutHeard, CallAnswered(attempt=1), ON_RECORD)
    spec.when(h.last_word(13.5, reason="callee_left"), h.fenced(14)).over()
    assert ended(spec) == (Outcome.OPTED_OUT, Attribution.CALLEE)


def test_an_opt_out_of_an_attempt_that_was_judged_ends_the_call_that_waits() -> None:
    """Its retry was committed; there is none."""
    spec = given(*h.unknown()).when(h.opted_out(100))
    spec.then(f.OptOutHeard, CallAnswered(attempt=1), CallEnded, ON_RECORD).over()
    waiting = given(*h.HISTORIES["waiting after busy"][1]).when(h.opted_out(100, 1))
    waiting.then(f.OptOutHeard, CallAnswered(attempt=1), CallEnded, ON_RECORD).over()


def test_an_opt_out_of_an_earlier_attempt_hangs_up_on_the_next_one() -> None:
    """It rings, or already talks: who asked not to be called is not to be called, and this call came after that."""
    for more in ((), (h.status(720, "active", 2),)):
        spec = given(*h.HISTORIES["ringing again after an unknown"][1], *more).when(h.opted_out(721, 1))
        assert ON_RECORD in [r.body for r in spec.decided]
        spec.in_phase(Phase.FENCING).when(h.last_word(722, 2), h.fenced(723, 2), h.tick(740)).over()


def test_an_opt_out_of_another_call_hangs_up_on_this_one() -> None:
    """The first call ended, its spool was shipped while the second rang."""
    second = (*h.fencing(), h.fenced(15), h.place(16, 2), h.slot(17, 2), h.room(18, 1, 2), h.ready(19, 1, 2))
    ringing = (*second, h.turn(20, 1, 2), h.status(21, "ringing", 1, 2))
    spec = given(*ringing).when(h.opted_out(22))
    spec.then(f.OptOutHeard, ON_RECORD, FenceStarted(attempt=1, reason=FenceReason.SUPPRESSED))
    assert [r.call_id for r in spec.decided] == [h.CALL, None, h.call(2)]
    spec.when(h.failed(23, 487, 1, 2), h.last_word(23.5, 1, 2), h.fenced(24, 1, 2)).over()
    assert ended(spec) == (Outcome.SUPPRESSED, Attribution.US)
    talking = given(*ringing, h.status(22, "active", 1, 2)).when(h.opted_out(23)).in_phase(Phase.FENCING)
    talking.then(f.OptOutHeard, ON_RECORD, FenceStarted(attempt=1, reason=FenceReason.SUPPRESSED))
    spec = given(*second).when(h.opted_out(22)).then(f.OptOutHeard, ON_RECORD, FenceStarted)
    spec.when(h.turn(23, 1, 2)).then_nothing()


def test_an_opt_out_before_any_dial_is_obeyed_and_not_left_to_anybody() -> None:
    """There is no talk that it could be part of."""
    for history in (h.opening(), h.gathering(), h.is_ready()):
        spec = given(*history).when(h.opted_out(9))
        spec.then(f.OptOutHeard, ON_RECORD, FenceStarted(attempt=1, reason=FenceReason.SUPPRESSED))


def test_an_older_opt_out_does_not_cut_off_the_talk_in_which_it_was_said_again() -> None:
    """The second attempt's agent acknowledges while the first one's spool is shipped."""
    again = (*h.HISTORIES["ringing again after an unknown"][1], h.status(720, "active", 2), h.opted_out(725, 2))
    given(*again).when(h.opted_out(726, 1)).then(f.OptOutHeard).in_phase(Phase.ANSWERED)


def test_an_opt_out_that_is_heard_again_adds_nothing() -> None:
    """Delivered twice, from a position that was read too early, or asked for over HTTP as well."""
    spec = given(*h.answered(), HEARD).when(HEARD).then_nothing().when(h.suppress(13)).then_nothing()
    assert spec.callee.stops_seen == (HEARD.id,)
    spec.in_phase(Phase.ANSWERED).when(h.last_word(16, reason="opted_out"), h.fenced(18)).over()
    spec.when(h.opted_out(20)).then_nothing()


def test_a_suppression_that_comes_first_hangs_up_and_the_opt_out_is_still_what_the_call_came_to() -> None:
    """The agent's own POST overtakes its fact: one suppression, by whoever was first."""
    spec = given(*h.answered(), h.suppress(12)).in_phase(Phase.FENCING).when(h.opted_out(12.5)).then(f.OptOutHeard)
    spec.when(h.last_word(13, reason="opted_out"), h.fenced(14)).over()
    assert ended(spec) == (Outcome.OPTED_OUT, Attribution.CALLEE)
    assert [r.body.reason for r in spec.log if isinstance(r.body, CalleeSuppressed)] == ["opted_out"]


def test_an_old_opt_out_does_not_come_back_after_the_person_has_opted_in() -> None:
    """Shipped again from a spool that nobody had deleted, when its number was long forgotten."""
    spec = given(*h.answered(), HEARD, h.last_word(16, reason="opted_out"), h.fenced(18))
    spec.when(h.lift(2 * DAY_S)).then(SuppressionLifted)
    spec.when(h.place(2 * DAY_S + 1, 2, verdict=Refusal.MESSAGE_EMPTY))  # an end forgets the numbers of old facts
    spec.when(h.opted_out(2 * DAY_S + 2))
    assert not [r for r in spec.decided if isinstance(r.body, CalleeSuppressed)]
    assert spec.callee.suppressed is None


def test_an_opt_out_of_an_attempt_that_never_was_is_not_believed() -> None:
    """No such room was ever opened."""
    given(*h.ringing()).when(h.opted_out(9, 2)).then_nothing()
    given().when(h.opted_out(0)).then_nothing()


def test_an_opt_out_that_nobody_remembers_the_call_of_is_dropped() -> None:
    """Beyond the horizon; until then it counts, however late."""
    spec = given(*h.fencing(), h.fenced(15))
    beyond: i.AnyInput = h.opted_out((h.MEMORY + timedelta(minutes=1)).total_seconds())
    assert spec.when(h.place(beyond.at.timestamp() - h.T0.timestamp(), 2)).when(beyond).then_nothing()
    within = given(*h.fencing(), h.fenced(15))
    within.when(h.opted_out((h.MEMORY - timedelta(minutes=1)).total_seconds())).then(f.OptOutHeard, ON_RECORD)


def test_an_agent_lost_after_the_opt_out_leaves_it_standing() -> None:
    """It died while it said goodbye."""
    spec = given(*h.answered(), HEARD).when(h.crashed(13)).in_phase(Phase.FENCING)
    spec.when(h.fenced(14)).over()
    assert ended(spec) == (Outcome.OPTED_OUT, Attribution.CALLEE)
