"""Reads `dialer.control`: the kill switch, and the layout every process must agree on. It fails closed.

Nothing is known before the topic was read to its end, and nothing any more while it cannot be read. Source: design §3 and
§5 (the gate), promise 6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from dialer.control_words import Words
from dialer.read_to_end import ReadToEnd
from runtime.clock import Clock
from runtime.kafka import assigned_consumer, idempotent_producer
from runtime.logs import Log
from runtime.metrics import ALARMS
from schemas.topics import CONTROL, FORMAT, FORMAT_KEY, LAYOUT_KEY, PARTITIONER
from schemas.values import PARTITIONS

ASK_EVERY_S: Final = 0.1
ASK_TIMEOUT_S: Final = 5.0
START_TIMEOUT_S: Final = 20.0
POLL_MS: Final = 100
AGAIN_AFTER_S: Final = 1.0
"""A read that failed is tried again after so long; nobody is dialed meanwhile."""
LAYOUT: Final[dict[str, object]] = {"partitions": PARTITIONS, "partitioner": PARTITIONER}
MASTER_KEY: Final = b"$master_key"
"""The key of the record by which a wrong master key is found out before anything is read or written with it."""
LAYOUT_REMEDY: Final = "use the version that laid out this log, or another cluster"
MASTER_KEY_REMEDY: Final = "DIALER_MASTER_KEY is not the key that this log's data keys are wrapped with"
WANTED: Final[dict[bytes, dict[str, object]]] = {LAYOUT_KEY: LAYOUT, FORMAT_KEY: {"format": FORMAT}}

_log = Log(__name__)


class ControlUnreadable(Exception):
    """`dialer.control` could not be read to its end in time; nothing may be dialled without it."""


class LayoutMismatch(Exception):
    """The log was laid out otherwise than this process would: it must not write to it."""


class ControlReader:
    """Follows the topic and keeps its `words`; `changed` is called after each record."""

    def __init__(
        self, bootstrap: str, clock: Clock, changed: Callable[[], None] = lambda: None, *, topic: str = CONTROL.name
    ) -> None:
        self._bootstrap = bootstrap
        self._tp = TopicPartition(topic, 0)
        self._clock = clock
        self._changed = changed
        self._consumer: AIOKafkaConsumer | None = None
        self._evidence = ReadToEnd(delivered=0, after_last_record=0)
        self.words = Words()
        self._tasks: list[asyncio.Task[None]] = []
        self._failed = False

    async def start(self) -> None:
        """Connect, read to the end, then follow. Raises: ControlUnreadable."""
        self._failed = False
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                consumer = assigned_consumer(self._bootstrap, "dialer-control", read_committed=False)
                self._consumer = consumer
                await consumer.start()
                begin = (await consumer.beginning_offsets([self._tp]))[self._tp]
                self._evidence = ReadToEnd(delivered=begin, after_last_record=begin)
                consumer.assign([self._tp])
                consumer.seek(self._tp, begin)
                self._tasks = [
                    self._clock.spawn(self._follow(consumer), "control"),
                    self._clock.spawn(self._ask_for_end(consumer), "control-end"),
                ]
                await self._read_after(self._clock.monotonic())
        except (KafkaError, TimeoutError, OSError) as error:
            await self.close()
            raise ControlUnreadable(f"{self._tp.topic} at {self._bootstrap}: {type(error).__name__}") from error

    async def close(self) -> None:
        """Stop following; what is known grows old."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        if self._consumer is not None:
            await self._consumer.stop()

    def read_at(self) -> float | None:
        """Return the latest clock.monotonic before which every accepted control record is known here."""
        end = self._evidence.latest()
        return end.at if end is not None else None

    def stopped(self, campaign_id: str) -> bool:
        """Tell whether nothing may be dialled for a campaign: so it was said, or nothing is known."""
        return self.read_at() is None or self.words.stopped(campaign_id)

    def version(self) -> str:
        """Return the offset after the last record this state stands for."""
        return str(self._evidence.after_last_record)

    async def ensure_layout(self, master_key_check: str | None = None) -> None:
        """Write partition count, partitioner, format and the master key's check value where nobody has, and compare.

        The first record counts: of two processes that write at once and disagree, the second finds the first's. With
        another master key no callee's data key would unwrap, so such a process must not begin.
        Raises: LayoutMismatch, ControlUnreadable.
        """
        needed: dict[bytes, dict[str, object]] = dict(WANTED)
        if master_key_check is not None:
            needed[MASTER_KEY] = {"check": master_key_check}
        missing = {key: value for key, value in needed.items() if key not in self.words.layout}
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if missing:
                    await self._write(missing)
                    await self._read_after(self._clock.monotonic())
        except (KafkaError, TimeoutError, OSError) as error:
            raise ControlUnreadable(f"{self._tp.topic} at {self._bootstrap}: {type(error).__name__}") from error
        for key, wanted in needed.items():
            found = self.words.layout.get(key)
            if found != wanted:
                remedy = MASTER_KEY_REMEDY if key == MASTER_KEY else LAYOUT_REMEDY
                raise LayoutMismatch(
                    f"{self._tp.topic} {key.decode()} says {orjson.dumps(found).decode()}, this process needs "
                    f"{orjson.dumps(wanted).decode()}; {remedy}"
                )

    async def _write(self, records: dict[bytes, dict[str, object]]) -> None:
        producer = idempotent_producer(self._bootstrap, "dialer-control")
        try:
            await producer.start()
            for key, value in records.items():
                await producer.send_and_wait(self._tp.topic, orjson.dumps(value), key=key, partition=0)
        finally:
            await producer.stop()

    async def _read_after(self, at: float) -> None:
        """Wait until everything accepted before `at` is known. Raises: TimeoutError when reading has failed."""
        while (read_at := self.read_at()) is None or read_at < at:
            if self._failed:
                raise TimeoutError
            await self._clock.sleep(0.01)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                records = (await consumer.getmany(self._tp, timeout_ms=POLL_MS)).get(self._tp, ())
                position = await consumer.position(self._tp)
            except KafkaError as error:
                ALARMS.labels("control_unreadable").inc()
                _log.alarm("control cannot be read", error=type(error).__name__)
                self._failed = True
                self._evidence.forget()
                await self._clock.sleep(AGAIN_AFTER_S)
                continue
            self._failed = False
            for record in records:
                self.words.take(record.key or b"", record.value, record.offset)
            self._evidence.deliver(position, records[-1].offset + 1 if records else None)
            if records:
                self._changed()

    async def _ask_for_end(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            at = self._clock.monotonic()
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    end = (await consumer.end_offsets([self._tp]))[self._tp]
            except (KafkaError, TimeoutError, OSError) as error:
                _log.warning("end of control not known", error=type(error).__name__)
            else:
                if not self._failed:
                    self._evidence.told(at, end)
            await self._clock.sleep(ASK_EVERY_S)
