"""Kafka for the simulation: transactions as requests, consumers, a group, each on the broker in memory.

What a client library can answer a dialer is answered here: late, not at all, refused, fenced, aborted, handed out twice.
The consumers stand at the doors where `dialer/` opens its own (`tests/simulation/doors.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError

from dialer.kafka_log import ANSWER_TIMEOUT_S
from dialer.log import Headers, OwnershipLost, Record, Restored
from schemas.steps import Step
from schemas.topics import CALLEES, KEYS, OFFSETS_KEY, STOPS, Topic
from schemas.values import partition_of
from tests.doubles.memory_log import MemoryBroker, Stored, Transaction
from tests.simulation.process import START, Late, NoAnswer, Process

TRANSACTION_TIMEOUT_S: Final = 10.0
SESSION_TIMEOUT_S: Final = 10.0
HEARTBEAT_S: Final = 3.0
POLL_STRETCH: Final = 100.0
"""A poll waits so many times as long as it was asked to: it wakes with what is written, and spares the simulation time."""


START_MS: Final = int(START.timestamp() * 1000)


class Refused(Exception):
    """The broker's error answer."""


class SimBroker(MemoryBroker):
    """The broker in memory as a server: away for a while, faults of commits by partition, watchers of what is written."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self._clock = clock
        self.away_until_s = 0.0
        self.commit_faults: dict[int, str] = {}
        self.faults_met: list[tuple[str, int]] = []
        self.fenced_by: dict[int, str] = {}
        """Whose producer is the last of a partition."""
        self.appended: Callable[[str, bytes | None], None] = lambda _topic, _value: None
        self.waiting: dict[tuple[str, int], dict[asyncio.Future[None], None]] = {}
        """Who waits for the next record of a partition."""
        self.committed_now: Callable[[int, Sequence[Record]], None] = lambda _p, _r: None
        self._begun: dict[str, tuple[float, list[Record], int]] = {}

    def arrives(self) -> float:
        """Return how long a request still waits for a broker that is away."""
        away_s = self.away_until_s
        return max(0.0, away_s - self._clock.monotonic()) if away_s else 0.0

    def _append(self, record: Record, transaction: Transaction | None, *, is_marker: bool = False) -> int:
        self._timestamp_ms = max(self._timestamp_ms, START_MS + int(self._clock.monotonic() * 1000) - 1)
        offset = super()._append(record, transaction, is_marker=is_marker)
        if not is_marker:
            self.appended(record.topic, record.value)
        if transaction is None or is_marker or record.topic == STOPS.name:
            self.wake(record.topic, record.partition)
        return offset

    def wake(self, topic: str, partition: int) -> None:
        """Let readers look again."""
        for woken in self.waiting.get((topic, partition), ()):
            _wake(woken)

    def send(
        self, topic: Topic, key: str | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> int:
        """Produce without a transaction; to the key's canonical partition unless told otherwise."""
        place = partition_of(key or "") if partition is None else partition
        return self.produce(Record(topic.name, place, (key or "").encode(), value, headers))

    def produce_all(self, name: str, epoch: int, partition: int, records: Sequence[Record]) -> Any:
        """Take a transaction's records, begun by their first."""
        if not self.is_current(name, epoch):
            raise Refused("ProducerFenced")
        fault = self.commit_faults.get(partition)
        transaction = self.begin(name)
        self._begun[name] = (self._clock.monotonic(), list(records), partition)
        torn = fault == "commit_torn"
        for record in records[: len(records) // 2 or 1] if torn else records:
            self.produce(record, transaction)
        if torn:
            self._met(partition)
            raise Refused("RecordTooLarge")
        return True

    def end_all(self, name: str, epoch: int, partition: int) -> Any:
        """Commit; the answer may be late, or lost, or an abort."""
        if not self.is_current(name, epoch) or name not in self._open:
            raise Refused("InvalidProducerEpoch")
        fault = self.commit_faults.get(partition)
        if fault is not None:
            self._met(partition)
        if fault == "commit_lost":
            return NoAnswer()
        if fault == "commit_aborted":
            self.start_producer(name)
            raise Refused("InvalidTxnState")
        records = self._begun.pop(name)[1]
        self.commit(name)
        self.committed_now(partition, records)
        if fault == "commit_unanswered":
            return NoAnswer()
        return Late(True, 4.0) if fault == "commit_late" else True

    def abort_overdue(self) -> None:
        """End transactions that nobody ended in time."""
        now = self._clock.monotonic()
        for name in [n for n in self._open if now - self._begun[n][0] > TRANSACTION_TIMEOUT_S]:
            self.start_producer(name)

    def _met(self, partition: int) -> None:
        self.faults_met.append((self.commit_faults.pop(partition), partition))


class SimLog:
    """`dialer.log.Log`: each commit is two requests, as on a real broker."""

    def __init__(self, broker: SimBroker, process: Process) -> None:
        self._broker, self._process = broker, process

    def open(self, partition: int) -> SimPartitionLog:
        return SimPartitionLog(self._broker, self._process, partition)


class SimPartitionLog:
    """One opening of one partition."""

    def __init__(self, broker: SimBroker, process: Process, partition: int) -> None:
        self._broker, self._process, self._partition = broker, process, partition
        self._name = f"dialer-{partition}"
        self._epoch: int | None = None
        self._lost = False

    async def fence(self) -> None:
        self._epoch = await self._answered("fence", self._fence)

    async def restore(self) -> Restored:
        return await self._answered("restore", self._restored)

    async def commit(self, records: Sequence[Record]) -> None:
        if self._lost:
            raise OwnershipLost(f"partition {self._partition}: this opening has ended")
        if not records:
            return
        assert self._epoch is not None, "fence first"
        epoch, name, partition, broker = self._epoch, self._name, self._partition, self._broker
        clock, done = self._process.clock, False
        until = clock.monotonic() + ANSWER_TIMEOUT_S
        try:
            clock.passing(Step.COMMIT_SENDING)
            await self._ask(lambda: broker.produce_all(name, epoch, partition, records), until)
            clock.passing(Step.COMMIT_SENT)
            await self._ask(lambda: broker.end_all(name, epoch, partition), until)
            done = True
        except (Refused, TimeoutError) as error:
            raise OwnershipLost(f"partition {partition}: commit: {error}") from error
        finally:
            self._lost = self._lost or not done
        clock.passing(Step.COMMIT_ANSWERED)

    async def close(self) -> None:
        self._lost = True

    async def _answered(self, what: str, serve: Callable[[], Any]) -> Any:
        try:
            return await self._ask(serve, self._process.clock.monotonic() + ANSWER_TIMEOUT_S)
        except TimeoutError as error:
            self._lost = True
            raise OwnershipLost(f"partition {self._partition}: {what}") from error

    async def _ask(self, serve: Callable[[], Any], until: float) -> Any:
        """Ask, and wait until then. Raises: TimeoutError. (`asyncio.timeout` costs as much as the whole request.)"""
        answer = await self._process.send(serve, arrives=self._broker.arrives)
        timer = asyncio.get_running_loop().call_at(until, _give_up, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    def _fence(self) -> int:
        self._broker.fenced_by[self._partition] = self._process.name
        return self._broker.start_producer(self._name)

    def _restored(self) -> Restored:
        snapshots, keys = (self._broker.latest(topic.name, self._partition) for topic in (CALLEES, KEYS))
        return Restored(offsets=snapshots.pop(OFFSETS_KEY, None), snapshots=snapshots, keys=keys)


class Fetched(NamedTuple):
    """A record as aiokafka hands it out."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def _fetched(stored: Stored, tp: TopicPartition) -> Fetched:
    key = stored.key or None
    return Fetched(tp.topic, tp.partition, stored.offset, stored.timestamp_ms, key, stored.value, tuple(stored.headers))


class SimConsumer:
    """What `dialer/` uses of an AIOKafkaConsumer, on the broker in memory."""

    def __init__(self, broker: SimBroker, process: Process, *, read_committed: bool) -> None:
        self._broker, self._process, self._committed = broker, process, read_committed
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._waiting: dict[asyncio.Future[None], None] = {}

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    def assign(self, tps: Iterable[TopicPartition]) -> None:
        self._positions = dict.fromkeys(tps, 0)
        self._paused.clear()

    def unsubscribe(self) -> None:
        self._positions = {}

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._positions[tp] = offset
        self._look_again()

    def pause(self, *tps: TopicPartition) -> None:
        self._paused.update(tps)

    def resume(self, *tps: TopicPartition) -> None:
        self._paused.difference_update(tps)
        self._look_again()

    def hand_out_again(self, partition: int, back: int) -> None:
        """Go back: a consumer that forgot how far it was."""
        for tp in self._positions:
            if tp.partition == partition:
                self._positions[tp] = max(0, self._positions[tp] - back)
        self._look_again()

    def _look_again(self) -> None:
        for woken in self._waiting:
            _wake(woken)

    async def position(self, tp: TopicPartition) -> int:
        at = self._positions[tp]
        if at == self._broker.high_watermark(tp.topic, tp.partition):
            return at
        found, beyond = self._broker.read(tp.topic, tp.partition, at, committed=self._committed, count_max=1)
        if not found:
            self._positions[tp] = beyond
        return self._positions[tp]

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._process.ask(lambda: dict.fromkeys(tps, 0), arrives=self._broker.arrives)

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        if self._broker.arrives():
            await asyncio.sleep(1.0)
            raise KafkaConnectionError
        return {tp: self._broker.high_watermark(tp.topic, tp.partition) for tp in tps}

    async def getmany(
        self, *tps: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Fetched]]:
        wanted = tps or tuple(tp for tp in self._positions if tp not in self._paused)
        found = self._take(wanted, max_records)
        if not found and timeout_ms:
            await self._more(wanted, timeout_ms / 1000 * POLL_STRETCH)
            found = self._take(wanted, max_records)
        return found

    def _take(self, tps: Iterable[TopicPartition], count_max: int | None) -> dict[TopicPartition, list[Fetched]]:
        found: dict[TopicPartition, list[Fetched]] = {}
        if self._broker.arrives():
            return found
        broker, positions, end = self._broker, self._positions, self._broker.high_watermark
        for tp in tps:
            at = positions.get(tp)
            if at is not None and at < end(*tp) and tp not in self._paused:
                stored, positions[tp] = broker.read(
                    tp.topic, tp.partition, at, committed=self._committed, count_max=count_max or 500
                )
                if stored:
                    found[tp] = [_fetched(s, tp) for s in stored]
        return found

    async def _more(self, tps: Sequence[TopicPartition], timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        for tp in tps:
            self._broker.waiting.setdefault(tp, {})[woken] = None
        self._waiting[woken] = None
        timer = loop.call_later(max(timeout_s, self._broker.arrives()), _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()
            del self._waiting[woken]
            for tp in tps:
                del self._broker.waiting[tp][woken]


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _give_up(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


@dataclass
class Member:
    """A process in the group, as the coordinator knows it."""

    seen_s: float
    generation: int = 0


@dataclass
class Group:
    """The coordinator: who lives, who has which partitions; a member that falls silent is put out."""

    partitions: tuple[int, ...]
    now_s: Callable[[], float]
    away: Callable[[], float]
    members: dict[str, Member] = field(default_factory=dict)
    generation: int = 0
    turn: int = 0

    def heartbeat(self, name: str) -> bool:
        """Tell whether the member must take a new assignment."""
        member = self.members.get(name)
        if member is None:
            self.members[name] = Member(self.now_s())
            self.generation += 1
            return True
        member.seen_s = self.now_s()
        return member.generation != self.generation

    def sync(self, name: str) -> tuple[int, ...]:
        """Return the member's partitions of this generation."""
        if name not in self.members:
            self.heartbeat(name)
        member = self.members[name]
        member.generation, member.seen_s = self.generation, self.now_s()
        names = sorted(self.members)
        mine = names.index(name)
        return tuple(p for n, p in enumerate(self.partitions) if (n + self.turn) % len(names) == mine)

    def commit(self, name: str) -> bool:
        """Take the group's offsets, from a member only. Raises: CommitFailedError."""
        member = self.members.get(name)
        if member is None or member.generation != self.generation:
            raise CommitFailedError
        member.seen_s = self.now_s()
        return True

    def leave(self, name: str) -> None:
        if self.members.pop(name, None) is not None:
            self.generation += 1

    def rebalance(self) -> None:
        """Deal the partitions out anew."""
        self.turn += 1
        self.generation += 1

    def expire(self) -> None:
        """Put out who has not been heard of; a broker that was away hears of everybody first."""
        now = self.now_s()
        if self.away():
            for member in self.members.values():
                member.seen_s = now
        for name in [n for n, m in self.members.items() if now - m.seen_s > SESSION_TIMEOUT_S]:
            self.leave(name)


class GroupConsumer(SimConsumer):
    """The subscribed consumer of one process: partitions come and go with the group."""

    def __init__(self, broker: SimBroker, process: Process, group: Group, topics: Sequence[str], listener: Any) -> None:
        super().__init__(broker, process, read_committed=True)
        self._group, self._topics, self._listener = group, topics, listener

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        del offsets
        if self._broker.arrives():
            await asyncio.sleep(1.0)
            raise KafkaConnectionError
        await self._process.ask(lambda: self._group.commit(self._process.name))

    async def live(self) -> None:
        """Heartbeat for ever, and take what the group gives."""
        while True:
            if await self._process.ask(lambda: self._group.heartbeat(self._process.name), arrives=self._broker.arrives):
                self._listener.on_partitions_revoked(self.assignment())
                mine = await self._process.ask(
                    lambda: self._group.sync(self._process.name), arrives=self._broker.arrives
                )
                tps = [TopicPartition(topic, p) for topic in self._topics for p in mine]
                self._positions = {tp: self._positions.get(tp, 0) for tp in tps}
                self._listener.on_partitions_assigned(tps)
            await asyncio.sleep(HEARTBEAT_S)
