"""The log's contract (`dialer/log.py`), one suite on the log in memory and on a real broker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from dialer.kafka_log import KafkaLog
from dialer.log import Log, OwnershipLost, PartitionLog, Record
from rehearsal.provision import provision
from runtime.clock import SystemClock
from schemas.steps import Step
from schemas.topics import BATCH_BYTES_MAX, CALLEES, COMMANDS, EVENTS, KEYS, OFFSETS_KEY
from tests.contracts import kafka_bed
from tests.doubles.memory_log import Fault, MemoryBroker, MemoryLog
from tests.doubles.tcp_proxy import Swallow, TcpProxy
from tests.platform_fixtures import SupervisorThread

ANSWER_TIMEOUT_S = 1.5
PARTITIONS = itertools.count()


class Died(BaseException):
    """The process ends here."""


class SteppedClock(SystemClock):
    """A clock that does something when a named point is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[Step, Callable[[], None]] = {}
        self.passed: list[Step] = []

    def passing(self, step: Step) -> None:
        self.passed.append(step)
        if step in self.at:
            self.at[step]()


class Bed(Protocol):
    """What the suite needs of an adapter."""

    clock: SteppedClock
    partition: int

    def log(self) -> Log: ...

    async def committed(self, topic: str, partition: int) -> list[tuple[bytes, bytes | None]]: ...

    def swallow_next_answer(self, *, applied: bool) -> None: ...

    def heal(self) -> None: ...


class MemoryBed:
    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.partition = 3
        self.broker = MemoryBroker()

    def log(self) -> Log:
        return MemoryLog(self.broker, self.clock)

    async def committed(self, topic: str, partition: int) -> list[tuple[bytes, bytes | None]]:
        return [(stored.key, stored.value) for stored in self.broker.committed(topic, partition)]

    def swallow_next_answer(self, *, applied: bool) -> None:
        fault = Fault.ANSWER_SWALLOWED_APPLIED if applied else Fault.ANSWER_SWALLOWED_LOST
        self.broker.next_commit(self.partition, fault)

    def heal(self) -> None:
        pass


class KafkaBed:
    def __init__(self, broker: kafka_bed.ProxiedBroker, proxy: TcpProxy, partition: int) -> None:
        self.clock = SteppedClock()
        self.partition = partition
        self._broker, self._proxy = broker, proxy

    def log(self) -> Log:
        return KafkaLog(self._broker.proxied, self.clock, answer_timeout_s=ANSWER_TIMEOUT_S)

    async def committed(self, topic: str, partition: int) -> list[tuple[bytes, bytes | None]]:
        async with kafka_bed.reader(self._broker.bootstrap, topic, partition) as seen:
            return seen

    def swallow_next_answer(self, *, applied: bool) -> None:
        def swallow() -> None:
            self._proxy.swallow = Swallow.ANSWERS if applied else Swallow.ANSWERS | Swallow.REQUESTS

        self.clock.at[Step.COMMIT_SENT] = swallow

    def heal(self) -> None:
        assert self._proxy.swallowed_bytes > 0
        self.clock.at.clear()
        self._proxy.swallow = Swallow.NOTHING


@pytest.fixture(scope="session")
def proxied_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_bed.ProxiedBroker]:
    run_dir: Path = tmp_path_factory.mktemp("proxied-kafka")
    thread = SupervisorThread(run_dir)
    try:
        broker = thread.run(kafka_bed.prepare(provision().jars, run_dir / "data"))
        thread.start([broker.spec])
        thread.run(kafka_bed.make_topics(broker.bootstrap))
        yield broker
    finally:
        thread.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.broker)])
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[Bed]:
    if request.param == "memory":
        yield MemoryBed()
        return
    broker: kafka_bed.ProxiedBroker = request.getfixturevalue("proxied_broker")
    proxy = TcpProxy("127.0.0.1", broker.target_port)
    await proxy.start(broker.proxy_port)
    try:
        yield KafkaBed(broker, proxy, next(PARTITIONS))
    finally:
        await proxy.close()


