"""The parent's side: takes the facts of all jobs of a worker and ships them, and tells when a job is gone.

Each job has a lane of its own, in order; lanes do not wait for each other. What an earlier worker left in the spool is
shipped beside them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from agent.lane import RETRY_MAX_S, RETRY_MIN_S, Lane
from agent.sink import Record, Sink, SinkDown, record_of
from agent.spool import Spool, SpoolFile, SpoolUnreadable
from agent.wire import LINE_BYTES_MAX, Told, ack_line, read_hello, read_line
from runtime.clock import Clock
from runtime.logs import Log
from runtime.metrics import ALARMS, BOUND, FILL

LANES_MAX: Final = 1_000
SWEEP_EVERY_S: Final = 2.0
"""How often a worker looks for files that nobody holds any more."""
FILE_TIMEOUT_S: Final = 30.0
"""How long one file may hold up the next: its partition may be away alone."""

log = Log("agent.shipper")


class Shipper:
    """The socket's server. `start`, hand its path to the jobs, `close`."""

    def __init__(self, sink: Sink, spool: Spool, clock: Clock) -> None:
        self._sink, self._spool, self._clock = sink, spool, clock
        self._lanes: set[Lane] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        BOUND.labels("agent_lanes").set(LANES_MAX)
        FILL.labels("agent_lanes").set_function(lambda: len(self._lanes))
        FILL.labels("agent_facts").set_function(lambda: sum(lane.waiting for lane in self._lanes))

    async def start(self, path: str) -> None:
        """Listen on a Unix socket in a directory that only this user may enter."""
        self._server = await asyncio.start_unix_server(self._accept, path, limit=LINE_BYTES_MAX)

    async def close(self, timeout_s: float) -> int:
        """Take no more jobs, wait for the facts of those that are here, write to disk what Kafka does not take in time.

        Returns: how many facts are on neither, and lost.
        """
        if self._server is not None:
            self._server.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=timeout_s)
        lanes = list(self._lanes)
        await asyncio.gather(*(lane.save() for lane in lanes))
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        lost = sum(lane.unsafe for lane in lanes)
        if lost:
            log.alarm("facts were lost", facts=lost)
            ALARMS.labels("facts_lost").inc(lost)
        return lost

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= LANES_MAX:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="lane")
        self._serving.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.crash("a lane failed", error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await _line(reader)
        if not first:
            writer.close()
            return

        def safe(number: int) -> None:
            if not writer.is_closing():
                writer.write(ack_line(number))

        lane = Lane(read_hello(first), self._sink, self._spool, self._clock, safe)
        self._lanes.add(lane)
        shipping = asyncio.create_task(lane.ship(), name="ship")
        try:
            await lane.end(goodbye=await _take(reader, lane))
            await shipping
        finally:
            shipping.cancel()
            lane.leave()
            self._lanes.discard(lane)
            writer.close()


class Sweeper:
    """Ships the files whose writers are gone: workers that died, and jobs whose worker died before them."""

    def __init__(self, sink: Sink, spool: Spool, clock: Clock) -> None:
        self._sink, self._spool, self._clock = sink, spool, clock
        self._unreadable: set[Path] = set()

    async def run(self) -> None:
        """Sweep for ever, one file at a time."""
        while True:
            await self.sweep()
            await self._clock.sleep(SWEEP_EVERY_S)

    async def sweep(self) -> None:
        """Ship and delete each file that can be had."""
        for path in await asyncio.to_thread(lambda: list(self._spool.left())):
            if path in self._unreadable:
                continue
            try:
                file = await asyncio.to_thread(self._spool.claim, path)
            except SpoolUnreadable as error:
                self._unreadable.add(path)
                log.alarm("a file of the spool stays", file=path.name, why=str(error))
                ALARMS.labels("spool_unreadable").inc()
                continue
            if file is not None:
                await self._ship(path, file)

    async def _ship(self, path: Path, file: SpoolFile) -> None:
        """Send a file's facts in their order and delete it; it stays where Kafka does not take all of them in time."""
        try:
            entries, broken = await asyncio.to_thread(file.entries)
            current = [entry for entry in entries if not self._spool.is_outdated(entry.fact)]
            async with asyncio.timeout(FILE_TIMEOUT_S):
                for entry in current:
                    await self._send(record_of(entry.hello, entry.fact))
            log.info("a spooled file was shipped", file=path.name, facts=len(current), old=len(entries) - len(current))
            if broken:
                # The disk, or another key of the same name: only a person can tell, so the file stays.
                self._unreadable.add(path)
                log.alarm("boxes of the spool do not open", file=path.name, boxes=broken)
                ALARMS.labels("spool_unreadable").inc()
            else:
                await asyncio.to_thread(file.delete)
        except TimeoutError:
            log.warning("a spooled file waits for Kafka", file=path.name)
        finally:
            file.close()

    async def _send(self, record: Record) -> None:
        pause_s = RETRY_MIN_S
        while True:
            try:
                await self._sink.send(record)
            except SinkDown:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                return


async def _take(reader: asyncio.StreamReader, lane: Lane) -> bool:
    """Take a job's facts until its socket ends; True when it said goodbye."""
    while line := await _line(reader):
        fact: Told | None = read_line(line)
        if fact is None:
            return True
        await lane.put(fact)
    return False


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return the next whole line; empty at the end, also when a job died in the middle of one."""
    try:
        line = await reader.readline()
    except OSError:
        return b""
    return line if line.endswith(b"\n") else b""
