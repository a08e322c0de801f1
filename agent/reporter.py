"""The job's voice towards the log: numbers its facts and hands them to the worker's parent process.

`say` never waits, so that it may be called from LiveKit's event handlers; what the parent has not acknowledged yet is
known, and `settled` waits for it. Where there is no parent any more the job writes to the spool itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from agent.spool import Entry, Spool, SpoolFailed, SpoolFile
from agent.wire import GOODBYE, LINE_BYTES_MAX, Hello, Told, fact_line, hello_line, read_ack, told
from runtime.clock import Clock
from runtime.logs import Log
from schemas.facts import AgentReady, Fact

FACTS_MAX: Final = 1_000
"""Facts of one job at most; a one-way call makes about eight."""

log = Log("agent.reporter")


class Reporter:
    """Facts of one job, numbered from 1 without gaps. After the last word nothing more is said."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello, spool: Spool, clock: Clock
    ) -> None:
        self._writer, self._hello, self._spool, self._clock = writer, hello, spool, clock
        self._number = 0
        self._ready_number = 0
        self._renewals = 0
        self._silent = False
        self._unacknowledged: dict[int, Told] = {}
        self._settled = asyncio.Event()
        self._settled.set()
        self._file: SpoolFile | None = None
        self._orphaned = False
        self._leaving = False
        self._listening = asyncio.create_task(self._listen(reader), name="acknowledgements")

    @classmethod
    async def connect(cls, path: str, hello: Hello, spool: Spool, clock: Clock) -> Reporter:
        """Connect to the parent and introduce the job. Raises: OSError when there is no parent."""
        reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)
        writer.write(hello_line(hello))
        return cls(reader, writer, hello, spool, clock)

    def say(self, kind: type[Fact], **fields: Any) -> None:
        """Report one fact; its order among the job's facts is the order of these calls."""
        if self._silent or self._number >= FACTS_MAX:
            return
        self._number += 1
        fact = self._told(kind, self._number, fields)
        self._unacknowledged[self._number] = fact
        self._settled.clear()
        if self._orphaned:
            self.keep()
        else:
            self._writer.write(fact_line(fact))

    def ready(self) -> None:
        """Report that the agent can speak the moment the callee answers."""
        self.say(AgentReady)
        self._ready_number = self._number

    def renew(self) -> None:
        """Report that it still can: the first readiness again, with its number, which nobody needs to acknowledge."""
        if self._silent or self._orphaned:
            return
        self._renewals += 1
        self._writer.write(fact_line(self._told(AgentReady, self._ready_number, {"renewal": self._renewals})))

    def afterword(self, kind: type[Fact], **fields: Any) -> None:
        """Report what is known only after the last word: what became of the recording."""
        self._silent = self._leaving
        self.say(kind, **fields)
        self._silent = True

    def last_word(self, kind: type[Fact], **fields: Any) -> None:
        """Report the job's last fact."""
        self.say(kind, **fields)
        self._silent = True

    async def settled(self, timeout_s: float) -> bool:
        """Wait until every fact said so far is safe, in Kafka or on disk; False when it is not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        return not self._unacknowledged

    def keep(self) -> None:
        """Write to the spool what the parent has not acknowledged; it may be gone, and twice told is told once."""
        entries = [Entry(hello=self._hello, fact=fact) for fact in self._unacknowledged.values()]
        if not entries:
            return
        try:
            self._file = self._file or self._spool.begin()
            self._file.append(entries)
        except SpoolFailed as error:
            log.alarm("the spool cannot be written", why=str(error), call_id=self._hello.call_id)
            return
        self._unacknowledged.clear()
        self._settled.set()

    async def goodbye(self) -> None:
        """Close the socket in the way that does not mean a crash."""
        await self._close(GOODBYE)

    async def crash(self) -> None:
        """Close it in the way that does, where a bug ended the call and its process lives on."""
        await self._close(b"")

    async def _close(self, last: bytes) -> None:
        self._silent = self._leaving = True
        with contextlib.suppress(OSError):
            self._writer.write(last)
            await self._writer.drain()
            self._writer.close()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        if self._file is not None:
            self._file.close()

    def _told(self, kind: type[Fact], number: int, fields: dict[str, Any]) -> Told:
        fact = kind(attempt=self._hello.attempt, job_id=self._hello.job_id, number=number, **fields)
        return told(kind.TYPE, fact, self._clock.now())  # type: ignore[attr-defined]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._unacknowledged.pop(read_ack(line), None)
                if not self._unacknowledged:
                    self._settled.set()
        if self._leaving:
            return
        log.alarm("the worker is gone: facts go to disk", call_id=self._hello.call_id, attempt=self._hello.attempt)
        self._orphaned = True
        self.keep()
