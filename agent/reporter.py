"""The job's voice towards the log: numbers its facts and hands them to the worker's parent process.

`say` never waits, so that it may be called from LiveKit's event handlers; what the parent has not acknowledged yet is
known, and `settled` waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from agent.wire import GOODBYE, LINE_BYTES_MAX, Hello, fact_line, hello_line, read_ack, told
from runtime.clock import Clock
from schemas.facts import AgentReady, Fact

FACTS_MAX: Final = 1_000
"""Facts of one job at most; a one-way call makes about eight."""


class Reporter:
    """Facts of one job, numbered from 1 without gaps. After the last word nothing more is said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello, clock: Clock) -> None:
        self._writer, self._hello, self._clock = writer, hello, clock
        self._number = 0
        self._ready_number = 0
        self._renewals = 0
        self._silent = False
        self._unacknowledged: set[int] = set()
        self._settled = asyncio.Event()
        self._settled.set()
        self._listening = asyncio.create_task(self._listen(reader), name="acknowledgements")

    @classmethod
    async def connect(cls, path: str, hello: Hello, clock: Clock) -> Reporter:
        """Connect to the parent and introduce the job. Raises: OSError when there is no parent."""
        reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)
        writer.write(hello_line(hello))
        return cls(reader, writer, hello, clock)

    def say(self, kind: type[Fact], **fields: Any) -> None:
        """Report one fact; its order among the job's facts is the order of these calls."""
        if self._silent or self._number >= FACTS_MAX:
            return
        self._number += 1
        self._unacknowledged.add(self._number)
        self._settled.clear()
        self._write(kind, self._number, fields)

    def ready(self) -> None:
        """Report that the agent can speak the moment the callee answers."""
        self.say(AgentReady)
        self._ready_number = self._number

    def renew(self) -> None:
        """Report that it still can: the first readiness again, with its number, which nobody needs to acknowledge."""
        if self._silent:
            return
        self._renewals += 1
        self._write(AgentReady, self._ready_number, {"renewal": self._renewals})

    def last_word(self, kind: type[Fact], **fields: Any) -> None:
        """Report the job's last fact."""
        self.say(kind, **fields)
        self._silent = True

    async def settled(self, timeout_s: float) -> bool:
        """Wait until Kafka has every fact said so far; False when it does not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        return not self._unacknowledged

    async def goodbye(self) -> None:
        """Close the socket in the way that does not mean a crash."""
        self._silent = True
        with contextlib.suppress(OSError):
            self._writer.write(GOODBYE)
            await self._writer.drain()
            self._writer.close()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    def _write(self, kind: type[Fact], number: int, fields: dict[str, Any]) -> None:
        fact = kind(attempt=self._hello.attempt, job_id=self._hello.job_id, number=number, **fields)
        self._writer.write(fact_line(told(kind.TYPE, fact, self._clock.now())))  # type: ignore[attr-defined]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._unacknowledged.discard(read_ack(line))
                if not self._unacknowledged:
                    self._settled.set()