def event(bed: Bed, key: bytes, value: bytes = b"e") -> Record:
    return Record(EVENTS.name, bed.partition, key, value, (("ce_type", b"t"),))


def snapshot(bed: Bed, key: bytes, value: bytes | None) -> Record:
    return Record(CALLEES.name, bed.partition, key, value)


async def owner(bed: Bed) -> PartitionLog:
    opened = bed.log().open(bed.partition)
    await opened.fence()
    return opened


async def test_an_empty_partition_restores_to_nothing(bed: Bed) -> None:
    """A first owner starts from nothing."""
    log = await owner(bed)
    restored = await log.restore()
    assert (restored.snapshots, restored.keys, restored.offsets) == ({}, {}, None)
    await log.close()


async def test_a_commit_is_seen_whole_and_restored(bed: Bed) -> None:
    """All records of a commit appear, in order per partition; restore keeps offsets apart from snapshots."""
    log = await owner(bed)
    await log.commit(
        [
            event(bed, b"a", b"1"),
            snapshot(bed, b"a", b"s1"),
            event(bed, b"a", b"2"),
            Record(KEYS.name, bed.partition, b"a", b"k"),
            snapshot(bed, OFFSETS_KEY, b"o1"),
        ]
    )
    assert await bed.committed(EVENTS.name, bed.partition) == [(b"a", b"1"), (b"a", b"2")]
    assert bed.clock.passed == [Step.COMMIT_SENDING, Step.COMMIT_SENT, Step.COMMIT_ANSWERED]
    restored = await log.restore()
    assert (restored.snapshots, restored.keys, restored.offsets) == ({b"a": b"s1"}, {b"a": b"k"}, b"o1")
    await log.close()


async def test_restore_gives_the_last_value_of_every_key_and_honours_tombstones(bed: Bed) -> None:
    """Many small commits leave many markers, the last of them at the very end."""
    log = await owner(bed)
    for turn in range(5):
        await log.commit([snapshot(bed, b"a", b"a%d" % turn), snapshot(bed, b"b", b"b%d" % turn)])
    await log.commit([snapshot(bed, b"b", None)])
    await log.commit([snapshot(bed, b"c", b"c"), snapshot(bed, b"c", None), snapshot(bed, b"c", b"again")])
    await log.close()
    after = await owner(bed)
    assert (await after.restore()).snapshots == {b"a": b"a4", b"c": b"again"}
    await after.close()


async def test_nothing_to_write_is_no_transaction(bed: Bed) -> None:
    """An empty commit passes no point."""
    log = await owner(bed)
    await log.commit([])
    assert bed.clock.passed == []
    await log.close()


async def test_records_for_other_partitions_go_in_the_same_transaction(bed: Bed) -> None:
    """A forwarded stray is written with the decisions of the partition it strayed into."""
    log = await owner(bed)
    other = bed.partition + 1
    key = b"stray-of-%d" % bed.partition
    await log.commit([event(bed, b"a"), Record(COMMANDS.name, other, key, b"c", [("dialer_forwarded", b"1")])])
    assert (key, b"c") in await bed.committed(COMMANDS.name, other)
    await log.close()


async def test_a_commit_of_many_batches_is_whole(bed: Bed) -> None:
    """More than one batch's bytes per partition, in order."""
    log = await owner(bed)
    records = [event(bed, b"%04d" % n, b"x" * 3000) for n in range(1200)]
    await log.commit(records)
    assert [key for key, _ in await bed.committed(EVENTS.name, bed.partition)] == [r.key for r in records]
    await log.close()


async def test_a_second_opening_fences_the_first(bed: Bed) -> None:
    """The first one's commit fails and leaves nothing."""
    first = await owner(bed)
    await first.commit([event(bed, b"a")])
    second = await owner(bed)
    with pytest.raises(OwnershipLost):
        await first.commit([event(bed, b"late"), snapshot(bed, b"late", b"s")])
    await second.commit([event(bed, b"b")])
    assert await bed.committed(EVENTS.name, bed.partition) == [(b"a", b"e"), (b"b", b"e")]
    assert (await second.restore()).snapshots == {}
    for log in (first, second):
        await log.close()


