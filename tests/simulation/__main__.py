"""`python -m tests.simulation --seeds 2000 [--start N] [--jobs 2]`, or `--seed N [--trace]` to live through one again.

Prints progress, seeds and simulated calls per second and core, the table of named steps against faults, and the seed to
replay where an invariant was broken. Exit code 1 on a violation, an empty cell, or a row of the SIP table nobody met.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from schemas.steps import Step
from tests.simulation.faults import AT_STEPS, EXCLUDED
from tests.simulation.model import LAWS
from tests.simulation.plan import cells, sip_answers
from tests.simulation.run import Report, simulate
from tests.simulation.watch import INVARIANTS

CHUNK = 32
"""Seeds that a process lives through; it ends with them, which clears its worlds away at once."""
CHUNK_TIMEOUT_S = 600.0
"""Nobody waits longer than this for a chunk: the system may have killed its process for want of memory."""
TELLS_EVERY_S = 10.0
SHOWN_MAX = 20


@dataclass
class Sum:
    """What many seeds came to."""

    seeds: int = 0
    calls: int = 0
    faults: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    coverage: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: set[str] = field(default_factory=set)
    failed: list[Report] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.calls += report.calls
        self.faults += report.faults
        self.steps += report.steps
        self.virtual_s += report.virtual_s
        self.coverage.update(report.coverage)
        self.rows |= report.rows
        if report.violations:
            self.failed.append(report)

    def empty_cells(self) -> list[tuple[str, str]]:
        return [(step.value, kind) for step, kind in cells() if not self.coverage[step.value, kind]]

    def rows_not_met(self) -> list[str]:
        return [rule for rule, _, _ in sip_answers() if rule not in self.rows]


def live_through(seeds: Sequence[int]) -> list[Report]:
    """Simulate some seeds."""
    return [simulate(seed) for seed in seeds]


def _cpu_s() -> float:
    """Return all CPU time of this process and of those it has started and seen end."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _chunks(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(seeds), CHUNK):
        yield seeds[start : start + CHUNK]


def _results(seeds: Sequence[int], jobs: int) -> Iterator[list[Report]]:
    gc.disable()  # the children's collectors are off as well, and what is here is never looked through
    gc.freeze()
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        results = pool.imap(live_through, _chunks(seeds))
        for _ in range(0, len(seeds), CHUNK):
            yield results.next(CHUNK_TIMEOUT_S)
        pool.close()
        pool.join()


def run_many(seeds: Sequence[int], jobs: int) -> Sum:
    """Simulate many seeds on some cores, telling how far it is."""
    total, began, told, cpu_s = Sum(), time.monotonic(), time.monotonic(), _cpu_s()
    for reports in _results(seeds, jobs):
        for report in reports:
            total.add(report)
            for violation in report.violations[:3]:
                print(f"seed {report.seed}: promise {violation.promise}, {violation.invariant}: {violation.text}")
        if time.monotonic() - told > TELLS_EVERY_S:
            told = time.monotonic()
            print(
                f"{total.seeds}/{len(seeds)} seeds, {total.seeds / (told - began):.1f}/s, {len(total.failed)} failed",
                flush=True,
            )
    total.cpu_s = _cpu_s() - cpu_s
    return total


def table(coverage: Counter[tuple[str, str]]) -> Iterator[str]:
    """Draw named steps against faults."""
    steps = list(Step)
    codes = [chr(ord("A") + n) for n in range(len(steps))]
    yield "  ".join(f"{code}={step.value}" for code, step in zip(codes, steps, strict=True))
    yield f"{'fault':22}" + "".join(f"{code:>5}" for code in codes)
    for kind in AT_STEPS:
        shown = ["-" if (step, kind) in EXCLUDED else str(coverage[step.value, kind]) for step in steps]
        yield f"{kind:22}" + "".join(f"{one:>5}" for one in shown)
    for (step, kind), reason in EXCLUDED.items():
        yield f"-: {kind} at {step.value}: {reason}"


def _print_sum(total: Sum, jobs: int, *, partial: bool) -> bool:
    print("\nhow often each fault struck at each named step")
    print("\n".join(table(total.coverage)))
    print(f"\ninvariants: {len(INVARIANTS)} of the world, {len(LAWS)} of the log; {total.steps} named points passed")
    per_s = total.calls / total.cpu_s
    print(
        f"{total.seeds} seeds, {total.calls} calls, {total.faults} faults, {total.virtual_s / 3600:.1f} virtual hours; "
        f"{per_s:.0f} simulated calls/s per core ({jobs} jobs)"
    )
    empty, rows = ([], []) if partial else (total.empty_cells(), total.rows_not_met())
    for cell in empty[:SHOWN_MAX]:
        print(f"EMPTY CELL: {cell[1]} never struck at {cell[0]}")
    if rows:
        print(f"ROWS OF THE SIP TABLE NOBODY MET: {', '.join(rows)}")
    names = Counter((v.promise, v.invariant) for report in total.failed for v in report.violations)
    for (promise, invariant), count in sorted(names.items()):
        print(f"VIOLATED: promise {promise}, {invariant} ({count} times)")
    for report in total.failed[:SHOWN_MAX]:
        print(f"replay: python -m tests.simulation --seed {report.seed} --trace")
    print("FAILED" if total.failed or empty or rows else "all promises held")
    return not (total.failed or empty or rows)


def _one(seed: int, *, trace: bool) -> bool:
    report = simulate(seed, note=print if trace else None)
    for violation in report.violations:
        print(f"promise {violation.promise}, {violation.invariant}: {violation.text}")
    print(f"seed {seed}: {report.calls} calls, {report.faults} faults, {len(report.violations)} violations")
    return not report.violations


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument(
        "--partial", action="store_true", help="too few seeds to fill the table: empty cells do not fail"
    )
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # what a dead process had not begun
    if given.seed is not None:
        return 0 if _one(given.seed, trace=given.trace) else 1
    total = run_many(range(given.start, given.start + given.seeds), given.jobs)
    return 0 if _print_sum(total, given.jobs, partial=given.partial) else 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts have another order in every process: a seed must not
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
