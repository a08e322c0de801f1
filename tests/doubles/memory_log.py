"""The log in memory: a small broker with partitions, offsets, epochs and transactions, and `dialer.log` on top of it.

It keeps what a real broker keeps, transaction markers and aborted records included, and knows no real time. What may go
wrong is switched on by name (`Fault`) and happens to the next commit of the partition it was switched on for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from dialer.log import Headers, OwnershipLost, PartitionLog, Record, Restored
from runtime.clock import Clock
from schemas.steps import Step
from schemas.topics import BATCH_BYTES_MAX, CALLEES, KEYS, OFFSETS_KEY


class Fault(Enum):
    """What happens to the next commit of a partition."""

    REFUSE_RECORD = "refuse_record"
    ANSWER_SWALLOWED_APPLIED = "answer_swallowed_applied"
    ANSWER_SWALLOWED_LOST = "answer_swallowed_lost"
    FENCED_MID_COMMIT = "fenced_mid_commit"


class Fate(Enum):
    """What became of a transaction."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True)
class Transaction:
    """A transaction of one producer epoch; `touched` are the partitions that get its marker."""

    fate: Fate = Fate.OPEN
    touched: set[tuple[str, int]] = field(default_factory=set)


@dataclass(slots=True)  # not frozen: a simulation makes millions, and each field would cost a call
class Stored:
    """A record at its offset, or a transaction's marker. Never changed."""

    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None
    headers: Headers = ()
    transaction: Transaction | None = None
    is_marker: bool = False

    @property
    def is_committed(self) -> bool:
        """Whether a read_committed reader may see it, its place in the log apart."""
        return not self.is_marker and (self.transaction is None or self.transaction.fate is Fate.COMMITTED)


