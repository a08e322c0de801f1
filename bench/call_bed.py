"""The network of a measurement with calls: a message that lasts, a conversation, a trunk that does not hold them back.

All calls of a wave are asked for at one moment, and the next wave comes when all have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final

import yaml

from bench import processes
from bench.bed import RUN_DIR
from bench.processes import Worker
from bench.requests import Command, place_call, stop
from rehearsal import network
from rehearsal.personas import PER_SCRIPT, SCRIPT_NAMES
from rehearsal.provision import provision
from rehearsal.supervisor import Supervisor
from rehearsal.witness import Dial, dials_of
from runtime.kafka import idempotent_producer
from schemas.topics import COMMANDS, STOPS, Topic

ROOMS: Final = 24
CALLS_PER_S: Final = 4
IDLE: Final = 4
"""Warm processes that the worker keeps."""
POLL_S: Final = 0.1
WAVE_TIMEOUT_S: Final = 120.0
SETTLE_S: Final = 1.0
WARM_TIMEOUT_S: Final = 60.0
MESSAGE: Final = (
    "Hello {first_name}, this is a message from the pharmacy at {store}. Your prescription is ready, and you can "
    "collect it on every weekday from eight in the morning to six in the evening. Please bring an identity card with "
    "you. If somebody else comes for you, that person needs a letter from you. Thank you, and have a good day."
)
"""About fifteen seconds."""
_ORIGINS: Final[Mapping[str, str]] = {
    "bench-message": "rx-refill",
    "bench-talk": "clinic",
    "bench-slow": "clinic-slow",
    "bench-timeout": "clinic-timeout",
    "bench-error": "clinic-error",
}
"""The measured campaigns, each with the rehearsal's that it is made from."""
TRIALS: Final = (
    *(("bench-talk", script) for script in ("interrupts", "stays_silent", "presses_keys", "late_hello")),
    *(("bench-talk", script) for script in ("business_greeting", "asks_for_person")),
    *(("bench-slow", "talks"), ("bench-timeout", "talks"), ("bench-error", "talks")),
)
"""What may leave a line silent: callees who do not simply answer, and agent APIs that do not."""
_AREAS: Final = ("212", "312", "415", "305", "404", "617", "206", "702", "303", "512")
_TRUNK: Final = Path(__file__).resolve().parent.parent / "rehearsal" / "trunks.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One type of call that is measured: its campaign and who picks up."""

    campaign: str
    numbers: Iterator[str]


def _listeners() -> Iterator[str]:
    """Give numbers whose phones answer after 1.5 s, say hello and listen (rehearsal/personas.py)."""
    for n in count():
        yield f"+1{_AREAS[n % 10]}{220 + n // 100}010{n // 10 % 10}"


def _acting(script: str) -> Iterator[str]:
    """Give numbers whose phones act by a script, in English."""
    first = SCRIPT_NAMES.index(script) * PER_SCRIPT
    for n in count():
        yield f"+1646{220 + n // 500}{n // PER_SCRIPT % 100:02d}{first + n % PER_SCRIPT:02d}"


