"""One job's facts on their way through its worker's parent process: in order, and safe before they are acknowledged.

Safe is what Kafka has, or the disk. Facts go to Kafka at once; only when it does not answer soon, or with an opt-out,
are those that wait written to the job's file in the spool, and acknowledged from there. They stay in memory as well, so that the spool is
read by nobody but a worker that finds it after this one's death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from agent.reporter import FACTS_MAX
from agent.sink import Sink, SinkDown, record_of
from agent.spool import Entry, Spool, SpoolFailed, SpoolFile
from agent.wire import Hello, Told, told
from runtime.clock import Clock
from runtime.logs import Log
from runtime.metrics import ALARMS
from schemas.facts import AgentCrashed, OptOutHeard

LANE_FACTS_MAX: Final = FACTS_MAX + 8
"""All that a job may say, so that its lane never stops taking from it: what was not taken cannot be made safe."""
RENEWAL_FACTS_MAX: Final = 2
"""Facts that may wait in a lane before its renewals are dropped: one that comes late would claim too much."""
SPOOL_AFTER_S: Final = 1.0
"""How long Kafka may take for a fact before the disk has it; an answer takes milliseconds."""
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 5.0

log = Log("agent.shipper")


class Lane:
    """One job's facts: `put`, `end` and `ship`; `save` makes safe what still is not."""

    def __init__(self, hello: Hello, sink: Sink, spool: Spool, clock: Clock, safe: Callable[[int], None]) -> None:
        self.hello = hello
        self._sink, self._spool, self._clock, self._safe = sink, spool, clock, safe
        self._waiting: asyncio.Queue[Told | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(LANE_FACTS_MAX)
        self._unsafe: list[Told] = []
        self._file: SpoolFile | None = None
        self._slow = False
        self._full = False
        self._saving = asyncio.Lock()
        self._last_number = 0
        self._last_word = False

    @property
    def waiting(self) -> int:
        """Return how many facts Kafka does not have yet, the one being sent left out."""
        return self._waiting.qsize()

    @property
    def unsafe(self) -> int:
        """Return how many facts neither Kafka nor the disk has; renewals left out."""
        return len(self._unsafe)

    async def put(self, fact: Told) -> None:
        """Take the job's next fact; waits while the lane is full."""
        if fact.renewal:
            if self.waiting < RENEWAL_FACTS_MAX:
                await self._room.acquire()
                self._waiting.put_nowait(fact)
            return
        await self._room.acquire()
        self._last_number = max(self._last_number, fact.number)
        self._last_word = self._last_word or fact.is_last_word
        self._unsafe.append(fact)
        self._waiting.put_nowait(fact)
        if self._slow or fact.type == OptOutHeard.TYPE:
            await self.save()

    async def end(self, *, goodbye: bool) -> None:
        """Take no more; a job that neither said its last word nor goodbye has crashed."""
        if not goodbye and not self._last_word:
            log.alarm("a job is gone without a word", call_id=self.hello.call_id, attempt=self.hello.attempt)
            number = self._last_number + 1
            fact = AgentCrashed(attempt=self.hello.attempt, job_id=self.hello.job_id, number=number)
            await self.put(told(AgentCrashed.TYPE, fact, self._clock.now()))
        self._waiting.put_nowait(None)

    async def ship(self) -> None:
        """Send what comes, in order, each fact until Kafka has it; the file goes once nothing waits any more."""
        while (fact := await self._waiting.get()) is not None:
            await self._send(fact)
            self._room.release()
            if fact in self._unsafe:
                self._unsafe.remove(fact)
                self._safe(fact.number)
            if self._waiting.empty():
                await self._recovered()
        await self._recovered()

    async def save(self) -> None:
        """Write to disk what is not safe yet, as far as there is room, and acknowledge it."""
        async with self._saving:
            facts = self._unsafe[:]
            if not facts:
                return
            try:
                saved = await asyncio.to_thread(self._write, facts)
            except SpoolFailed as error:
                log.alarm("the spool cannot be written", why=str(error), call_id=self.hello.call_id)
                ALARMS.labels("spool_failed").inc()
                return
            if len(saved) < len(facts) and not self._full:
                self._full = True
                log.alarm("the spool is full: what is worth least is not on disk", call_id=self.hello.call_id)
            ALARMS.labels("spool_full").inc(len(facts) - len(saved))
            for fact in saved:
                if fact in self._unsafe:  # or else Kafka took it meanwhile
                    self._unsafe.remove(fact)
                    self._safe(fact.number)

    def leave(self) -> None:
        """Let go of the file: the next worker ships it."""
        if self._file is not None:
            self._file.close()

    def _write(self, facts: Sequence[Told]) -> Sequence[Told]:
        """Write what there is room for; runs in a thread. Raises: SpoolFailed."""
        saved = self._spool.takes(facts)
        if saved:
            file = self._file or self._spool.begin()
            try:
                file.append([Entry(hello=self.hello, fact=fact) for fact in saved])
            except SpoolFailed:
                if self._file is None:
                    file.close()
                raise
            self._file = file
        return saved

    async def _recovered(self) -> None:
        """Forget the file and the trouble, unless something was put meanwhile."""
        async with self._saving:
            if self._unsafe:
                return
            self._slow = self._full = False
            if self._file is not None:
                await asyncio.to_thread(self._file.delete)
                self._file = None

    async def _send(self, fact: Told) -> None:
        """Send one fact until Kafka has it; a renewal once."""
        record, pause_s = record_of(self.hello, fact), RETRY_MIN_S
        while True:
            sending = asyncio.ensure_future(self._sink.send(record))
            try:
                if not self._slow:
                    await asyncio.wait({sending}, timeout=SPOOL_AFTER_S)
                    if not sending.done():
                        await self._slowed("no answer")
                await sending
            except SinkDown as error:
                await self._slowed(str(error))
                if fact.renewal:
                    return
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                return
            finally:
                sending.cancel()

    async def _slowed(self, why: str) -> None:
        """Take Kafka as away: what waits, and what comes until nothing does, goes to disk."""
        if not self._slow:
            log.alarm("facts wait for Kafka, on disk", why=why, call_id=self.hello.call_id)
            self._slow = True
        await self.save()
