"""Reads `dialer.control`: the kill switch, pauses, and the layout every process must agree on. It fails closed.

Nothing is known before the topic was read to its end; a value that cannot be read stops what it is about; a tombstone
changes nothing, since control is given by values only. Source: design §3 and §5 (the gate), promise 6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from dialer.read_to_end import ReadToEnd
from runtime.clock import Clock
from runtime.kafka import assigned_consumer, idempotent_producer
from runtime.logs import Log
from runtime.metrics import ALARMS
from schemas.topics import CONTROL, FORMAT, FORMAT_KEY, LAYOUT_KEY, PARTITIONER
from schemas.values import PARTITIONS

EVERYTHING: Final = "*"
"""The key that speaks of all campaigns."""
ASK_EVERY_S: Final = 0.1
ASK_TIMEOUT_S: Final = 5.0
START_TIMEOUT_S: Final = 20.0
POLL_MS: Final = 100
LAYOUT: Final[dict[str, object]] = {"partitions": PARTITIONS, "partitioner": PARTITIONER}
WANTED: Final[dict[bytes, dict[str, object]]] = {LAYOUT_KEY: LAYOUT, FORMAT_KEY: {"format": FORMAT}}

_log = Log(__name__)


class ControlUnreadable(Exception):
    """`dialer.control` could not be read to its end in time; nothing may be dialled without it."""


class LayoutMismatch(Exception):
    """The log was laid out otherwise than this process would: it must not write to it."""


class Dialling(StrEnum):
    """What control says of a campaign, or of everything."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class ControlReader:
    """Follows the topic and keeps its state; `changed` is called after each record that changed it."""

    def __init__(
        self, bootstrap: str, clock: Clock, changed: Callable[[], None] = lambda: None, *, topic: str = CONTROL.name
    ) -> None:
        self._bootstrap = bootstrap
        self._tp = TopicPartition(topic, 0)
        self._clock = clock
        self._changed = changed
        self._consumer: AIOKafkaConsumer | None = None
        self._evidence = ReadToEnd(delivered=0, after_last_record=0)
        self._states: dict[str, Dialling] = {}
        self._layout: dict[bytes, object] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._failed = False

    async def start(self) -> None:
        """Connect, read to the end, then follow. Raises: ControlUnreadable."""
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

    def state(self, key: str) -> Dialling:
        """Return what was said of a campaign, or of `*`, alone; nothing said is running."""
        return self._states.get(key, Dialling.RUNNING)

    def stopped(self, campaign_id: str) -> bool:
        """Say whether nothing may be dialled for a campaign: stopped or paused, by itself or by `*`, or not known."""
        return (
            self.read_at() is None
            or self.state(EVERYTHING) is not Dialling.RUNNING
            or self.state(campaign_id) is not Dialling.RUNNING
        )

    def version(self) -> str:
        """Return the offset after the last record this state stands for."""
        return str(self._evidence.after_last_record)

    async def ensure_layout(self) -> None:
        """Write partition count, partitioner and format where nobody has, and compare. Raises: LayoutMismatch,
        ControlUnreadable.

        The first record counts: of two processes that write at once and disagree, the second finds the first's.
        """
        missing = {key: value for key, value in WANTED.items() if key not in self._layout}
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if missing:
                    await self._write(missing)
                    await self._read_after(self._clock.monotonic())
        except (KafkaError, TimeoutError, OSError) as error:
            raise ControlUnreadable(f"{self._tp.topic} at {self._bootstrap}: {type(error).__name__}") from error
        for key, wanted in WANTED.items():
            found = self._layout.get(key)
            if found != wanted:
                raise LayoutMismatch(
                    f"{self._tp.topic} {key.decode()} says {orjson.dumps(found).decode()}, this process needs "
                    f"{orjson.dumps(wanted).decode()}; use the version that laid out this log, or another cluster"
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
                return
            for record in records:
                self._take(record)
            self._evidence.deliver(position, records[-1].offset + 1 if records else None)
            if records:
                self._changed()

    async def _ask_for_end(self, consumer: AIOKafkaConsumer) -> None:
        while not self._failed:
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

    def _take(self, record: ConsumerRecord) -> None:
        key = record.key or b""
        if record.value is None or not key:
            self._refuse(record, "a control record without key or value changes nothing")
        elif key.startswith(b"$"):
            self._take_layout(key, record)
        else:
            try:
                self._states[key.decode()] = Dialling(orjson.loads(record.value)["state"])
            except (ValueError, KeyError, TypeError):
                self._states[key.decode("utf-8", "replace")] = Dialling.STOPPED
                self._refuse(record, "a control record that cannot be read stops what it is about")

    def _take_layout(self, key: bytes, record: ConsumerRecord) -> None:
        try:
            value = orjson.loads(record.value)
        except ValueError:
            value = None
        if self._layout.setdefault(key, value) != value:
            self._refuse(record, "a second, other layout was written")

    def _refuse(self, record: ConsumerRecord, why: str) -> None:
        ALARMS.labels("control_record").inc()
        _log.alarm(why, offset=record.offset)
