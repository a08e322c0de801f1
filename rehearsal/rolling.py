"""A rolling restart: three dialers told to end one after another and started again, with many phones ringing meanwhile.

A dialer that is told to end stays until the dials it sent have their answers, so nothing may become unknown. Phones that
nobody answers are rung: each rings for the whole ring timeout, and its outcome is known to the dial request alone.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rehearsal import prove_network
from rehearsal.accounts import Accounts, settle
from rehearsal.process_spec import NotReady
from rehearsal.producer import Pipeline, sent_of
from rehearsal.prove_calls import calls
from rehearsal.prove_flight import Flight
from rehearsal.prove_network import CAMPAIGN_ROWS, Proof
from rehearsal.provision import Provisions
from rehearsal.reader import LogReader
from rehearsal.scenario import Request
from rehearsal.stop_signals import cancel_on_signals
from rehearsal.supervisor import Supervisor
from rehearsal.witness import dials_of
from schemas import topics

CAMPAIGN: Final = "rolling"
RINGS_FOR_S: Final = 20
CALLS_MAX: Final = 3_000
WAITING_MAX: Final = 100
"""Calls that are open beside those that ring."""
RINGING_TIMEOUT_S: Final = 90.0
RESTART_TIMEOUT_S: Final = 120.0
END_TIMEOUT_S: Final = 120.0
PROGRESS_EVERY_S: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """One dialer's restart: how many phones rang when it was told to end, how long until it was ready again."""

    process: str
    ringing: int
    took_s: float


@dataclass(kw_only=True)
class Rolling:
    """One rolling restart under way."""

    proof: Proof
    supervisor: Supervisor
    pipeline: Pipeline
    reader: LogReader
    flight: Flight
    ringing_min: int
    restarts: list[Restart] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    sent: int = 0
    over: bool = False

    def ringing(self) -> int:
        """Return how many phones ring, by the log."""
        return self.flight.phases()["ringing"]

    async def send(self, requests: list[Request]) -> None:
        """Keep enough phones ringing until the restarts are over."""
        for request in requests:
            await self.reader.wait_for(lambda: self.over or self._wanted(), math.inf)
            if self.over:
                return
            await self.pipeline.place(request)
            self.sent += 1

    def _wanted(self) -> bool:
        return self.sent - len(self.flight.ended) < self.ringing_min + WAITING_MAX

    async def restart_all(self) -> None:
        """End and start one dialer after another, each with enough phones ringing."""
        try:
            for name in self.proof.dialers:
                await self._restart(name)
        finally:
            self.over = True

    async def _restart(self, name: str) -> None:
        if not await self.reader.wait_for(lambda: self.ringing() >= self.ringing_min, RINGING_TIMEOUT_S):
            self.findings.append(f"{name}: {self.ringing()} phones rang, {self.ringing_min} are asked for")
            return
        began, ringing = time.monotonic(), self.ringing()
        pid = self.supervisor.kill(name, signal.SIGTERM)
        print(f"{name} is told to end with {ringing} phones ringing", flush=True)
        await self.supervisor.wait_ready(name, not_pid=pid, timeout_s=RESTART_TIMEOUT_S)
        self.restarts.append(Restart(process=name, ringing=ringing, took_s=round(time.monotonic() - began, 1)))

    async def show(self) -> None:
        """Say where it stands, for ever."""
        while True:
            print(f"{self.sent} sent, {len(self.flight.ended)} ended, {dict(self.flight.phases())}", flush=True)
            await asyncio.sleep(PROGRESS_EVERY_S)


async def rolling(run_dir: Path, ringing_min: int, provisions: Provisions) -> int:
    """Run it; returns the exit code."""
    cancel_on_signals()
    _empty(run_dir)
    campaign = {**CAMPAIGN_ROWS, "id": CAMPAIGN, "attempts_max": 1, "ring_timeout_s": RINGS_FOR_S}
    proof, flight = prove_network.lay_out(run_dir, provisions, campaign), Flight()
    async with Supervisor(run_dir) as supervisor:
        try:
            await prove_network.start(proof, supervisor)
        except NotReady as error:
            print(error)
            return 1
        async with (
            LogReader(
                proof.base.bootstrap, flight.record, lambda r: r.topic != topics.EVENTS.name or r.is_decision
            ) as r,
            Pipeline(proof.base.bootstrap, proof.base.pepper, run_dir / "producer.jsonl") as pipeline,
        ):
            run = Rolling(
                proof=proof, supervisor=supervisor, pipeline=pipeline, reader=r, flight=flight, ringing_min=ringing_min
            )
            accounts = await _run(run)
    run.findings += _findings(run, accounts)
    summary = {**asdict(accounts), "restarts": [asdict(one) for one in run.restarts], "findings": run.findings}
    (run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    for one in run.restarts:
        print(f"  {one.process}: told to end with {one.ringing} phones ringing, ready again after {one.took_s} s")
    print(
        f"  {accounts.accepted} calls, {accounts.dials_by_witness} dials, {accounts.unknown} unknown, {accounts.outcomes}"
    )
    for finding in run.findings:
        print(f"  NOT HELD: {finding}")
    print("  everything held" if not run.findings else f"  {len(run.findings)} things did not hold", flush=True)
    return 1 if run.findings else 0


def _empty(run_dir: Path) -> None:
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)


async def _run(run: Rolling) -> Accounts:
    requests = calls(CALLS_MAX, CAMPAIGN, {"no_answer": 1})
    showing = asyncio.create_task(run.show(), name="show")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run.send(requests), name="send")
            group.create_task(run.restart_all(), name="restart")
        if not await run.reader.wait_for(lambda: len(run.flight.ended) >= run.sent, END_TIMEOUT_S):
            run.findings.append(f"{run.sent - len(run.flight.ended)} calls had no end after {END_TIMEOUT_S:g} s")
        audited = topics.AUDIT.name
        await run.reader.wait_for(
            lambda: sum(one.name == "call_ended" for one in run.reader.of(audited)) >= run.sent, END_TIMEOUT_S
        )
    finally:
        showing.cancel()
    sent = sent_of(run.proof.run_dir / "producer.jsonl")
    return settle(sent, dials_of(run.proof.witness_file), run.reader.records)


def _findings(run: Rolling, accounts: Accounts) -> Iterator[str]:
    yield from accounts.findings
    if accounts.unknown:
        yield f"{accounts.unknown} unknown: a restart that waits for its dials leaves none"
    if len(run.restarts) < len(run.proof.dialers):
        yield f"{len(run.restarts)} of {len(run.proof.dialers)} dialers were restarted"
