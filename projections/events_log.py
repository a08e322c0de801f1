"""The reader of `dialer.events`: all partitions, assigned by hand, read_committed, from positions the caller keeps.

No group, so nothing expires; nothing is ever reset: a position that the log does not have is refused. A broker that
does not answer is waited for, `LOST_S` at most. Source: design §7; reference/kafka.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError

from projections.closing import let_go
from projections.errors import KafkaLost, LogUnusable
from projections.streams import STREAMS, Streams
from runtime.clock import Clock
from runtime.kafka import admin, assigned_consumer
from runtime.logs import Log

LOST_S: Final = 60.0
FETCH_BYTES_MAX: Final = 1024 * 1024
"""A partition and fetch: two readers of 24 partitions stay below 50 MB each."""

log = Log("projections.events_log")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records in each partition's order; `moves` is partition -> (position before, position after)."""

    records: list[ConsumerRecord]
    moves: dict[int, tuple[int, int]]


class EventsLog:
    """One reader; `start` it, `poll` it, `stop` it."""

    def __init__(self, bootstrap: str, client_id: str, clock: Clock, streams: Streams = STREAMS) -> None:
        self._bootstrap = bootstrap
        self._topic = streams.events
        self._clock = clock
        self._consumer = assigned_consumer(
            bootstrap, client_id, read_committed=True, max_partition_fetch_bytes=FETCH_BYTES_MAX
        )
        self._assignment = [TopicPartition(streams.events, number) for number in range(streams.partitions)]
        self._read: dict[int, int] = {}
        self._answered_at = clock.monotonic()

    async def start(self, positions: Mapping[int, int]) -> None:
        """Connect and stand at these positions, at 0 where there is none. Raises: KafkaLost, LogUnusable."""
        try:
            await self._check_topic()
            await self._consumer.start()
        except KafkaConnectionError:
            raise KafkaLost(
                f"Kafka at {self._bootstrap} does not answer; check that it runs, and KAFKA_BOOTSTRAP_SERVERS"
            ) from None
        self._consumer.assign(self._assignment)
        self._seek(positions)  # At once: what is assigned and has no position is an error one loop later.
        await self._check_positions()

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Stand at other positions. Raises: LogUnusable."""
        self._seek(positions)
        await self._check_positions()

    def _seek(self, positions: Mapping[int, int]) -> None:
        for tp in self._assignment:
            self._read[tp.partition] = positions.get(tp.partition, 0)
            self._consumer.seek(tp, self._read[tp.partition])

    async def _check_topic(self) -> None:
        client = admin(self._bootstrap)
        try:
            await client.start()
            found = (await client.describe_topics([self._topic]))[0]["partitions"]
        finally:
            await client.close()
        if not found:
            raise LogUnusable(f"the topic {self._topic} is not there; `dialer topics` makes it")
        if len(found) != len(self._assignment):
            raise LogUnusable(f"{self._topic} has {len(found)} partitions, {len(self._assignment)} are needed")

    async def _check_positions(self) -> None:
        starts = await self._consumer.beginning_offsets(self._assignment)
        ends = await self._consumer.end_offsets(self._assignment)
        for tp in self._assignment:
            position = self._read[tp.partition]
            if not starts[tp] <= position <= ends[tp]:
                raise LogUnusable(
                    f"{self._topic} partition {tp.partition} holds {starts[tp]} to {ends[tp]}, the read model stands "
                    f"at {position}: this is not the log it was made from; move the database away and start again"
                )

    async def poll(self, records_max: int, wait_s: float) -> Fetched:
        """Return what has come, waiting that long for the first record. Raises: LogUnusable."""
        try:
            batch = await self._consumer.getmany(timeout_ms=int(wait_s * 1000), max_records=records_max)
        except OffsetOutOfRangeError as error:
            raise LogUnusable(f"{self._topic} was cut while it was read: {error}") from None
        records: list[ConsumerRecord] = []
        moves: dict[int, tuple[int, int]] = {}
        for tp, found in batch.items():
            after = found[-1].offset + 1
            moves[tp.partition] = (self._read[tp.partition], after)
            self._read[tp.partition] = after
            records += found
        return Fetched(records, moves)

    async def lag(self) -> dict[int, int] | None:
        """Return, per partition, how far the committed end is ahead; None while Kafka does not answer.

        Offsets are counted, so that a transaction's marker at the end is 1. Raises: KafkaLost after `LOST_S`.
        """
        try:
            ends = await self._consumer.end_offsets(self._assignment)
        except (KafkaError, OSError):
            silent_s = self._clock.monotonic() - self._answered_at
            log.warning("Kafka does not answer", silent_s=round(silent_s))
            if silent_s > LOST_S:
                raise KafkaLost(f"Kafka at {self._bootstrap} has not answered for {round(silent_s)} s") from None
            return None
        self._answered_at = self._clock.monotonic()
        return {tp.partition: max(0, ends[tp] - await self._consumer.position(tp)) for tp in self._assignment}

    async def stop(self) -> None:
        """Let go of the connection."""
        await let_go(self._consumer.stop())
