"""The crash matrix: real processes killed and paused at every named step, with calls in flight, and the accounts held.

Each strike is a row; the rows are made by two runs of one network each and judged one by one. The witness is the carrier.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehearsal.accounts import Accounts
from rehearsal.provision import Provisions
from rehearsal.run_env import SESSION_TIMEOUT_S
from schemas.steps import Step
from tests.crash import matrix
from tests.crash.matrix import Row
from tests.crash.stage import Stage, in_pairs, staged

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TAKEOVER = (Step.TAKEOVER_FENCED, Step.TAKEOVER_RESTORED, Step.TAKEOVER_RESUMED)
STEPS = tuple(step for step in Step if step not in TAKEOVER)
OTHERS = ("agent", "projections", "livekit", "broker")
UNKNOWN_PER_KILL_MAX = 2
DECIDED_AGAIN_MAX_S = SESSION_TIMEOUT_S + 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run came to."""

    rows: dict[tuple[str, str], Row]
    accounts: Accounts


async def _killed(stage: Stage) -> None:
    for step in STEPS:
        await stage.kill_at((step,))
    await stage.kill_at(TAKEOVER, brought_about=True)
    for process in OTHERS:
        await stage.kill(process)


async def _paused(stage: Stage) -> None:
    for pair in in_pairs(STEPS):
        await stage.pause_at(pair)
    for process in OTHERS:
        await stage.pause(process)


async def _run(run_dir: Path, provisions: Provisions, how: str) -> Result:
    async with staged(run_dir, provisions) as stage:
        await (_killed if how == "kill" else _paused)(stage)
        await stage.ended()
        rows = stage.rows()
        accounts = stage.accounts()
    matrix.save([row for row in rows if row.process in {"dialer", *OTHERS}])
    return Result(rows={(row.process, row.step): row for row in rows}, accounts=accounts)


@pytest.fixture(scope="module")
def kills(provisions: Provisions, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Every process killed, dialers at each step."""
    return asyncio.run(_run(tmp_path_factory.mktemp("kills"), provisions, "kill"))


@pytest.fixture(scope="module")
def pauses(provisions: Provisions, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Every process paused longer than the session timeout, dialers at each step."""
    return asyncio.run(_run(tmp_path_factory.mktemp("pauses"), provisions, "pause"))


@pytest.mark.parametrize("step", Step)
def test_a_dialer_killed_at_a_step_rings_nobody_twice(kills: Result, step: Step) -> None:
    """`kill -9` precisely there: nothing lost, at most two calls of which nobody can tell, decided again in time."""
    row = kills.rows["dialer", step.value]
    assert (row.rung_twice, row.lost) == (0, 0)
    assert row.unknown <= UNKNOWN_PER_KILL_MAX
    if step not in TAKEOVER:
        assert row.decided_again_s is not None
        assert row.decided_again_s <= DECIDED_AGAIN_MAX_S


@pytest.mark.parametrize("process", OTHERS)
def test_any_other_process_killed_rings_nobody_twice(kills: Result, process: str) -> None:
    """The agent worker, the read side, livekit-server and the broker, each with calls in flight."""
    row = kills.rows[process, ""]
    assert row.in_flight > 0
    assert (row.rung_twice, row.lost) == (0, 0)


@pytest.mark.parametrize("step", STEPS)
def test_a_zombie_that_wakes_up_at_a_step_rings_nobody_twice(pauses: Result, step: Step) -> None:
    """SIGSTOP precisely there, longer than the group waits: another owner decided meanwhile."""
    row = pauses.rows["dialer", step.value]
    assert (row.rung_twice, row.lost) == (0, 0)


@pytest.mark.parametrize("process", OTHERS)
def test_any_other_process_paused_rings_nobody_twice(pauses: Result, process: str) -> None:
    """As long as a dialer."""
    row = pauses.rows[process, ""]
    assert row.in_flight > 0
    assert (row.rung_twice, row.lost) == (0, 0)


def assert_held(result: Result) -> None:
    """Every command has its one end, every dial its committed reason, none came twice: by the carrier's own witness."""
    assert result.accounts.findings == ()
    assert (result.accounts.lost, result.accounts.doubled) == (0, 0)
    assert result.accounts.accepted == result.accounts.terminal_events > 0


def test_the_accounts_hold_where_everything_was_killed(kills: Result) -> None:
    """Of the whole run, calls that no strike met included."""
    assert_held(kills)


def test_the_accounts_hold_where_everything_was_paused(pauses: Result) -> None:
    """The same of the run with the zombies."""
    assert_held(pauses)
