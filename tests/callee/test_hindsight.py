"""Chapter 13: what is heard of an attempt after it was judged: an answer always counts, silence and noise prove nothing."""

from __future__ import annotations

import pytest

from dialer.callee.owed import AskSlot, deadline, first_deadline
from dialer.callee.policy import (
    ADOPT_GRACE,
    LIFETIME_MAX,
    OPENINGS_MAX,
    POLICY_VERSION,
    WINDOW,
    backoff,
)
from dialer.callee.state import Callee
from schemas import facts as f
from schemas.events import CallAnswered, CallEnded, Durations, FenceConfirmed
from schemas.outcomes import Attribution, Outcome
from tests import histories as h
from tests.spec import given

RINGS_AGAIN = h.HISTORIES["ringing again after an unknown"][1]
WAITS_AFTER_BUSY = (*h.ringing(), h.failed(8, 486), h.fenced(10), h.tick(20))
"""Judged without the agent's last word."""


def test_a_phone_that_rang_before_was_not_answered_before() -> None:
    """`ringing` and `hangup` of an attempt that was judged are copied, and nothing follows."""
    for word in ("ringing", "hangup"):
        given(*h.unknown()).when(h.status(30, word)).then(f.CalleeStatus)
        given(*RINGS_AGAIN).when(h.status(720, word)).then(f.CalleeStatus)


def test_a_last_word_takes_back_nothing_that_is_known() -> None:
    """Busy stays busy, whatever the agent did not see: the carrier's word was taken."""
    late = h.last_word(30, reason="cancelled", seen=False, stayed=True)
    given(*WAITS_AFTER_BUSY).when(late).then(f.ConversationEnded)


def test_a_last_word_that_saw_the_callee_proves_no_dial_unsent() -> None:
    """It stayed, it looked, and there was a leg: the dial stays unknown."""
    given(*h.unknown()).when(h.last_word(30, seen=True, stayed=True)).then(f.ConversationEnded)


def test_an_answer_of_an_earlier_attempt_is_taken_once() -> None:
    """Told by `active`, by the delivery, by the dial: one `CallAnswered`, one fence."""
    spec = given(*RINGS_AGAIN, h.status(720, "active"))
    spec.when(h.delivered(721)).then(f.NotificationDelivered).when(h.dialled(722, "answered")).then_nothing()


def test_an_earlier_answer_does_not_end_the_call_that_is_talked_on() -> None:
    """Somebody is on the phone now: the talk goes on, and the fact is on the log."""
    spec = given(*RINGS_AGAIN, h.status(720, "active", 2))
    spec.when(h.status(721, "active")).then(f.CalleeStatus)


def test_an_earlier_answer_that_comes_amid_a_fence_is_noted_and_ends_the_call() -> None:
    """The room is being taken down anyway; there is no third attempt."""
    spec = given(*RINGS_AGAIN, h.failed(720, 486, 2)).when(h.status(721, "active"))
    spec.then(f.CalleeStatus, CallAnswered(attempt=1))
    spec.when(h.last_word(722, 2), h.fenced(723, 2)).over()
    end = spec.decided[-1].body
    assert isinstance(end, CallEnded)
    assert (end.outcome, end.attribution) == (Outcome.UNKNOWN, Attribution.UNKNOWN)


def test_a_waiting_call_that_was_answered_after_all_ends_with_how_long_it_waited() -> None:
    """How long was rung or talked nobody knows."""
    spec = (
        given(*h.unknown())
        .when(h.delivered(60))
        .then(
            f.NotificationDelivered,
            CallAnswered(attempt=1),
            CallEnded(
                attempt=1,
                outcome=Outcome.UNKNOWN,
                attribution=Attribution.UNKNOWN,
                durations=Durations(waited_s=60),
            ),
        )
    )
    spec.over()


# ---- time runs out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("not_after_s", [310, 200], ids=["at its very end", "beyond it"])
def test_a_retry_at_the_end_of_a_calls_time_is_none(not_after_s: float) -> None:
    """The call ends with what the carrier said, by whose doing it was."""
    history = (h.place(not_after=h.at(not_after_s)), *h.ringing()[1:], h.failed(8, 486), h.last_word(8.5))
    end = given(*history).when(h.fenced(10)).over().decided[-1].body
    assert (end.outcome, end.attribution) == (Outcome.BUSY, Attribution.CALLEE)
    spec = given(h.place(not_after=h.at(310.1)), *history[1:]).when(h.fenced(10))
    assert not isinstance(spec.decided[-1].body, CallEnded)


