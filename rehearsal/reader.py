"""A plain consumer of what the dialer wrote: the log, the rejections and the audit, committed records only.

It is one of the three witnesses of the accounts, so it knows topics and envelopes, and nothing of how they are made.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from runtime.kafka import assigned_consumer
from schemas import topics

READ: Final = (topics.EVENTS, topics.REJECTED, topics.AUDIT)
POLL_MS: Final = 200
RECORDS_MAX: Final = 500_000
"""Records kept in memory; a rehearsal writes some thousands, a proof of 10,000 calls some 250,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One record: its envelope's attributes that the accounts need, and its data as plain JSON."""

    topic: str
    key: str
    type: str
    call_id: str | None
    at: datetime
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the type's own word: `call_answered` of `dialer.event.call_answered.v1`."""
        return self.type.split(".")[-2]

    @property
    def is_decision(self) -> bool:
        """Tell a decision of the dialer from an agent's fact that it copied."""
        return self.type.startswith("dialer.event.")


class LogReader:
    """Reads the three topics from their start on, as they grow; use it as an async context manager."""

    def __init__(
        self,
        bootstrap: str,
        on_record: Callable[[Logged], None] = lambda _: None,
        keeps: Callable[[Logged], bool] = lambda _: True,
    ) -> None:
        """Tell every record to `on_record`; keep those that `keeps` names."""
        self.records: list[Logged] = []
        self.decided: defaultdict[str, set[str]] = defaultdict(set)
        """Names of the decisions by call_id, or by callee_key where they are about no call."""
        self._consumer: AIOKafkaConsumer = assigned_consumer(bootstrap, "rehearsal-reader", read_committed=True)
        self._on_record, self._keeps = on_record, keeps
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        partitions = [TopicPartition(topic.name, p) for topic in READ for p in range(topic.partitions)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning(*partitions)
        self._task = asyncio.create_task(self._follow(), name="log reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()

    def of(self, topic: str) -> list[Logged]:
        """Return what was read of a topic, in the order of its partitions."""
        return [record for record in self.records if record.topic == topic]

    @property
    def events(self) -> list[Logged]:
        """Return the log."""
        return self.of(topics.EVENTS.name)

    async def wait_for(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds of what was read; False when it does not in time."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left_s, 1.0)):
                    await self._changed.wait()
            except TimeoutError:
                self._raise_if_ended()
        return True

    def _raise_if_ended(self) -> None:
        if self._task is not None and self._task.done():
            self._task.result()

    async def _follow(self) -> None:
        while True:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for messages in batches.values():
                for message in messages:
                    self._take(message)
            if batches:
                self._changed.set()

    def _take(self, message: Any) -> None:
        document = orjson.loads(message.value)
        record = Logged(
            topic=message.topic,
            key=message.key.decode() if message.key else "",
            type=document["type"],
            call_id=document.get("subject"),
            at=datetime.fromisoformat(document["time"]).astimezone(UTC),
            data=document["data"],
        )
        assert len(self.records) < RECORDS_MAX, "a rehearsal does not write so much"
        if self._keeps(record):
            self.records.append(record)
        if record.is_decision:
            self.decided[record.call_id or record.key].add(record.name)
        self._on_record(record)