async def test_an_opening_that_failed_never_writes_again(bed: Bed) -> None:
    """The second call fails at once, without a transaction."""
    first = await owner(bed)
    second = await owner(bed)
    for _ in range(2):
        with pytest.raises(OwnershipLost):
            await first.commit([event(bed, b"late")])
    assert bed.clock.passed.count(Step.COMMIT_SENDING) == 1
    await first.close()
    await second.close()


async def test_the_open_transaction_of_a_dead_owner_is_aborted_and_not_restored(bed: Bed) -> None:
    """An owner dies between its sends and its commit; the next one's fence ends the transaction."""
    dead = await owner(bed)
    await dead.commit([snapshot(bed, b"a", b"before"), snapshot(bed, OFFSETS_KEY, b"o1")])

    def die() -> None:
        raise Died

    bed.clock.at[Step.COMMIT_SENT] = die
    with pytest.raises(Died):
        await dead.commit([event(bed, b"a"), snapshot(bed, b"a", b"never"), snapshot(bed, OFFSETS_KEY, b"o2")])
    bed.clock.at.clear()
    after = await owner(bed)
    restored = await after.restore()
    assert (restored.snapshots, restored.offsets) == ({b"a": b"before"}, b"o1")
    assert await bed.committed(EVENTS.name, bed.partition) == []
    await after.commit([event(bed, b"a", b"after")])
    assert await bed.committed(EVENTS.name, bed.partition) == [(b"a", b"after")]
    await dead.close()
    await after.close()


async def test_a_batch_the_broker_refuses_ends_the_ownership_and_leaves_nothing(bed: Bed) -> None:
    """Left alone, aiokafka would commit the rest of the transaction without an error."""
    log = await owner(bed)
    too_large = b"x" * (BATCH_BYTES_MAX + 1024)
    with pytest.raises(OwnershipLost):
        await log.commit([snapshot(bed, b"a", b"s"), event(bed, b"a", too_large), event(bed, b"b")])
    with pytest.raises(OwnershipLost):
        await log.commit([event(bed, b"c")])
    after = await owner(bed)
    assert (await after.restore()).snapshots == {}
    assert await bed.committed(EVENTS.name, bed.partition) == []
    await log.close()
    await after.close()


@pytest.mark.parametrize("applied", [True, False])
async def test_a_commit_whose_answer_is_swallowed_is_all_or_nothing(bed: Bed, applied: bool) -> None:
    """The owner may assume neither; what the next one restores is whole."""
    log = await owner(bed)
    await log.commit([snapshot(bed, b"a", b"before")])
    bed.swallow_next_answer(applied=applied)
    with pytest.raises(OwnershipLost):
        await log.commit([event(bed, b"a"), snapshot(bed, b"a", b"after"), snapshot(bed, OFFSETS_KEY, b"o")])
    bed.heal()
    after = await owner(bed)
    restored = await after.restore()
    events = await bed.committed(EVENTS.name, bed.partition)
    whole = ({b"a": b"after"}, b"o", [(b"a", b"e")])
    found = (restored.snapshots, restored.offsets, events)
    assert found == (whole if applied else ({b"a": b"before"}, None, []))
    await log.close()
    await after.close()


async def test_a_cancelled_commit_ends_the_opening(bed: Bed) -> None:
    """Nobody knows how far it came."""
    log = await owner(bed)
    task = asyncio.create_task(log.commit([event(bed, b"a")]))

    def cancel() -> None:
        task.cancel()

    bed.clock.at[Step.COMMIT_SENDING] = cancel
    with pytest.raises(asyncio.CancelledError):
        await task
    bed.clock.at.clear()
    with pytest.raises(OwnershipLost):
        await log.commit([event(bed, b"b")])
    after = await owner(bed)
    assert await bed.committed(EVENTS.name, bed.partition) == []
    await log.close()
    await after.close()
