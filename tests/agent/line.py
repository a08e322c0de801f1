"""A worker's socket with a Kafka behind it that can be away, and a spool on a real disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from agent.reporter import Reporter
from agent.shipper import Shipper
from agent.sink import Record, SinkDown
from agent.spool import Bounds, Entry, Spool
from agent.wire import Hello
from runtime.clock import SystemClock
from schemas import values
from schemas.envelope import Envelope, decode

CALLEE = values.callee_key("+12125550123", b"pepper")
HELLO = Hello(call_id=values.call_id(CALLEE, values.request_hash("rx", "1")), attempt=2, job_id="AJ_1")
KEYS = {"k1": os.urandom(32)}


@dataclass
class Kafka:
    """A place for records that can be away, or slow."""

    records: list[Record] = field(default_factory=list)
    here: asyncio.Event = field(default_factory=asyncio.Event)
    held: set[bytes] = field(default_factory=set)
    """Keys that wait for `here`; empty: all do."""
    failures: int = 0
    tries: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, record: Record) -> None:
        self.tries += 1
        if not self.held or record.key in self.held:
            await self.here.wait()
        if self.failures:
            self.failures -= 1
            raise SinkDown("away")
        self.records.append(record)
        self.news.set()

    @property
    def seen(self) -> list[Envelope]:
        return [decode(record.value, record.headers) for record in self.records]

    @property
    def names(self) -> list[str]:
        return [record.type.split(".")[2] for record in self.seen]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                self.news.clear()
                await self.news.wait()


def spool_in(directory: Path, keys: dict[str, bytes] = KEYS, **bounds: int) -> Spool:
    """Return a spool with room for everything, but for what the bounds say."""
    limits = Bounds(
        bytes_max=bounds.get("bytes_max", 1_000_000),
        files_max=bounds.get("files_max", 100),
        age_max=timedelta(hours=bounds.get("age_max_h", 48)),
    )
    spool = Spool(directory, keys, limits, SystemClock())
    spool.prepare()
    return spool


def left_in(spool: Spool) -> list[Entry]:
    """Return all facts in the files that nobody holds, and let go of them."""
    found: list[Entry] = []
    for path in spool.left():
        if (file := spool.claim(path)) is not None:
            entries, broken = file.entries()
            assert not broken
            found += entries
            file.close()
    return found


@dataclass
class Line:
    """A parent that listens, the Kafka behind it, and the spool beside it."""

    path: str
    kafka: Kafka
    spool: Spool
    directory: Path
    shipper: Shipper

    async def job(self, hello: Hello = HELLO) -> Reporter:
        return await Reporter.connect(self.path, hello, self.spool, SystemClock())

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


@asynccontextmanager
async def listening(tmp_path: Path, **bounds: int) -> AsyncIterator[Line]:
    """Start a parent; it is closed at the end."""
    kafka, directory = Kafka(), tmp_path / "spool"
    kafka.here.set()
    spool = spool_in(directory, KEYS, **bounds)
    shipper = Shipper(kafka, spool, SystemClock())
    path = str(tmp_path / "facts")
    await shipper.start(path)
    try:
        yield Line(path, kafka, spool, directory, shipper)
    finally:
        await shipper.close(0.1)
