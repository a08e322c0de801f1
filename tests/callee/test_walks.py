"""Seeded walks over the core: thousands of inputs in any order, and the promises counted from the log.

`WALK_SEEDS=2000 pytest tests/callee/test_walks.py` walks further; `WALK_SEED=17` walks one again.
"""

from __future__ import annotations

import os
from functools import reduce

import pytest

from dialer.callee.evolve import evolve
from dialer.callee.state import Callee
from dialer.records import decode_snapshot, encode_snapshot
from schemas import events as e
from tests import histories as h
from tests.callee.walks import Walker

STEPS = 150
BATCH = 20
SEEDS = int(os.environ.get("WALK_SEEDS", "160"))
ONE = os.environ.get("WALK_SEED")
STARTS = [int(ONE)] if ONE else range(0, SEEDS, BATCH)


def walked(seed: int) -> Walker:
    """Walk a seed to its end; a failure names it."""
    walker = Walker(seed)
    try:
        walker.walk(STEPS)
        assert decode_snapshot(encode_snapshot(walker.callee)) == walker.callee
        walker.drain()
    except AssertionError as broken:
        raise AssertionError(f"WALK_SEED={seed}, input {len(walker.past)}: {broken}") from broken
    return walker


@pytest.mark.parametrize("start", STARTS)
def test_no_walk_breaks_a_promise(start: int) -> None:
    """One dial an attempt, one call at a time, never after an answer or a stop, one end a call."""
    for seed in range(start, start + (1 if ONE else BATCH)):
        walker = walked(seed)
        assert reduce(evolve, walker.log, Callee(callee_key=h.CALLEE)) == walker.callee


def test_a_snapshot_at_any_step_is_the_state() -> None:
    """A take-over between any two inputs goes on as if nothing had happened."""
    for seed in range(5):
        walker = Walker(seed)
        for _ in range(STEPS):
            walker.walk(1)
            walker.callee = decode_snapshot(encode_snapshot(walker.callee))
            walker.watch_dials()
        walker.drain()


def test_the_walks_reach_what_they_are_to_prove() -> None:
    """A walk that never rings, retries or stops would prove nothing."""
    met: dict[str, int] = {}
    for seed in range(40):
        for record in walked(seed).log:
            name = type(record.body).__name__
            met[name] = met.get(name, 0) + 1
    never = {d.__name__ for d in e.Decision.__args__} - set(met) - {"CalleeErased"}
    assert not never, f"never met: {never}"
    assert met["DialStarted"] > 60
    assert met["CallAnswered"] > 15
    assert met["RetryScheduled"] > 60
