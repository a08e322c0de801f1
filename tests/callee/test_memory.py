"""Chapter 9: what is remembered of requests, for how long, and how much of it."""

from __future__ import annotations

from datetime import timedelta

from dialer.callee.state import (
    CALLS_OPEN_MAX,
    CALLS_REMEMBERED_MAX,
    STOPS_SEEN_MAX,
    Callee,
    Closed,
    first_sequence,
    is_forgettable,
)
from dialer.callee.step import step
from schemas.events import CallCancelled, CallPrepared, CallRefused, CallRequested
from schemas.outcomes import Refusal
from tests import histories as h
from tests.spec import given

REFUSED = Refusal.UNKNOWN_CAMPAIGN
BEYOND = h.MEMORY.total_seconds() + 60


def test_the_same_request_again_is_the_same_call() -> None:
    """While it is open in any phase, and after it ended."""
    for _, history in h.HISTORIES.values():
        given(*history).when(h.place(500)).then_nothing()
    given(*h.fencing(), h.fenced(15)).when(h.place(500)).then_nothing().over()


def test_the_same_request_with_another_body_is_a_conflict() -> None:
    """Rejected; the call goes on as it is."""
    given(*h.ringing()).when(h.place(6, body_hash="another")).then_rejected("conflict").in_phase(h.Phase.RINGING)
    given(*h.fencing(), h.fenced(15)).when(h.place(20, body_hash="another")).then_rejected("conflict").over()


def test_a_request_beyond_the_open_calls_of_a_callee_is_too_many() -> None:
    """Twenty are open; the next is rejected, a repetition is not."""
    spec = given(*(h.place(0, n) for n in range(1, CALLS_OPEN_MAX + 1)))
    spec.when(h.place(1, CALLS_OPEN_MAX + 1)).then_rejected("too_many")
    spec.when(h.place(2, 1)).then_nothing()
    spec.when(h.cancel(3, 1)).when(h.place(4, CALLS_OPEN_MAX + 1)).then(CallRequested, CallPrepared)


def remembered(count: int, until: timedelta) -> Callee:
    """Return a callee with so many closed calls."""
    kept = {f"{n:016d}": Closed(body_hash="b", until=h.T0 + until, ended_at=h.T0) for n in range(count)}
    return Callee(callee_key=h.CALLEE, sequence=1, now=h.T0, closed=kept)


def test_a_request_beyond_the_remembered_calls_of_a_callee_is_too_many() -> None:
    """What cannot be remembered cannot be refused exactly once."""
    full = remembered(CALLS_REMEMBERED_MAX, h.MEMORY)
    assert step(full, h.place(1)).rejected == "too_many"
    assert step(remembered(CALLS_REMEMBERED_MAX - 1, h.MEMORY), h.place(1)).rejected is None


def test_calls_whose_memory_is_over_do_not_count_and_are_forgotten() -> None:
    """A full memory empties by itself: nobody is locked out for ever."""
    full = remembered(CALLS_REMEMBERED_MAX, timedelta(days=1))
    done = step(full, h.place(86_400))
    assert done.rejected is None
    assert not done.callee.closed


def test_a_request_that_comes_after_its_memory_is_a_new_call() -> None:
    """Thirty-five days later the same id means a new request."""
    spec = given(h.place(verdict=REFUSED)).when(h.place(BEYOND, verdict=REFUSED))
    spec.then(CallRequested, CallRefused(reason=REFUSED))


def test_a_request_within_its_memory_is_still_the_same() -> None:
    """A minute before the horizon."""
    given(h.place(verdict=REFUSED)).when(h.place(h.MEMORY.total_seconds() - 60)).then_nothing()


def test_another_calls_end_forgets_what_is_beyond_the_horizon() -> None:
    """The state of a callee does not grow for ever."""
    spec = given(h.place(verdict=REFUSED), h.place(BEYOND, 2, verdict=REFUSED))
    assert len(spec.callee.closed) == 1


def test_cancels_that_came_ahead_are_forgotten_after_their_time() -> None:
    """With the next one."""
    spec = given(h.cancel(0, 1, "stop-1")).when(h.cancel(BEYOND, 2, "stop-2")).then(CallCancelled)
    assert len(spec.callee.cancels) == 1


def test_a_cancel_that_was_used_is_not_kept_beside_its_call() -> None:
    """The closed call refuses the repetition by itself."""
    spec = given(h.cancel(0), h.place(1))
    assert not spec.callee.cancels
    assert len(spec.callee.closed) == 1


def test_the_memory_of_stops_is_bounded() -> None:
    """The oldest go first."""
    spec = given(*(one for n in range(100) for one in (h.suppress(n, f"s{n}"), h.lift(n, f"l{n}"))))
    assert len(spec.callee.stops_seen) == STOPS_SEEN_MAX
    assert spec.callee.stops_seen[-1] == "l99"


def test_a_suppression_is_never_forgotten() -> None:
    """Of a callee with nothing else, it stays; without it there is nothing to keep."""
    soon, late = h.at(60), h.at(40 * 86_400)
    assert not is_forgettable(given(h.suppress(0)).callee, late)
    assert not is_forgettable(given(h.suppress(0), h.lift(1)).callee, soon)
    assert is_forgettable(given(h.suppress(0), h.lift(1)).callee, late)
    for remembered in (given(h.cancel(0)).callee, given(h.place(verdict=REFUSED)).callee):
        assert not is_forgettable(remembered, h.at(7200))
        assert is_forgettable(remembered, late)


def test_a_counter_goes_on_above_what_was_forgotten() -> None:
    """Ids of events hang on it, and the log is for ever."""
    forgotten = given(h.suppress(0), h.lift(1)).callee
    assert first_sequence(h.at(3601)) > first_sequence(h.at(0)) + forgotten.sequence
    assert len(str(first_sequence(h.at(10 * 365 * 86_400)))) <= 12


def test_a_clock_that_went_backwards_does_not_take_time_back() -> None:
    """An owner's now never goes behind the callee's last event."""
    spec = given(h.place(100)).when(h.cancel(50))
    assert {d.at for d in spec.decided} == {h.at(100)}
