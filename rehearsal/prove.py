"""Never twice, never lost, with real processes: calls in flight, processes killed and paused, and the accounts held.

    start -> calls, kept in flight -> kills and pauses by a plan -> every call's end -> accounts -> summary.json

Exit code 0 means that everything held; otherwise each thing that did not is a line. Source: issue S2, `make prove`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rehearsal import prove_network
from rehearsal.accounts import TERMINAL, settle
from rehearsal.disturbing import Disturber
from rehearsal.process_spec import NotReady, ProcessEvent, What
from rehearsal.producer import Pipeline, sent_of
from rehearsal.prove_calls import calls
from rehearsal.prove_flight import Flight
from rehearsal.prove_log import LogFile
from rehearsal.prove_network import CAMPAIGN, Proof
from rehearsal.prove_plan import plan
from rehearsal.prove_report import TERMINAL_WITHIN_S, Findings, Ran, report
from rehearsal.provision import Provisions
from rehearsal.reader import Logged, LogReader
from rehearsal.scenario import Request, Role
from rehearsal.stop_signals import cancel_on_signals
from rehearsal.supervisor import Supervisor
from rehearsal.witness import dials_of
from schemas import topics

FIGURE_MISSED: Final = 4
"""Exit code where no promise was broken: of 500 calls three unknown ones may be chance, a lost one is not."""
IN_FLIGHT_MIN: Final = 20
"""Calls in flight at each kill."""
OPEN_TARGET: Final = 30
"""Calls that are kept open, so that with those that wait for their next attempt enough are in flight."""
CALLS_FACTOR_MAX: Final = 3
"""A slow machine needs more calls to keep enough in flight until everything was struck: at most so many times as many."""
OPEN_AFTERWARDS: Final = 144
"""The same, when nothing is killed any more."""
SETTLE_TIMEOUT_S: Final = 20.0
PROGRESS_EVERY_S: Final = 4.0
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One proof."""

    run_dir: Path
    calls: int
    kills: int
    pauses: int
    seed: int


@dataclass(kw_only=True)
class Run:
    """One proof under way."""

    options: Options
    proof: Proof
    supervisor: Supervisor
    pipeline: Pipeline
    reader: LogReader
    flight: Flight
    disturber: Disturber
    began: float = field(default_factory=time.monotonic)
    sent: int = 0
    sent_all_at: float = 0.0
    disturbed: bool = False

    def open_calls(self) -> int:
        """Return how many calls were asked for and have no end yet."""
        return self.sent - len(self.flight.ended)

    async def send(self, requests: list[Request]) -> None:
        """Ask for calls, so many at a time as are to be open: as many as are asked for, more while there is more to strike."""
        for request in requests:
            if self.disturbed and self.sent >= self.options.calls:
                break
            await self._until(lambda: self.open_calls() < (OPEN_AFTERWARDS if self.disturbed else OPEN_TARGET))
            await self.pipeline.place(request)
            self.sent += 1
            if request.role is Role.REPEATED:
                await self.pipeline.repeat(request)
        self.sent_all_at = time.time()

    async def _until(self, holds: Callable[[], bool]) -> None:
        await self.reader.wait_for(holds, math.inf)

    async def disturb(self) -> None:
        """Kill and pause by the plan, then let the rest of the calls go."""
        options = self.options
        await self.disturber.run(plan(options.kills, options.pauses, options.seed))
        self.disturbed = True

    async def ended(self) -> str:
        """Wait until every call has its end; returns what is wrong where that takes too long."""
        while not self.sent_all_at or not self.disturbed or self.open_calls():
            if self.sent_all_at and self.disturbed and time.time() > self.last_cause_at() + TERMINAL_WITHIN_S:
                return f"{self.open_calls()} calls had no end {TERMINAL_WITHIN_S:g} s after the last kill"
            await asyncio.sleep(_POLL_S)
        return ""

    def last_cause_at(self) -> float:
        """Return when the last kill, or the last request if that was later, was (Unix time)."""
        return max([self.sent_all_at, *(struck.moment.at for struck in self.disturber.struck)])

    async def show(self) -> None:
        """Say where it stands, for ever."""
        while True:
            phases = ", ".join(f"{count} {phase}" for phase, count in sorted(self.flight.phases().items()))
            done, of = len(self.disturber.struck), self.options.kills + self.options.pauses
            self.say(
                f"{self.sent} of {self.options.calls} sent, {len(self.flight.ended)} ended; "
                f"in flight: {phases or 'none'}; struck {done}/{of}"
            )
            await asyncio.sleep(PROGRESS_EVERY_S)

    def say(self, text: str) -> None:
        """Print a line with the time since the beginning."""
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", flush=True)