class MemoryBroker:
    """Topics, partitions, transactional ids. Every timestamp is the next millisecond of its own."""

    def __init__(self, *, record_bytes_max: int = BATCH_BYTES_MAX) -> None:
        self.record_bytes_max = record_bytes_max
        self._partitions: dict[tuple[str, int], list[Stored]] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Transaction] = {}
        self._faults: dict[int, Fault] = {}
        self._timestamp_ms = 0

    def next_commit(self, partition: int, fault: Fault) -> None:
        """Let something go wrong with the next commit of this partition."""
        self._faults[partition] = fault

    def take_fault(self, partition: int) -> Fault | None:
        """Return what is to go wrong now, once."""
        return self._faults.pop(partition, None)

    def produce(self, record: Record, transaction: Transaction | None = None) -> int:
        """Append a record, in a transaction or without one; return its offset. Raises: ValueError when too large."""
        if len(record.key) + len(record.value or b"") > self.record_bytes_max:
            raise ValueError("record above max.message.bytes")
        if transaction is not None:
            transaction.touched.add((record.topic, record.partition))
        return self._append(record, transaction)

    def start_producer(self, transactional_id: str) -> int:
        """Fence every earlier producer of this id, end its open transaction, return the new epoch."""
        if transactional_id in self._open:
            self._end(transactional_id, Fate.ABORTED)
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return self._epochs[transactional_id]

    def is_current(self, transactional_id: str, epoch: int) -> bool:
        """Say whether this producer was not fenced."""
        return self._epochs.get(transactional_id) == epoch

    def begin(self, transactional_id: str) -> Transaction:
        """Open a transaction."""
        assert transactional_id not in self._open
        self._open[transactional_id] = transaction = Transaction()
        return transaction

    def commit(self, transactional_id: str) -> None:
        """Commit the open transaction."""
        self._end(transactional_id, Fate.COMMITTED)

    def raw(self, topic: str, partition: int) -> list[Stored]:
        """Return everything at its offset: open, aborted, markers."""
        return list(self._partitions.get((topic, partition), ()))

    def committed(self, topic: str, partition: int) -> list[Stored]:
        """Return what a read_committed reader sees now: nothing at or behind the first open transaction's record."""
        seen = []
        for stored in self._partitions.get((topic, partition), ()):
            if stored.transaction is not None and stored.transaction.fate is Fate.OPEN:
                break
            if stored.is_committed:
                seen.append(stored)
        return seen

    def read(
        self, topic: str, partition: int, start: int, *, committed: bool, count_max: int
    ) -> tuple[list[Stored], int]:
        """Return what a reader at `start` is handed next, and its position then, which passes markers and aborted records."""
        log = self._partitions.get((topic, partition), ())
        found: list[Stored] = []
        position = start
        while position < len(log) and len(found) < count_max:
            stored = log[position]
            if committed and stored.transaction is not None and stored.transaction.fate is Fate.OPEN:
                break
            if stored.is_committed if committed else not stored.is_marker:
                found.append(stored)
            position += 1
        return found, position

    def latest(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """Return the last committed value of every key that has one."""
        found: dict[bytes, bytes] = {}
        for stored in self.committed(topic, partition):
            if stored.value is None:
                found.pop(stored.key, None)
            else:
                found[stored.key] = stored.value
        return found

    def uncommitted(self, topic: str, partition: int) -> list[Stored]:
        """Return what a read_uncommitted reader sees: all records, no markers."""
        return [stored for stored in self._partitions.get((topic, partition), ()) if not stored.is_marker]

    def clear(self) -> None:
        """Let go of every record."""
        self._partitions.clear()

    def high_watermark(self, topic: str, partition: int) -> int:
        """Return the offset that the next record gets."""
        return len(self._partitions.get((topic, partition), ()))

    def _end(self, transactional_id: str, fate: Fate) -> None:
        transaction = self._open.pop(transactional_id)
        transaction.fate = fate
        for topic, partition in sorted(transaction.touched):
            self._append(Record(topic, partition, b"", None), transaction, is_marker=True)

    def _append(self, record: Record, transaction: Transaction | None, *, is_marker: bool = False) -> int:
        log = self._partitions.setdefault((record.topic, record.partition), [])
        self._timestamp_ms += 1
        offset = len(log)
        log.append(Stored(offset, self._timestamp_ms, record.key, record.value, record.headers, transaction, is_marker))
        return offset


class MemoryLog:
    """Opens partitions of a broker in memory."""

    def __init__(self, broker: MemoryBroker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock

    def open(self, partition: int) -> PartitionLog:
        """Return a new opening, which fences earlier ones when `fence` is called."""
        return MemoryPartitionLog(self._broker, self._clock, partition)


class MemoryPartitionLog:
    """One opening of one partition; it yields wherever a real one waits for an answer."""

    def __init__(self, broker: MemoryBroker, clock: Clock, partition: int) -> None:
        self._broker = broker
        self._clock = clock
        self._partition = partition
        self._id = f"dialer-{partition}"
        self._epoch: int | None = None
        self._lost = False

    async def fence(self) -> None:
        """End every earlier opening and its open transaction."""
        assert self._epoch is None, "an opening fences once"
        await self._clock.sleep(0)
        self._epoch = self._broker.start_producer(self._id)
        await self._clock.sleep(0)

    async def restore(self) -> Restored:
        """Read `dialer.callees` and `dialer.keys` of this partition to their ends."""
        assert self._epoch is not None, "fence first"
        await self._clock.sleep(0)
        snapshots, keys = (self._broker.latest(topic.name, self._partition) for topic in (CALLEES, KEYS))
        return Restored(offsets=snapshots.pop(OFFSETS_KEY, None), snapshots=snapshots, keys=keys)

    async def commit(self, records: Sequence[Record]) -> None:
        """Write all records in one transaction and wait for the answer. Raises: OwnershipLost."""
        if self._lost:
            raise OwnershipLost(f"partition {self._partition}: this opening has ended")
        if not records:
            return
        assert self._epoch is not None, "fence first"
        done = False
        try:
            await self._commit(records)
            done = True
        finally:
            self._lost = self._lost or not done
        self._clock.passing(Step.COMMIT_ANSWERED)

    async def close(self) -> None:
        """Let go; an open transaction stays until the next fence, as on a real broker until its timeout."""
        self._lost = True

    async def _commit(self, records: Sequence[Record]) -> None:
        fault = self._broker.take_fault(self._partition)
        self._clock.passing(Step.COMMIT_SENDING)
        self._require(self._is_current)
        transaction = self._broker.begin(self._id)
        for record in records:
            try:
                self._broker.produce(record, transaction)
            except ValueError as error:
                raise OwnershipLost(f"partition {self._partition}: commit: {error}") from error
        await self._clock.sleep(0)
        if fault is Fault.FENCED_MID_COMMIT:
            self._broker.start_producer(self._id)
        self._require(lambda: fault is not Fault.REFUSE_RECORD)
        self._require(self._is_current)
        self._clock.passing(Step.COMMIT_SENT)
        self._require(lambda: fault is not Fault.ANSWER_SWALLOWED_LOST)
        self._broker.commit(self._id)
        await self._clock.sleep(0)
        self._require(lambda: fault is not Fault.ANSWER_SWALLOWED_APPLIED)

    def _is_current(self) -> bool:
        assert self._epoch is not None
        return self._broker.is_current(self._id, self._epoch)

    def _require(self, holds: Callable[[], bool]) -> None:
        if not holds():
            raise OwnershipLost(f"partition {self._partition}: commit")
