"""`python -m bench` (make bench): every figure beside its limit, interleaved in one run; a table and run/bench.json."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import bed, call_bed, conversing
from bench import cancel as cancelling
from bench.answer_to_audio import answer_to_audio
from bench.at_once import calls_at_once
from bench.child import ask_once
from bench.figure import AT_LEAST, AT_MOST, Bound, Figure, Round, show, write
from bench.latency import latency, percentile
from bench.stages import STAGES
from bench.takeover import takeover_growth
from bench.write_path import FULL, QUICK, write_path
from rehearsal.talks import SILENCE_MAX_MS

RESULTS: Final = Path("run/bench.json")
CORE_STEPS: Final = 50_000
LIVE_CALL_BYTES: Final = 4_096
GROWTH_MAX: Final = 1.3

FIGURES: Final[dict[str, tuple[str, Bound | None]]] = {
    "write_path": ("commands/s", Bound(sign=AT_LEAST, bound=0.15, of_ratio=True, goal=0.25)),
    "loop_stall_ms": ("ms p99", None),
    "loop_stall_max_ms": ("ms", None),
    "slice_max_ms": ("ms", None),
    "commit_latency_ms": ("ms p50", Bound(sign=AT_MOST, bound=10)),
    "commit_latency_p99_ms": ("ms p99", Bound(sign=AT_MOST, bound=25)),
    "cancel_p99_ms": ("ms p99", Bound(sign=AT_MOST, bound=500)),
    "core_steps": ("steps/s", Bound(sign=AT_LEAST, bound=CORE_STEPS)),
    "live_call_bytes": ("bytes", Bound(sign=AT_MOST, bound=LIVE_CALL_BYTES)),
    "answer_to_audio_ms": ("ms p50", Bound(sign=AT_MOST, bound=300)),
    "answer_to_audio_p99_ms": ("ms p99", Bound(sign=AT_MOST, bound=600)),
    "reply_ms": ("ms p50", Bound(sign=AT_MOST, bound=1_200, goal=900)),
    "reply_p95_ms": ("ms p95", None),
    **{f"reply_{part}_ms": ("ms p50", None) for part in conversing.PARTS},
    "silence_max_ms": ("ms", Bound(sign=AT_MOST, bound=SILENCE_MAX_MS, each=True)),
    "call_start_cpu_s": ("s", None),
    "one_way_start_cpu_s": ("s", None),
    "talk_minute_cpu_s": ("s", Bound(sign=AT_MOST, bound=2, of_ratio=True, goal=1.5)),
    "one_way_minute_cpu_s": ("s", Bound(sign=AT_MOST, bound=2, of_ratio=True, goal=1.5)),
    "idle_process_mb": ("MB", Bound(sign=AT_MOST, bound=35, goal=30)),
    "call_mb": ("MB", None),
    "one_way_mb": ("MB", None),
    "calls_at_once": ("calls", Bound(sign=AT_LEAST, bound=8, goal=12)),
    "one_way_at_once": ("calls", Bound(sign=AT_LEAST, bound=8, goal=12)),
    "takeover_growth": ("s", Bound(sign=AT_MOST, bound=GROWTH_MAX, of_ratio=True)),
    "takeover_100k_s": ("s", None),
}


@dataclass(slots=True)
class _Run:
    """One run: its size, and every round of every figure so far."""

    bootstrap: str
    quick: bool
    long: bool
    events: int
    console: Console
    rounds: dict[str, list[Round]] = field(default_factory=dict)

    def add(self, name: str, value: float, limit: float) -> None:
        """Keep one round."""
        self.rounds.setdefault(name, []).append(Round(value=value, limit=limit))
        self.console.print(f"  {name}: {value:,.2f} (limit {limit:,.2f})", highlight=False)

    def tell(self, line: str) -> None:
        """Say something beside the figures."""
        self.console.print(f"  {line}", highlight=False)

    def figures(self) -> list[Figure]:
        """Return what was measured, in the order of the table."""
        return [
            Figure(name=name, unit=unit, rounds=tuple(self.rounds[name]), bound=bound)
            for name, (unit, bound) in FIGURES.items()
            if name in self.rounds
        ]


async def _write_path(run: _Run, number: int) -> None:
    found, seen = await write_path(run.bootstrap, QUICK if run.quick else FULL, number)
    run.add("write_path", found.value, found.limit)
    run.add("loop_stall_ms", seen["stall_p99_ms"], 5)
    run.add("loop_stall_max_ms", seen["stall_max_ms"], 5)
    run.add("slice_max_ms", seen["callback_max_ms"], 5)
    size = QUICK if run.quick else FULL
    run.console.print(f"  write_path: {seen['cpu_s'] / size.commands * 1e6:.0f} µs of processor time a command")


async def _latency(run: _Run, number: int) -> None:
    ours, limit = await latency(run.bootstrap, 150 if run.quick else 600, number)
    run.add("commit_latency_ms", ours.p50_ms, limit.p50_ms)
    run.add("commit_latency_p99_ms", ours.p99_ms, limit.p99_ms)


async def _cancel(run: _Run, number: int) -> None:
    size = cancelling.FULL if run.long else cancelling.QUICK
    found = await cancelling.cancel(run.bootstrap, size, number)
    behind, quiet = found.p99()
    run.add("cancel_p99_ms", behind, quiet)
    run.console.print(
        f"  cancel: {found.behind_first:,} commands waiting, {found.fell} calls fell, "
        f"commit {found.commit_ms:.0f} ms, {found.rss_mib:.0f} MiB"
    )


async def _core_steps(run: _Run, number: int) -> None:
    del number
    found = await ask_once("core_steps", calls=400 if run.quick else 4_000)
    run.add("core_steps", found["steps"] / found["seconds"], CORE_STEPS)


async def _live_calls(run: _Run, number: int) -> None:
    del number
    run.add("live_call_bytes", (await ask_once("live_calls", calls=2_000))["bytes"], LIVE_CALL_BYTES)


async def _stages(run: _Run, number: int) -> None:
    if number:
        return
    found = await ask_once("stages", bootstrap=run.bootstrap, commands=1_000 if run.quick else 4_000)
    told = ", ".join(f"{name} {found[name]:.1f}" for name in STAGES)
    run.console.print(f"  stages, µs a command: {told}; together {sum(found.values()):.1f}", highlight=False)


async def _audio(run: _Run, number: int) -> None:
    del number
    delays = await answer_to_audio(9 if run.quick else 30)
    run.add("answer_to_audio_ms", percentile(delays, 0.5), 300)
    run.add("answer_to_audio_p99_ms", percentile(delays, 0.99), 600)


async def _conversations(run: _Run, number: int) -> None:
    del number
    size = conversing.QUICK if run.quick else conversing.FULL
    async with call_bed.stage() as stage:
        for name, (value, limit) in (await conversing.conversations(stage, size, run.tell)).items():
            run.add(name, value, limit)


async def _silence(run: _Run, number: int) -> None:
    del number
    async with call_bed.stage() as stage:
        run.add("silence_max_ms", await conversing.silences(stage, run.tell), SILENCE_MAX_MS)


async def _at_once(run: _Run, number: int) -> None:
    del number
    async with call_bed.stage() as stage:
        run.add("calls_at_once", await calls_at_once(stage, stage.two_way, run.tell), conversing.AT_ONCE)


async def _one_way_at_once(run: _Run, number: int) -> None:
    del number
    async with call_bed.stage() as stage:
        run.add("one_way_at_once", await calls_at_once(stage, stage.one_way, run.tell), conversing.AT_ONCE)


async def _takeover(run: _Run, number: int) -> None:
    if number or not run.long:
        return
    few, many, more = await takeover_growth(run.bootstrap, 10_000, run.events, 3, run.console.print)
    for stage in (few, many, more):
        run.console.print(f"  takeover_growth: {stage}")
    for short, grown, full in zip(sorted(few.seconds), sorted(many.seconds), sorted(more.seconds), strict=True):
        run.add("takeover_growth", grown, short)
        each = (full - grown) / (more.remembered - many.remembered)
        run.add("takeover_100k_s", each * 100_000, each * 100_000)


MEASURES: Final[dict[str, Callable[[_Run, int], Awaitable[None]]]] = {
    "write_path": _write_path,
    "stages": _stages,
    "commit_latency": _latency,
    "cancel": _cancel,
    "core_steps": _core_steps,
    "live_call_bytes": _live_calls,
    "answer_to_audio": _audio,
    "conversations": _conversations,
    "silence": _silence,
    "calls_at_once": _at_once,
    "one_way_at_once": _one_way_at_once,
    "takeover_growth": _takeover,
}
_NEED_NO_BROKER: Final = frozenset(
    {"core_steps", "live_call_bytes", "answer_to_audio", "conversations", "silence", "calls_at_once", "one_way_at_once"}
)


async def _measure(arguments: argparse.Namespace, console: Console) -> list[Figure]:
    names = [name for name in MEASURES if not arguments.only or name in arguments.only]
    run = _Run("", arguments.quick, arguments.long, arguments.events, console)

    async def rounds(chosen: list[str]) -> None:
        for number in range(arguments.rounds):
            for name in chosen:
                console.print(f"round {number + 1} of {arguments.rounds}: {name}", highlight=False)
                await MEASURES[name](run, number)
                write(run.figures(), RESULTS)  # a run that is cut short has what it measured

    if set(names) <= _NEED_NO_BROKER:
        await rounds(names)
    else:
        async with bed.broker() as run.bootstrap:
            await rounds(names)
    return run.figures()


def main() -> int:
    """Measure what was asked for; 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each figure (3)")
    parser.add_argument("--only", action="append", choices=MEASURES, metavar="NAME", help="|".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="a tenth of the size: to see that it works")
    parser.add_argument("--long", action="store_true", help="takeover_growth too, which waits for compaction")
    parser.add_argument("--events", type=int, default=1_000_000, help="takeover_growth: events of its second stage")
    console = Console(width=None if sys.stdout.isatty() else 140)
    figures = asyncio.run(_measure(parser.parse_args(), console))
    show(figures, console)
    missed = [figure.name for figure in figures if not figure.is_met()]
    if missed:
        console.print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