class Stage:
    """A network that is up, and its worker under observation."""

    def __init__(self, laid_out: network.Network, worker: Worker, idle: int) -> None:
        self.network, self.worker, self.idle = laid_out, worker, idle
        self.one_way = Kind(campaign="bench-message", numbers=_listeners())
        acting = {script: _acting(script) for script in ("talks", *(script for _, script in TRIALS))}
        self.two_way = Kind(campaign="bench-talk", numbers=acting["talks"])
        self.trials = tuple(Kind(campaign=campaign, numbers=acting[script]) for campaign, script in TRIALS)
        self._asked = 0

    async def wave(self, kind: Kind, calls: int, *, talk_s: float | None = None) -> list[Dial]:
        """Make so many calls of a kind at once, as `ask` does."""
        return await self.ask([(kind.campaign, next(kind.numbers)) for _ in range(calls)], talk_s)

    async def ask(self, wanted: Sequence[tuple[str, str]], talk_s: float | None = None) -> list[Dial]:
        """Make calls (campaign and number) at once; returns what became of them when all have ended. Raises: TimeoutError.

        `talk_s`: all are taken back so long after the last answer, or when the first ends by itself.
        """
        known, calls = {dial.dial_id for dial in self._dials()}, len(wanted)
        first, self._asked = self._asked, self._asked + calls
        await self._send(COMMANDS, [self._command(*one, nth) for nth, one in enumerate(wanted, first)])
        async with asyncio.timeout(WAVE_TIMEOUT_S):
            if talk_s is not None:
                while self.talking() < calls and not self._ended(known):
                    await asyncio.sleep(POLL_S)
                await asyncio.sleep(talk_s)
                await self._send(STOPS, [self._taken_back(dial) for dial in self._dials() if dial.ended_at is None])
            while len(ended := self._ended(known)) < calls:
                await asyncio.sleep(POLL_S)
        return ended

    def _command(self, campaign: str, number: str, nth: int) -> Command:
        return place_call(number, f"wave-{nth}", pepper=self.network.pepper, campaign=campaign)

    def _taken_back(self, dial: Dial) -> Command:
        call_id = dial.attempt_id.rpartition("-")[0]
        return stop("cancel_call", call_id.partition("-")[0], f"enough-{call_id}", call_id=call_id)

    async def _send(self, topic: Topic, commands: Sequence[Command]) -> None:
        producer = idempotent_producer(self.network.bootstrap, "bench-calls")
        await producer.start()
        try:
            for one in commands:
                await producer.send_and_wait(topic.name, value=one.value, key=one.key, partition=one.partition)
        finally:
            await producer.stop()

    async def warm(self) -> None:
        """Wait until the worker keeps as many warm processes as it shall, and they rest. Raises: TimeoutError."""
        async with asyncio.timeout(WARM_TIMEOUT_S):
            while len(self.worker.living()) != self.idle:
                await asyncio.sleep(POLL_S)
        await asyncio.sleep(SETTLE_S)

    def talking(self) -> int:
        """Return how many calls are answered and not over."""
        return sum(dial.answered_at is not None and dial.ended_at is None for dial in self._dials())

    def job_mb(self) -> list[float]:
        """Return the memory of each job process that there is."""
        return [mb for pid in self.worker.living() if (mb := processes.pss_mb(pid)) is not None]

    def _dials(self) -> list[Dial]:
        return dials_of(self.network.carrier_dir / "witness.jsonl")

    def _ended(self, known: set[str]) -> list[Dial]:
        return [dial for dial in self._dials() if dial.ended_at is not None and dial.dial_id not in known]


@contextlib.asynccontextmanager
async def stage(idle: int = IDLE) -> AsyncIterator[Stage]:
    """Run a whole network under `run/bench/network`. Raises: NotReady, TimeoutError."""
    run_dir = (RUN_DIR / "network").resolve()
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    laid_out = network.lay_out(run_dir, provision())
    changed = {
        "DIALER_ROOMS_MAX": str(ROOMS),
        "DIALER_AGENT_IDLE_PROCESSES": str(idle),
        "DIALER_TRUNKS_FILE": str(_wide_trunk(run_dir)),
    }
    laid_out = replace(laid_out, env={**laid_out.env, **changed})
    _campaigns(run_dir / "campaigns")
    async with Supervisor(run_dir) as supervisor:
        await network.start(laid_out, supervisor)
        async with processes.watched(supervisor.pid("agent")) as worker:
            found = Stage(laid_out, worker, idle)
            await found.warm()
            yield found


def _wide_trunk(run_dir: Path) -> Path:
    """Write the rehearsal's trunks with room for many calls."""
    told = yaml.safe_load(_TRUNK.read_text())
    for trunk in told["trunks"]:
        trunk |= {"concurrency_max": ROOMS, "calls_per_s": CALLS_PER_S}
    path = run_dir / "trunks.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def _campaigns(directory: Path) -> None:
    """Write the measured campaigns beside the run's own: nothing recorded, one dial each."""
    for name, origin in _ORIGINS.items():
        told = yaml.safe_load((directory / f"{origin}.yaml").read_text())
        told |= {"id": name, "attempts_max": 1, "recording": "off"}
        told |= {"message": MESSAGE} if origin == "rx-refill" else {}
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(told))
