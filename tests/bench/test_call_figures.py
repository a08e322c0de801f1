"""What calls cost and wait for: read from /proc, counted by hand, split as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bench.conversing import PARTS, Turns, cost_of, split
from bench.processes import Worker, group, pss_mb
from rehearsal.witness import Dial

_TREE = """
import os, sys, time
for depth in range(2):
    if os.fork():
        break
else:
    print("up", flush=True)
    while True:
        sum(range(10_000))
time.sleep(60)
"""
"""A parent, its fork server and one job that burns."""


@pytest.fixture
def tree() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", _TREE], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


def test_a_worker_is_told_from_its_jobs_and_their_time_is_the_kernels(tree: int) -> None:
    """The grandchild is the job, and what it burns is its own and not the worker's."""
    worker, deadline = Worker(tree), time.monotonic() + 20
    worker.look()
    began = time.time()
    (job,) = worker.jobs
    while worker.used_s(job, began, time.time()) < 0.2:
        assert time.monotonic() < deadline, "nothing was counted"
        worker.look()
    assert worker.shared_s(began, time.time()) < 0.1
    assert len(group(tree)) == 3
    assert worker.living() == [job]
    assert (pss_mb(job) or 0.0) > 0.5
    assert pss_mb(2**22 + 1) is None


def test_what_calls_cost_is_counted_by_their_stages() -> None:
    """Two calls of ten seconds: a job of each, a parent, and samples made by hand."""

    def at(seconds: float) -> datetime:
        return datetime.fromtimestamp(1_000 + seconds, UTC)

    def dial(name: str) -> Dial:
        who: dict[str, Any] = {"attempt_id": name, "number": "", "room": "", "identity": "", "persona": ""}
        return Dial(dial_id=name, invite_at=at(2), answered_at=at(4), ended_at=at(14), **who)

    samples = {1: [0.0, 0.0, 0.2, 0.4, 1.4], 2: [0.0, 0.1, 0.3, 0.4, 1.4], 3: [0.0, 0.1, 0.3, 0.4, 2.4]}
    worker = Worker(
        1,
        _times={pid: [1_000.0, 1_001.0, 1_002.0, 1_004.0, 1_014.0] for pid in samples},
        _cpu=samples,
        jobs={2, 3},
    )
    cost = cost_of(worker, [(2, dial("a")), (3, dial("b"))], 1_001.0, [30.0, 40.0, 50.0])
    assert cost.born_cpu_s == pytest.approx(0.1)
    assert cost.start_cpu_s == pytest.approx(0.3 + 0.4 / 2)
    assert cost.ring_cpu_s == pytest.approx(0.1)
    assert cost.talk_minute_cpu_s == pytest.approx(60 * (0.15 + 1.0 / 2 / 10))
    assert cost.call_mb == pytest.approx(45)


def test_a_reply_is_split_into_what_it_waited_for() -> None:
    """The parts add up to the whole; what nobody accounts for is the network's."""
    turns = Turns()
    told = {"heard_ms": 600, "turn_ms": 2, "api_ms": 10, "sentence_ms": 1, "speech_ms": 50, "play_ms": 2}
    split(turns, 800.0, told)
    assert turns.reply == [800.0]
    assert {part: turns.parts[part][0] for part in PARTS} == {
        "endpointing": 540,
        "final": 122,
        "llm": 11,
        "tts": 50,
        "network": 77,
    }
