"""A worker with one call, without LiveKit's dispatch and without Kafka, to be killed. `python -m tests.agent.doomed`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.protocol import agent, models

from agent.shipper import Shipper
from agent.spool import Spool
from agent.worker import CountingServer, _socket
from runtime.clock import SystemClock
from runtime.seal import BriefBox
from runtime.settings import brief_keys, read_settings
from schemas import values
from schemas.brief import Brief
from tests.agent.line import HELLO, Kafka
from tests.doubles.waiting import until

BRIEF = Brief(
    call_id=HELLO.call_id,
    attempt=HELLO.attempt,
    campaign_id="rx",
    campaign_hash="h",
    type="one_way",
    language="en-US",
    message="Hello Ann",
    callee_identity=values.callee_identity(HELLO.call_id, HELLO.attempt),
    ring_timeout_s=30,
    max_call_duration_s=60,
    data_key_id="d1",
    data_key="",
)
ROOM = values.room_name(BRIEF.call_id, BRIEF.attempt)


def assigned(sealed: str, url: str) -> RunningJobInfo:
    """Return a job as livekit-server would assign it."""
    room = models.Room(sid="RM_1", name=ROOM)
    return RunningJobInfo(
        accept_arguments=JobAcceptArguments(identity="agent-1", name="", metadata=""),
        job=agent.Job(id="AJ_1", room=room, type=agent.JobType.JT_ROOM, metadata=sealed),
        url=url,
        token="",
        worker_id="AW_1",
        fake_job=False,
    )


async def main() -> None:
    """Start the worker, give it a call, say so, and wait."""
    settings, clock = read_settings(os.environ), SystemClock()
    spool = Spool.of(settings, clock)
    spool.prepare()
    shipper = Shipper(Kafka(), spool, clock)
    async with _socket(shipper):
        server = CountingServer(settings, spool)
        started = asyncio.Event()
        server.on("worker_started", started.set)
        serving = asyncio.create_task(server.run(unregistered=True))
        await started.wait()
        sealed = BriefBox(brief_keys(settings.brief_key)).seal(BRIEF, os.urandom)
        await server._proc_pool.launch_job(assigned(sealed, settings.livekit_url))
        await until(lambda: bool(shipper._lanes))
        print("ready", flush=True)
        await serving


ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