@pytest.mark.parametrize("not_after_s", [713, 700], ids=["at its very end", "beyond it"])
def test_an_unknown_dial_is_not_repeated_after_the_calls_time(not_after_s: float) -> None:
    """Unknown, by nobody's doing: not expired, for it may have been rung."""
    history = (h.place(verdict=h.prepared(h.REDIALS_UNKNOWN), not_after=h.at(not_after_s)), *h.dialing()[1:])
    end = given(*history, h.gone(8), h.fenced(10)).when(h.tick(20)).over().decided[-1].body
    assert (end.outcome, end.attribution) == (Outcome.UNKNOWN, Attribution.UNKNOWN)


@pytest.mark.parametrize("not_after_s", [5.5, 5], ids=["at its very end", "beyond it"])
def test_an_opening_beyond_the_calls_time_is_none(not_after_s: float) -> None:
    """Expired, by us; with how long it waited."""
    spec = given(h.place(not_after=h.at(not_after_s)), h.slot(1), h.room(2, ok=False)).when(h.fenced(4.5))
    assert spec.over().decided[-1].body == CallEnded(
        attempt=1, outcome=Outcome.EXPIRED, attribution=Attribution.US, durations=Durations(waited_s=4.5)
    )


def test_durations_are_told_to_the_millisecond() -> None:
    """Waited, rang, talked."""
    history = (*h.is_ready(), h.turn(3.12345), h.status(9.0006, "active"), h.delivered(11), h.last_word(12.7018))
    spec = given(*history).when(h.fenced(15)).then(FenceConfirmed, CallEnded)
    assert spec.decided[-1].body.durations == Durations(waited_s=3.123, rang_s=5.877, talked_s=3.701)


# ---- whose turn it is ------------------------------------------------------------------------------------------------


def test_a_call_whose_definition_is_looked_up_holds_up_no_other() -> None:
    """The campaign service is slow for one, and the other may go."""
    spec = given(h.place(0, 1, verdict=None), h.place(1, 2))
    assert AskSlot(h.call(2), h.TRUNK, h.CAMPAIGN, 5) in _owed(spec.callee, 2)


def test_of_equal_calls_the_older_goes_first_whatever_they_are_called() -> None:
    """And of two of one moment always the same, in whatever order they came."""
    for older, newer in ((1, 2), (2, 1)):
        spec = given(h.place(0, older), h.place(1, newer))
        assert AskSlot(h.call(older), h.TRUNK, h.CAMPAIGN, 5) in _owed(spec.callee, 2)
    one, other = (given(h.place(0, a), h.place(0, b)).callee for a, b in ((1, 2), (2, 1)))
    assert _owed(one, 2) == _owed(other, 2)


def _owed(callee: Callee, s: float) -> frozenset[object]:
    from dialer.callee.owed import owed

    return frozenset(e for e in owed(callee, h.at(s)) if isinstance(e, AskSlot))


@pytest.mark.parametrize("name", ["dialing", "ringing", "answered by the agent's word"])
def test_an_overdue_phone_is_looked_for_after_a_take_over_before_it_is_ended(name: str) -> None:
    """A backlog may tell what became of it; what is not overdue keeps its deadline."""
    callee = given(*h.HISTORIES[name][1], h.place(5, 2)).callee
    late, soon = h.at(5000), h.at(10)
    assert first_deadline(callee, late) == late + ADOPT_GRACE
    assert first_deadline(callee, soon) == max(deadline(callee, soon), soon + ADOPT_GRACE)  # type: ignore[type-var]


def test_nothing_else_is_given_time_after_a_take_over() -> None:
    """A call that waits, opens or is taken down is due when it is due; where nothing is open, nothing is due."""
    for name in ("waiting", "opening", "fencing after delivery"):
        callee = given(*h.HISTORIES[name][1]).callee
        assert first_deadline(callee, h.at(50_000)) == deadline(callee, h.at(50_000)) is not None
    assert first_deadline(Callee(callee_key=h.CALLEE), h.at(0)) is None


def test_the_figures_of_the_policy_are_those_of_the_design() -> None:
    """They stand in every permit, and bound every call."""
    assert (POLICY_VERSION, WINDOW) == ("s1", "none")
    assert OPENINGS_MAX == 10
    assert (LIFETIME_MAX.total_seconds(), ADOPT_GRACE.total_seconds()) == (86_400, 5)
    spec, s = given(h.place()), 1.0
    for attempt in range(1, 11):
        spec.when(h.slot(s), h.room(s, attempt, ok=False), h.fenced(s, attempt))
        s += 60
    assert spec.over().decided[-1].body.outcome is Outcome.AGENT_UNAVAILABLE


def test_a_wait_that_costs_no_ring_doubles_from_a_second_to_a_minute() -> None:
    """Whatever is counted: none yet, and more than a machine can double."""
    waits = [backoff(times).total_seconds() for times in (0, 1, 2, 3, 6, 7, 8, 1_000_000)]
    assert waits == [1, 1, 2, 4, 32, 60, 60, 60]
