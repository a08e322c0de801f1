"""The parent's side: takes the facts of all jobs of a worker and ships them, and tells when a job is gone.

Each job has a lane of its own, in order; lanes do not wait for each other. When Kafka is away the facts wait in their
lanes, in memory and bounded: a full lane stops reading from its job, nothing but a renewal is ever dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from agent.sink import Sink, SinkDown, record_of
from agent.wire import LINE_BYTES_MAX, Hello, Told, ack_line, read_hello, read_line, told
from runtime.clock import Clock
from runtime.logs import Log
from runtime.metrics import BOUND, FILL
from schemas.facts import AgentCrashed

LANES_MAX: Final = 1_000
LANE_FACTS_MAX: Final = 256
RENEWAL_FACTS_MAX: Final = 2
"""Facts that may wait in a lane before its renewals are dropped: one that comes late would claim too much."""
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 5.0

log = Log("agent.shipper")


class Lane:
    """One job's facts on their way. A spool on disk (S2) takes the place of `_waiting`: `put`, `end` and `ship` stay."""

    def __init__(self, hello: Hello, sink: Sink, clock: Clock, writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self._sink, self._clock, self._writer = sink, clock, writer
        self._waiting: asyncio.Queue[Told | None] = asyncio.Queue(LANE_FACTS_MAX)
        self._last_number = 0
        self._last_word = False

    @property
    def waiting(self) -> int:
        """Return how many facts Kafka does not have yet, the one being sent left out."""
        return self._waiting.qsize()

    async def put(self, fact: Told) -> None:
        """Take the job's next fact; waits while the lane is full."""
        if fact.renewal and self.waiting >= RENEWAL_FACTS_MAX:
            return
        self._last_number = max(self._last_number, fact.number)
        self._last_word = self._last_word or fact.is_last_word
        await self._waiting.put(fact)

    async def end(self, *, goodbye: bool) -> None:
        """Take no more; a job that neither said its last word nor goodbye has crashed."""
        if not goodbye and not self._last_word:
            log.alarm("a job is gone without a word", call_id=self.hello.call_id, attempt=self.hello.attempt)
            number = self._last_number + 1
            fact = AgentCrashed(attempt=self.hello.attempt, job_id=self.hello.job_id, number=number)
            await self.put(told(AgentCrashed.TYPE, fact, self._clock.now()))
        await self._waiting.put(None)

    async def ship(self) -> None:
        """Send what comes, in order, each fact until Kafka has it, and acknowledge it to the job."""
        while (fact := await self._waiting.get()) is not None:
            if await self._send(fact) and not fact.renewal:
                with contextlib.suppress(OSError):
                    self._writer.write(ack_line(fact.number))

    async def _send(self, fact: Told) -> bool:
        record, pause_s = record_of(self.hello, fact), RETRY_MIN_S
        while True:
            try:
                await self._sink.send(record)
            except SinkDown as error:
                if pause_s == RETRY_MIN_S:
                    log.alarm("a fact waits for Kafka", why=str(error), call_id=self.hello.call_id)
                if fact.renewal:
                    return False
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                return True


class Shipper:
    """The socket's server. `start`, hand its path to the jobs, `close`."""

    def __init__(self, sink: Sink, clock: Clock) -> None:
        self._sink, self._clock = sink, clock
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
        """Take no more jobs, wait for the facts of those that are here; return how many facts were left behind."""
        if self._server is not None:
            self._server.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=timeout_s)
        left = sum(lane.waiting + 1 for lane in self._lanes)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        if left:
            log.alarm("facts were left behind", facts=left)
        return left

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
        lane = Lane(read_hello(first), self._sink, self._clock, writer)
        self._lanes.add(lane)
        shipping = asyncio.create_task(lane.ship(), name="ship")
        try:
            await lane.end(goodbye=await _take(reader, lane))
            await shipping
        finally:
            shipping.cancel()
            self._lanes.discard(lane)
            writer.close()


async def _take(reader: asyncio.StreamReader, lane: Lane) -> bool:
    """Take a job's facts until its socket ends; True when it said goodbye."""
    while line := await _line(reader):
        fact = read_line(line)
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
