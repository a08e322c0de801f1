"""Chapter 12: how each call ends: its outcome, and whose doing it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dialer.callee import inputs as i
from dialer.callee.policy import OPENINGS_MAX
from schemas.events import CallEnded, DialFailed, DialUnknown, DialWithdrawn, RetryScheduled
from schemas.outcomes import Attribution, Outcome
from tests import histories as h
from tests.spec import Spec, given

ONCE = h.prepared(replace(h.RULES, attempts_max=1))
ONCE_OR_UNKNOWN = h.prepared(replace(h.REDIALS_UNKNOWN, attempts_max=1))


def ended(spec: Spec) -> tuple[Outcome, Attribution]:
    """Return how the only call ended, whose doing that was."""
    end = spec.over().log[-1].body
    assert isinstance(end, CallEnded)
    return end.outcome, end.attribution


def taken_down(*history: i.AnyInput) -> Spec:
    """Return a call after this history, with its room gone and all time passed."""
    return given(*history).when(h.fenced(100), h.tick(111))


BY_US = Attribution.US


@pytest.mark.parametrize(
    ("history", "outcome"),
    [
        ((*h.is_ready(), h.cancel(3)), Outcome.CANCELLED),
        ((*h.ringing(), h.cancel(6)), Outcome.CANCELLED),
        ((*h.answered(), h.cancel(11)), Outcome.CANCELLED),
        ((*h.ringing(), h.crashed(6), h.cancel(7)), Outcome.CANCELLED),
        ((*h.answered(), h.crashed(11), h.cancel(12)), Outcome.CANCELLED),
        ((*h.is_ready(), h.suppress(3)), Outcome.SUPPRESSED),
        ((*h.ringing(), h.suppress(6)), Outcome.SUPPRESSED),
        ((*h.answered(), h.suppress(11)), Outcome.SUPPRESSED),
        ((*h.ringing(), h.crashed(6), h.suppress(7)), Outcome.SUPPRESSED),
        ((h.place(not_after=h.at(20)), h.slot(1), h.room(2), h.tick(20)), Outcome.EXPIRED),
    ],
)
def test_what_we_stopped_ended_by_our_doing(history: tuple[i.AnyInput, ...], outcome: Outcome) -> None:
    """In every phase, answered or not, and where the stop came while the room was taken down for another reason."""
    assert ended(taken_down(*history)) == (outcome, BY_US)


def test_a_call_that_expires_in_its_last_opening_has_expired() -> None:
    """Ten openings, and in the tenth its time is over: that is no fault of the agents."""
    spec, s = given(h.place(not_after=h.at(1000))), 1.0
    for attempt in range(1, OPENINGS_MAX):
        spec.when(h.slot(s), h.room(s, attempt, ok=False), h.fenced(s, attempt))
        s += 60
    spec.when(h.slot(990), h.room(991, OPENINGS_MAX), h.tick(1000), h.fenced(1002, OPENINGS_MAX))
    assert ended(spec) == (Outcome.EXPIRED, BY_US)


def test_an_agent_lost_at_the_last_ring_is_our_doing() -> None:
    """No dial is left: the call ends with what it came to."""
    assert ended(taken_down(*h.ringing(ONCE), h.crashed(6), h.failed(7, 487))) == (Outcome.AGENT_LOST, BY_US)


def test_a_last_ring_that_nobody_took_up_is_the_callees() -> None:
    """Seen by the agent, told by nobody else."""
    rang_out = (h.left(36, reason="USER_UNAVAILABLE"), h.last_word(36.5, stayed=False))
    assert ended(taken_down(*h.ringing(ONCE), *rang_out)) == (Outcome.NO_ANSWER, Attribution.CALLEE)


def test_what_nobody_knows_is_nobodys_doing() -> None:
    """Unknown, by unknown: without a rule, and with one that has no dial left."""
    for verdict in (h.PREPARED, ONCE_OR_UNKNOWN):
        assert ended(taken_down(*h.dialing(verdict), h.gone(8))) == (Outcome.UNKNOWN, Attribution.UNKNOWN)


def test_an_answer_of_an_earlier_attempt_leaves_unknown_how_it_went_on() -> None:
    """The next attempt is taken down; what was said on the first nobody knows."""
    rules = h.prepared(h.REDIALS_UNKNOWN)
    spec = given(*h.dialing(rules), h.gone(8), h.fenced(10), h.tick(20), h.slot(714), h.room(715, 2))
    spec.when(h.delivered(716), h.fenced(718, 2), h.tick(730))
    assert ended(spec) == (Outcome.UNKNOWN, Attribution.UNKNOWN)


@pytest.mark.parametrize(
    "words",
    [
        (h.last_word(60, reason="no_callee", seen=False, stayed=True),),
        (h.left(59, reason="USER_UNAVAILABLE"), h.last_word(60, stayed=False)),
    ],
    ids=["saw no leg", "saw nobody take it"],
)
def test_a_fence_that_is_never_confirmed_is_an_alarm_whatever_the_agent_saw(words: tuple[i.AnyInput, ...]) -> None:
    """Where the room may stand, a leg may come after the agent's word: nothing is known (promise 2)."""
    spec = given(*h.ringing(), h.tick(58), *words).when(h.tick(713))
    assert DialUnknown(attempt=1, alarm=True) in [d.body for d in spec.decided]
    assert ended(spec) == (Outcome.UNKNOWN, Attribution.UNKNOWN)


def test_a_possible_duplicate_stays_unknown_though_nobody_was_seen_to_take_it() -> None:
    """482 says that the carrier has this call twice: what the agent saw of one leg says nothing of the other."""
    spec = given(*h.ringing(), h.failed(8, 482), h.left(8.1, reason="USER_UNAVAILABLE"), h.last_word(8.5, stayed=False))
    spec.when(h.fenced(10), h.tick(20))
    assert DialUnknown(attempt=1) in [r.body for r in spec.log]
    assert sum(isinstance(r.body, DialFailed) for r in spec.log) == 1


def test_dials_that_the_witness_knows_unsent_back_off_like_those_the_gate_withheld() -> None:
    """1 s, 2 s, 4 s: the process that should have sent them is gone each time."""
    spec, s, waits = given(h.place()), 1.0, []
    for attempt in (1, 2, 3):
        spec.when(h.slot(s), h.room(s, attempt), h.ready(s, attempt), h.turn(s, attempt), h.tick(s + 60))
        spec.when(h.last_word(s + 61, attempt, seen=False), h.fenced(s + 62, attempt))
        assert isinstance(spec.log[-2].body, DialWithdrawn)
        retry = spec.log[-1].body
        assert isinstance(retry, RetryScheduled)
        waits.append((retry.not_before - h.at(s + 62)).total_seconds())
        s += 100
    assert waits == [1, 2, 4]
    assert spec.call().dials == 0
