"""Processes to be killed: a parent whose Kafka never answers, and a job that speaks to one. `python -m tests.agent.dying`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.reporter import Reporter
from agent.shipper import Shipper
from runtime.clock import SystemClock
from schemas import facts
from tests.agent.line import HELLO, KEYS, Kafka, spool_in

ROOT = Path(__file__).parents[2]


async def parent(directory: Path, keys: dict[str, bytes]) -> None:
    """Take facts and get rid of none."""
    shipper = Shipper(Kafka(), spool_in(directory / "spool", keys), SystemClock())
    await shipper.start(str(directory / "facts"))
    print("ready", flush=True)
    await asyncio.Event().wait()


async def job(directory: Path, keys: dict[str, bytes]) -> None:
    """Say that the callee is there and wants no more calls, and wait."""
    spool = spool_in(directory / "spool", keys)
    reporter = await Reporter.connect(str(directory / "facts"), HELLO, spool, SystemClock())
    reporter.say(facts.CalleeJoined)
    reporter.say(facts.OptOutHeard, evidence="stop")
    print("ready", flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def started(part: str, directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a part until it is ready; what is left of it at the end is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.agent.dying", part, str(directory), KEYS["k1"].hex()),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    part, directory, key = sys.argv[1:]
    asyncio.run({"parent": parent, "job": job}[part](Path(directory), {"k1": bytes.fromhex(key)}))
