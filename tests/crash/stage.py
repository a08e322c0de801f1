"""A stage for the crash matrix: one network with calls kept in flight, whose processes are struck one by one, or two at a time."""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from rehearsal import prove_group, prove_network
from rehearsal.accounts import Accounts, books, settle, unknown_of
from rehearsal.producer import Pipeline
from rehearsal.prove_calls import calls
from rehearsal.prove_flight import Flight
from rehearsal.prove_network import CAMPAIGN, Proof
from rehearsal.prove_owners import Owners
from rehearsal.provision import Provisions
from rehearsal.reader import LogReader
from rehearsal.run_env import SESSION_TIMEOUT_S
from rehearsal.supervisor import Supervisor
from rehearsal.witness import Dial, dials_of
from schemas.steps import Step
from schemas.values import callee_of, partition_of
from tests.crash.matrix import Row

CALLS_MAX = 2_000
OPEN = 30
BUSY = 12
PAUSE_S = SESSION_TIMEOUT_S + 3.0
TAKEN_S = 40.0
BACK_S = 60.0
END_S = 120.0
POLL_S = 0.02
NAMES = {"agent": "agent-1", "projections": "projections", "livekit": "livekit", "broker": "kafka"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One strike as it was done: the row so far, and the calls that it met."""

    row: Row
    process: str
    pid: int
    at: float
    calls: frozenset[str]
    partitions: frozenset[int]


@dataclass(kw_only=True)
class Stage:
    """What runs, what was struck."""

    proof: Proof
    supervisor: Supervisor
    pipeline: Pipeline
    reader: LogReader
    flight: Flight
    owners: Owners
    strikes: list[Strike] = field(default_factory=list)
    sent: int = 0
    over: bool = False

    async def send(self) -> None:
        """Keep calls in flight until it is over."""
        for request in calls(CALLS_MAX, CAMPAIGN):
            await self.reader.wait_for(lambda: self.over or self.sent - len(self.flight.ended) < OPEN, math.inf)
            if self.over:
                return
            await self.pipeline.place(request)
            self.sent += 1

    async def busy(self) -> None:
        """Wait until calls are in flight."""
        await until(lambda: self.flight.phases().total() >= BUSY, f"{BUSY} calls in flight", BACK_S)

    # -- strikes ------------------------------------------------------------------------------------------------------

    async def kill_at(self, steps: Iterable[Step], *, brought_about: bool = False) -> None:
        """Let a dialer die at each of these steps, one after another without a pause, and wait until all are back.

        All dialers are in their group before: a death amid a rebalance is two failures, and the group waits twice.
        `brought_about`: the steps are passed only when partitions change hands; each death brings the next one about, and
        the first is a plain kill.
        """
        assert await prove_group.at_rest(self.proof.base.bootstrap, self.proof.ports), "the group is not at rest"
        await self.busy()
        if brought_about:
            self.supervisor.kill(self.proof.dialers[0])
        taken = [await self._taken(step, "kill") for step in list(steps)]
        for strike in taken:
            again_s = await self.owners.owned_again(strike.partitions, strike.at, BACK_S)
            self.strikes.append(replace(strike, row=replace(strike.row, decided_again_s=again_s)))
        for name in self.proof.dialers:
            gone = {strike.pid for strike in taken if strike.process == name}
            await self.supervisor.wait_ready(name, not_pid=max(gone, default=0), timeout_s=BACK_S)

    async def pause_at(self, steps: Iterable[Step]) -> None:
        """Let a dialer stop at each of these steps, longer than the group waits, and wake up as a zombie."""
        await self.busy()
        taken: list[Strike] = []
        try:
            for step in steps:
                taken.append(await self._taken(step, "stop"))
            await asyncio.sleep(PAUSE_S)
        finally:
            for strike in taken:
                self.supervisor.kill(strike.process, signal.SIGCONT)
        self.strikes += taken
        await until(lambda: all(self.owners.partitions(name) for name in self.proof.dialers), "all own again", BACK_S)

    async def kill(self, process: str) -> None:
        """Kill another process and wait until it is back."""
        await self.busy()
        await self.supervisor.wait_ready(NAMES.get(process, process), timeout_s=BACK_S)
        strike = self._strike(process, NAMES.get(process, process), "kill", "", self._pid(NAMES.get(process, process)))
        self.supervisor.kill(strike.process)
        self.strikes.append(strike)
        await self.supervisor.wait_ready(strike.process, not_pid=strike.pid, timeout_s=BACK_S)

    async def pause(self, process: str) -> None:
        """Stop another process for as long as a dialer."""
        await self.busy()
        name = NAMES[process]
        await self.supervisor.wait_ready(name, timeout_s=BACK_S)
        self.strikes.append(self._strike(process, name, "pause", "", self._pid(name)))
        self.supervisor.kill(name, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_S)
        finally:
            self.supervisor.kill(name, signal.SIGCONT)

    async def _taken(self, step: Step, word: str) -> Strike:
        """Order it and wait until a dialer did it."""
        order = self.proof.orders / step.value
        draft = order.with_suffix(".draft")
        await asyncio.to_thread(draft.write_text, word)
        await asyncio.to_thread(draft.rename, order)
        await until(lambda: not order.exists(), f"a dialer passes {step}", TAKEN_S)
        done = self.proof.orders / "done"
        taken = max(done.glob(f"{step.value}-*"), key=lambda path: path.stat().st_ctime)
        pid = int(taken.name.removeprefix(f"{step.value}-").split("-")[0])
        name = next(event.name for event in reversed(self.supervisor.history) if event.pid == pid)
        return self._strike("dialer", name, {"kill": "kill", "stop": "pause"}[word], step.value, pid)

    def _strike(self, process: str, name: str, how: str, step: str, pid: int) -> Strike:
        partitions = self.owners.partitions(name) if process == "dialer" else frozenset()
        met = self.flight.in_flight()
        if process == "dialer":
            met = {call for call in met if partition_of(callee_of(call)) in partitions}
        row = Row(process=process, how=how, step=step, in_flight=len(met))
        return Strike(
            row=row, process=name, pid=pid, at=time.time(), calls=frozenset(met), partitions=frozenset(partitions)
        )

    def _pid(self, name: str) -> int:
        return self.supervisor.pid(name)

    # -- the end ------------------------------------------------------------------------------------------------------

    async def ended(self) -> None:
        """Let every call come to its end, and the phones with it."""
        self.over = True
        assert await self.reader.wait_for(lambda: len(self.flight.ended) >= self.sent, END_S), "calls without an end"
        ends = len(self.flight.ended)
        audited = "dialer.audit"
        assert await self.reader.wait_for(
            lambda: (
                sum(one.name in {"call_ended", "call_refused"} for one in self.reader.of(audited)) >= ends
                and all(dial.ended_at is not None for dial in self.dials())
            ),
            BACK_S,
        ), "the audit or a phone has no end"

    def dials(self) -> list[Dial]:
        return dials_of(self.proof.witness_file)

    def accounts(self) -> Accounts:
        return settle(self.pipeline.sent, self.dials(), self.reader.records, killed=True)

    def rows(self) -> list[Row]:
        """Return what was struck, with what came of the calls it met."""
        accounts = self.accounts()
        unknown = Counter(
            causes(self.strikes, unknown_of(books(self.pipeline.sent, self.dials(), self.reader.records)))
        )
        return [
            replace(
                strike.row,
                rung_twice=sum(_names(strike.calls, finding) for finding in accounts.findings if "doubled" in finding),
                lost=sum(_names(strike.calls, finding) for finding in accounts.findings if "lost" in finding),
                unknown=unknown[number],
            )
            for number, strike in enumerate(self.strikes)
        ]


def causes(strikes: Sequence[Strike], unknown: Mapping[str, datetime]) -> Iterator[int]:
    """Name, for each call that nobody can tell of, the strike that caused it: the first to meet it after its dial."""
    for call, dialed in unknown.items():
        met = (n for n, strike in enumerate(strikes) if call in strike.calls and strike.at >= dialed.timestamp())
        yield from itertools.islice(met, 1)


def _names(calls_met: frozenset[str], finding: str) -> bool:
    return any(call in finding for call in calls_met)


async def until(holds: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait for a fact."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


def in_pairs(steps: Iterable[Step]) -> Iterable[tuple[Step, ...]]:
    """Return the steps two at a time: a third dialer goes on."""
    rest = iter(steps)
    while pair := tuple(itertools.islice(rest, 2)):
        yield pair


@asynccontextmanager
async def staged(run_dir: Path, provisions: Provisions) -> AsyncIterator[Stage]:
    """Start everything, with calls on their way."""
    proof, flight = prove_network.lay_out(run_dir, provisions), Flight()
    async with Supervisor(run_dir) as supervisor:
        await prove_network.start(proof, supervisor)
        proof.orders.mkdir(exist_ok=True)
        base = proof.base
        async with (
            LogReader(base.bootstrap, flight.record) as reader,
            Pipeline(base.bootstrap, base.pepper, run_dir / "producer.jsonl") as pipeline,
        ):
            stage = Stage(
                proof=proof, supervisor=supervisor, pipeline=pipeline, reader=reader, flight=flight,
                owners=Owners(run_dir / "logs", proof.dialers),
            )  # fmt: skip
            sending = asyncio.create_task(stage.send(), name="send")
            try:
                yield stage
            finally:
                stage.over = True
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