def _kept(record: Logged) -> bool:
    """Keep what the accounts are made from: no copied facts."""
    return record.topic != topics.EVENTS.name or record.is_decision


async def prove(options: Options, provisions: Provisions) -> int:
    """Run it; returns the exit code. Every process ends with it, however it ends."""
    cancel_on_signals()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says a line for every try while the broker is dead
    shutil.rmtree(options.run_dir, ignore_errors=True)
    options.run_dir.mkdir(parents=True)
    print(f"seed {options.seed}: {options.calls} calls, {options.kills} kills, {options.pauses} pauses", flush=True)
    proof = prove_network.lay_out(options.run_dir, provisions)
    async with Supervisor(options.run_dir, _told) as supervisor:
        try:
            await prove_network.start(proof, supervisor)
        except NotReady as error:
            print(error)
            return 1
        async with _running(options, proof, supervisor) as run:
            ran = await _run(run)
    findings = report(ran)
    _print(findings, options)
    return 1 if findings.broken else FIGURE_MISSED if findings.findings else 0


def _told(event: ProcessEvent) -> None:
    if event.what in {What.GAVE_UP, What.UNREADY}:
        print(f"{event.name} {event.what} after {event.took_s:.1f} s", flush=True)


@asynccontextmanager
async def _running(options: Options, proof: Proof, supervisor: Supervisor) -> AsyncIterator[Run]:
    flight = Flight()
    list_file = options.run_dir / "producer.jsonl"
    with LogFile(options.run_dir) as log:

        def read(record: Logged) -> None:
            log.record(record)
            flight.record(record)

        async with (
            LogReader(proof.base.bootstrap, read, _kept) as reader,
            Pipeline(proof.base.bootstrap, proof.base.pepper, list_file) as pipeline,
        ):
            yield _run_of(options, proof, supervisor, pipeline, reader, flight)


def _run_of(
    options: Options, proof: Proof, supervisor: Supervisor, pipeline: Pipeline, reader: LogReader, flight: Flight
) -> Run:
    disturber = Disturber(
        proof=proof, supervisor=supervisor, flight=flight, say=lambda _: None, in_flight_min=IN_FLIGHT_MIN
    )
    run = Run(
        options=options, proof=proof, supervisor=supervisor, pipeline=pipeline, reader=reader, flight=flight,
        disturber=disturber,
    )  # fmt: skip
    disturber.say = run.say
    return run


async def _run(run: Run) -> Ran:
    requests = calls(run.options.calls * CALLS_FACTOR_MAX, CAMPAIGN)
    showing = asyncio.create_task(run.show(), name="show")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run.send(requests), name="send")
            group.create_task(run.disturb(), name="disturb")
            late = group.create_task(run.ended(), name="ends")
        last_cause_at, ends = run.last_cause_at(), dict(run.flight.ended)
        await run.reader.wait_for(lambda: _at_rest(run), SETTLE_TIMEOUT_S)
    finally:
        showing.cancel()
    dials = dials_of(run.proof.witness_file)
    sent = sent_of(run.options.run_dir / "producer.jsonl")
    return Ran(
        asked=run.sent,
        kills_asked=run.options.kills,
        pauses_asked=run.options.pauses,
        in_flight_min=IN_FLIGHT_MIN,
        struck=tuple(run.disturber.struck),
        missed=(*run.disturber.missed, *([late.result()] if late.result() else [])),
        accounts=settle(sent, dials, run.reader.records, killed=True),
        terminal_after_s=max(ends.values(), default=0.0) - last_cause_at,
        took_s=time.monotonic() - run.began,
    )


def _at_rest(run: Run) -> bool:
    """Tell whether what follows the last end is there: the audit, and phones that have hung up."""
    ends = sum(event.name in TERMINAL for event in run.reader.events)
    audited = sum(record.name in TERMINAL for record in run.reader.of(topics.AUDIT.name))
    return audited >= ends and all(dial.ended_at is not None for dial in dials_of(run.proof.witness_file))


def _print(found: Findings, options: Options) -> None:
    print()
    print(found.text)
    summary = options.run_dir / "summary.json"
    summary.write_text(json.dumps(found.summary, indent=2) + "\n")
    print(f"  {'summary':<22} {summary}; logs: {options.run_dir / 'logs'}")
    for finding in found.findings:
        print(f"  NOT HELD: {finding}")
    print("  everything held" if not found.findings else f"  {len(found.findings)} things did not hold", flush=True)
