"""A child process that dies by SIGKILL at a point a test names: `python -m tests.projections.dying WHERE …`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from projections.audit_publisher import AuditPublisher
from projections.events_log import EventsLog
from projections.runner import Runner
from projections.sqlite import SqliteStore
from projections.store import ModelName
from projections.streams import Streams
from runtime.clock import SystemClock


def die(*_: Any) -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


async def between_rows_and_positions(bootstrap: str, streams: Streams, path: str) -> None:
    """Project, and die when the rows of a batch are written and its positions are about to be."""
    clock = SystemClock()
    store = await SqliteStore.open(path)
    store.db.set_trace_callback(lambda sql: die() if sql.startswith("INSERT INTO positions") else None)
    runner = Runner(ModelName.CALL_STATUS, store, EventsLog(bootstrap, "dying", clock, streams), clock)
    await runner.start()
    await runner.run()


async def before_commit(bootstrap: str, streams: Streams, _: str) -> None:
    """Publish the audit, and die when a transaction's records are acknowledged and it is about to be committed."""
    publisher = AuditPublisher(bootstrap, SystemClock(), streams)
    await publisher.open()
    for audit in publisher._audits:
        audit._producer.commit_transaction = die
    while True:
        await publisher.step()


async def after_commit(bootstrap: str, streams: Streams, _: str) -> None:
    """Publish the audit, and die the moment the first commit is answered."""
    publisher = AuditPublisher(bootstrap, SystemClock(), streams)
    await publisher.open()
    for audit in publisher._audits:
        commit = audit._producer.commit_transaction

        async def commit_and_die(commit: Any = commit) -> None:
            await commit()
            die()

        audit._producer.commit_transaction = commit_and_die
    while True:
        await publisher.step()


WHERE = {work.__name__: work for work in (between_rows_and_positions, before_commit, after_commit)}

if __name__ == "__main__":
    where, bootstrap, events, audit, publisher, partitions, path = sys.argv[1:]
    own = Streams(events=events, audit=audit, publisher=publisher, partitions=int(partitions))
    asyncio.run(WHERE[where](bootstrap, own, path))
