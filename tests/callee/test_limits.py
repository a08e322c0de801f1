"""The bounds of what one callee may cost, and the moment at which nothing is left to remember."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

from dialer.callee.state import (
    CALLS_OPEN_MAX,
    CALLS_REMEMBERED_MAX,
    STOPS_SEEN_MAX,
    Callee,
    Closed,
    Phase,
    first_sequence,
    is_forgettable,
)
from schemas.events import CallEnded, CallPrepared, CallRefused, CallRequested, Durations
from schemas.outcomes import Attribution, Outcome, Refusal
from tests import histories as h
from tests.spec import given

LIFTED = given(h.suppress(0), h.lift(1)).callee
"""Nothing is left of this callee, since second 1."""
FAR = h.at(400 * 86_400)


def test_the_bounds_of_one_callee_are_those_of_the_design() -> None:
    """Design §2: beyond 20 open or 2,000 remembered calls a request is rejected."""
    assert (CALLS_OPEN_MAX, CALLS_REMEMBERED_MAX, STOPS_SEEN_MAX) == (20, 2000, 64)


def test_a_callee_is_forgotten_an_hour_after_its_last_event() -> None:
    """To the second: a counter that begins anew must be past the old one."""
    assert not is_forgettable(LIFTED, h.at(3600.9))
    assert is_forgettable(LIFTED, h.at(3601))


def test_an_open_call_and_a_callee_nothing_is_known_of_are_never_forgotten() -> None:
    """However long ago the last event was; who never had one has no snapshot to take back."""
    assert not is_forgettable(given(h.place()).callee, FAR)
    assert not is_forgettable(Callee(callee_key=h.CALLEE), FAR)


def test_a_memory_ends_at_its_moment() -> None:
    """Of closed calls and of cancels that came ahead: at `until` it is over, a moment before it is not."""
    until, before = h.at(9000), h.at(8999.9)
    for kept in (
        replace(LIFTED, closed={"r": Closed(body_hash="b", until=until, ended_at=h.T0)}),
        replace(LIFTED, cancels={"r": until}),
    ):
        assert not is_forgettable(kept, before)
        assert is_forgettable(kept, until)


def test_a_request_at_the_very_end_of_its_memory_is_a_new_call() -> None:
    """The horizon is the first moment that is not remembered."""
    refused = Refusal.UNKNOWN_CAMPAIGN
    spec = given(h.place(verdict=refused)).when(h.place(h.MEMORY.total_seconds(), verdict=refused))
    spec.then(CallRequested, CallRefused)


def test_a_counter_begins_at_the_milliseconds_since_2026() -> None:
    """So that it grows over a tombstone; never below nothing, whatever a clock says."""
    assert first_sequence(h.T0) == 28_134_000_000
    assert first_sequence(h.T0 + timedelta(milliseconds=1)) == 28_134_000_001
    assert first_sequence(datetime(2026, 1, 1, tzinfo=UTC)) == 0
    assert first_sequence(datetime(2020, 1, 1, tzinfo=UTC)) == 0


def test_a_second_suppression_under_another_name_says_nothing_new() -> None:
    """The person is not rung already; the lift takes both back."""
    spec = given(h.suppress(0, "first")).when(h.suppress(1, "second")).then_nothing()
    spec.when(h.lift(2)).when(h.place(3)).then(CallRequested, CallPrepared)


def test_a_waiting_call_that_is_stopped_after_an_opening_ends_with_how_long_it_waited() -> None:
    """Its room was asked for, so it ends; nobody was rung."""
    spec = given(*h.opening(), h.room(2, ok=False), h.fenced(3)).when(h.cancel(3.5))
    assert spec.over().decided[-1].body == CallEnded(
        attempt=1, outcome=Outcome.CANCELLED, attribution=Attribution.US, durations=Durations(waited_s=3.5)
    )


def test_what_a_snapshot_says_of_itself_is_never_renamed() -> None:
    """Old snapshots decode for ever: their version, and each phase by its word."""
    assert given(h.place()).callee.v == 1
    assert [phase.value for phase in Phase] == [phase.name.lower() for phase in Phase]
    assert Phase.WAITING == "waiting"


def test_a_call_and_an_attempt_begin_with_nothing_known_of_them() -> None:
    """What an old snapshot does not say is taken as not having happened; a dial is taken as sent until it is known not."""
    attempt = given(*h.opening()).call().attempt
    assert attempt is not None
    known = {one.name for one in fields(attempt) if getattr(attempt, one.name)}
    assert known == {"number", "opened_at", "failed_sent"}
    call = given(h.place(verdict=None)).call()
    told = {one.name for one in fields(call) if getattr(call, one.name)}
    asked = {"call_id", "campaign_id", "to", "variables", "body_hash", "region", "zones", "priority"}
    assert told == asked | {"not_after", "remember_until", "requested_at", "phase", "due"}
