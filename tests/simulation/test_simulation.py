"""Whole worlds, lived through: three dialers, faults at every named step, and the promises checked throughout.

The ordinary suite lives through a few seeds; `make sim` through thousands.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.simulation.faults import AT_STEPS, EXCLUDED
from tests.simulation.loop import HOST, Host, Life, SeededLoop
from tests.simulation.model import accept
from tests.simulation.plan import CALLS, DIALERS, cells, plan_of, sip_answers
from tests.simulation.process import SimClock
from tests.simulation.run import simulate

ROOT = Path(__file__).parents[2]
TRACES = Path(__file__).parent / "traces"
SEEDS_QUICK = 12
TIMEOUT_S = 300
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
"""What a process had not begun when it died is never begun."""


def _live_through(*arguments: str) -> str:
    """Run the command, which orders sets the same in every process, so that a seed that fails can be lived through again."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


def test_all_promises_hold_in_worlds_of_faults() -> None:
    """Three dialers, faults at named steps: every invariant holds after every step, and every call ends once."""
    assert "all promises held" in _live_through("--seeds", str(SEEDS_QUICK), "--partial")


@pytest.mark.parametrize("seed", range(2))
def test_a_world_is_as_rich_as_it_must_be(seed: int) -> None:
    """At least 20 calls, 3 dialers and 5 faults a seed; every named point that was armed was passed."""
    report = simulate(seed)
    assert report.calls >= 20
    assert DIALERS == 3
    assert report.faults >= 5
    assert sum(report.coverage.values()) == len(plan_of(seed).armed)


def test_the_same_seed_lives_the_same_life() -> None:
    """Trace and report are equal to the last character: any failure can be lived through again."""
    lives = []
    for _ in range(2):
        notes: list[str] = []
        lives.append((simulate(7, note=notes.append), notes))
    assert lives[0] == lives[1]
    assert len(lives[0][1]) > 1000


def test_another_seed_lives_another_life() -> None:
    """The seed is what the world hangs on."""
    first, second = [], []
    simulate(1, note=first.append)
    simulate(2, note=second.append)
    assert first != second


def test_the_plans_of_a_few_seeds_fill_the_whole_table() -> None:
    """Every fault is dealt to every named step; what cannot apply says why."""
    dealt = {(a.step, a.kind) for seed in range(60) for a in plan_of(seed).armed}
    assert dealt == set(cells())
    assert all(EXCLUDED.values())
    assert {kind for _, kind in cells()} == set(AT_STEPS)
    assert len(plan_of(0).placed) == CALLS


def test_every_row_of_the_sip_table_has_an_answer() -> None:
    """Phones and LiveKit can say whatever the table knows."""
    assert len({rule for rule, _, _ in sip_answers()}) == len(sip_answers()) > 20


async def _works(done: list[str], name: str) -> None:
    done.append(name)


def test_a_paused_process_does_nothing_and_a_dead_one_nothing_ever() -> None:
    """What was withheld runs when a process wakes; what a dead one had begun is never finished."""
    loop, done = SeededLoop(1), []
    hosts = {name: Host(name) for name in ("paused", "dead", "up")}
    hosts["paused"].life, hosts["dead"].life = Life.PAUSED, Life.DEAD
    for name, host in hosts.items():
        HOST.set(host)
        loop.create_task(_works(done, name))
    HOST.set(None)

    clock = SimClock(loop, None, random.Random(1))

    async def world() -> None:
        await clock.sleep(5)
        done.append("slept")
        loop.release(hosts["paused"])
        await clock.sleep(5)

    loop.run_until_complete(world())
    loop.close()
    assert done == ["up", "slept", "paused"]
    assert loop.time() == 10


@pytest.mark.parametrize("trace", sorted(TRACES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_log_of_a_real_run_is_accepted_by_the_model(trace: Path) -> None:
    """What real dialers wrote on a real Kafka keeps the same laws; the trace is masked."""
    records = [orjson.loads(line) for line in trace.read_bytes().splitlines()]
    assert len(records) > 100
    assert accept(records) == ()


@pytest.mark.parametrize(
    ("broken", "invariant"),
    [
        ("call_ended", "every call ends"),
        ("fence_confirmed", "a retry follows a fence"),
        ("retry_scheduled", "a further attempt follows a committed retry, not before its time"),
        ("dial_started", "a callee's sequence counts up by one"),
    ],
)
def test_a_log_that_lacks_a_record_is_not_accepted(broken: str, invariant: str) -> None:
    """The model tells what is wrong with a log that was tampered with."""
    records = [orjson.loads(line) for trace in TRACES.glob("*.jsonl") for line in trace.read_bytes().splitlines()]
    assert records
    found = accept(r for r in records if not r["type"].startswith(f"dialer.event.{broken}."))
    assert invariant in {violation.invariant for violation in found}
