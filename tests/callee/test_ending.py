"""Chapter 8: every call ends in exactly one terminal event, and what is kept of it afterwards."""

from __future__ import annotations

import pytest

from dialer.callee.policy import FACTS_COPIED_FOR
from dialer.callee.state import Closed, Phase
from dialer.callee.witnessed import has_fact
from schemas import facts as f
from schemas.values import request_hash
from tests import histories as h
from tests.spec import Spec, given

REQUEST = request_hash(h.CAMPAIGN, "refill-1")
ENDED = (*h.fencing(), h.fenced(15))


def test_of_an_ended_call_only_what_refuses_its_repetition_is_kept() -> None:
    """Hash of its body, until when, and which facts are on the log."""
    spec = given(*ENDED).over()
    kept = spec.callee.closed[REQUEST]
    assert isinstance(kept, Closed)
    assert (kept.body_hash, kept.until, kept.ended_at) == ("body1", h.T0 + h.MEMORY, h.at(15))


@pytest.mark.parametrize(("name", "phase"), [(n, p) for n, (p, _) in h.HISTORIES.items()])
def test_a_call_left_alone_ends_by_its_deadlines_in_every_phase(name: str, phase: Phase) -> None:
    """No agent, no LiveKit, no carrier ever answers again: each deadline moves it on, and it ends once."""
    spec = given(*h.HISTORIES[name][1])
    drain(spec)
    spec.over()


def drain(spec: Spec) -> None:
    """Let deadlines pass until nothing is due."""
    from dialer.callee.owed import deadline

    for _ in range(50):
        due = deadline(spec.callee, spec.now)
        if due is None:
            return
        spec.when(h.tick((due - h.T0).total_seconds()))
    raise AssertionError(f"never ends: {spec.callee}")


def test_nothing_about_its_fate_follows_the_end() -> None:
    """Outcomes, fences, slots, definitions: none has a meaning any more."""
    spec = given(*ENDED)
    for late in (h.failed(20, 486), h.fenced(20), h.slot(20), h.defined(20), h.turn(20), h.room(20), h.gone(20)):
        spec.when(late).then_nothing()
    spec.when(h.silent(20), h.tick(10_000), h.cancel(20)).then_nothing().over()


def test_a_late_fact_is_copied_for_a_day_and_once() -> None:
    """Recordings end after calls; the fold keeps count in the closed call."""
    spec = given(*ENDED).when(h.hung_up(3600)).then(f.CalleeHungUp)
    assert has_fact(spec.callee.closed[REQUEST].facts, h.hung_up(0).fact)
    spec.when(h.hung_up(3601)).then_nothing()
    late = 15 + FACTS_COPIED_FOR.total_seconds()
    spec.when(h.left(late)).then(f.CalleeLeft).when(h.crashed(late + 1)).then_nothing()


def test_a_fact_of_a_call_nobody_knows_is_dropped() -> None:
    """It belongs to a call beyond the horizon, or to none."""
    given().when(h.delivered(0)).then_nothing()


def test_facts_are_told_apart_by_job_and_number_beyond_any_integers_width() -> None:
    """The bitmap takes any number in any order, and survives the snapshot (JSON's integers end at 64 bits)."""
    from dialer.records import decode_snapshot, encode_snapshot

    spec = given(*h.answered())
    for n in (200, 64, 63, 65, 5000):
        spec.when(h.fact(10, f.CalleeHungUp, n, spoken_ms=1)).then(f.CalleeHungUp)
        spec.when(h.fact(10, f.CalleeHungUp, n, spoken_ms=1)).then_nothing()
    spec.when(h.fact(10, f.CalleeHungUp, 64, job="AJ_other", spoken_ms=1)).then(f.CalleeHungUp)
    assert decode_snapshot(encode_snapshot(spec.callee)) == spec.callee
