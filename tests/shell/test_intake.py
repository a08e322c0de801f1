"""The edge to Kafka on a real broker: partitions come and go with the group, a bug is not stepped over."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition

from dialer.intake import INPUTS, Intake
from dialer.kafka_log import KafkaLog
from dialer.owner import Owner
from dialer.ownership import Ownership
from dialer.topic_setup import create_or_verify
from runtime.clock import SystemClock
from runtime.kafka import assigned_consumer, idempotent_producer
from schemas.topics import COMMANDS, EVENTS, STOPS
from schemas.values import PARTITIONS, partition_of
from tests.contracts.owner_beds import Recording, command, numbers_on, place
from tests.doubles.memory_feed import Shelf, campaign, campaigns_of
from tests.doubles.waiting import until
from tests.doubles.world import id_of, key_of, parts

pytestmark = pytest.mark.broker


class Member:
    """One process' intake with its owners; effects are written down."""

    def __init__(self, bootstrap: str, group_id: str) -> None:
        self.clock = SystemClock()
        self.shares: list[int] = []
        self.effects: list[Recording] = []
        logs = KafkaLog(bootstrap, self.clock)
        campaigns = campaigns_of(Shelf(campaign()), self.clock)
        shared = parts(self.clock, campaigns, self._recorded)
        self.campaigns = campaigns
        self.intake = Intake(
            bootstrap,
            group_id,
            6.0,
            lambda partition: Owner(partition, logs, shared, self.intake, self.clock),
            self.shares.append,
            self.clock,
        )

    def _recorded(self, ownership: Ownership) -> Recording:
        self.effects.append(Recording(ownership))
        return self.effects[-1]

    def owned(self) -> set[int]:
        return {p for p, owner in self.intake.owners.items() if owner.current is not None}

    async def start(self) -> None:
        await self.campaigns.warm()
        await self.intake.start()


class Group:
    """Members of one group, and a pipeline that writes."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.name = f"dialer-{secrets.token_hex(4)}"
        self.members: list[Member] = []
        self.producer = idempotent_producer(bootstrap, "test")
        self.mark = secrets.token_hex(4)
        self._requests = itertools.count()

    async def member(self) -> Member:
        member = Member(self.bootstrap, self.name)
        self.members.append(member)
        await member.start()
        return member

    async def place(self, partition: int, number: str | None = None) -> str:
        """Ask for a call of a callee of this partition; return its id."""
        to, request = number or next(numbers_on(partition)), f"{self.mark}-{next(self._requests)}"
        await self.producer.send_and_wait(
            COMMANDS.name, place(to, request), key=key_of(to).encode(), partition=partition
        )
        return id_of(to, request)

    async def told(self, calls: list[str]) -> dict[str, list[str]]:
        """Return what stands on the log about these calls."""
        found: dict[str, list[str]] = {call: [] for call in calls}
        tps = [TopicPartition(EVENTS.name, p) for p in sorted({partition_of(call[:26]) for call in calls})]
        consumer = assigned_consumer(self.bootstrap, "test", read_committed=True, fetch_max_wait_ms=10)
        await consumer.start()
        try:
            ends = await consumer.end_offsets(tps)
            consumer.assign(tps)
            for tp in tps:
                consumer.seek(tp, 0)
            while [tp for tp in tps if await consumer.position(tp) < ends[tp]]:
                for records in (await consumer.getmany(timeout_ms=50)).values():
                    for record in records:
                        event = orjson.loads(record.value)
                        if event.get("subject") in found:
                            found[event["subject"]].append(event["type"].split(".")[2])
        finally:
            await consumer.stop()
        return found

    async def wait_for(self, calls: list[str]) -> dict[str, list[str]]:
        """Wait until each call is on the log."""
        async with asyncio.timeout(40):
            while not all((told := await self.told(calls)).values()):
                await asyncio.sleep(0.1)
        return told


@pytest.fixture
async def group(kafka_bootstrap: str) -> AsyncIterator[Group]:
    await create_or_verify(kafka_bootstrap)
    group = Group(kafka_bootstrap)
    await group.producer.start()
    yield group
    for member in group.members:
        await member.intake.stop()
    await group.producer.stop()


async def test_one_member_owns_everything_and_takes_what_comes(group: Group) -> None:
    """Commands and stops of every partition; its membership and its stops are known to be fresh."""
    member = await group.member()
    await until(lambda: len(member.owned()) == PARTITIONS)
    assert member.shares[-1] == PARTITIONS
    calls = [await group.place(p) for p in range(0, PARTITIONS, 5)]
    told = await group.wait_for(calls)
    assert set(map(tuple, told.values())) == {("call_requested", "call_prepared")}
    stop = command("cancel_call", f"stop-{group.mark}", {"call_id": calls[0]})
    await group.producer.send_and_wait(STOPS.name, stop, key=calls[0][:26].encode(), partition=0)
    ownership = member.intake.owners[0].current
    assert ownership is not None
    await until(lambda: ownership.committed(calls[0][:26]) is None)
    assert (await group.told(calls[:1]))[calls[0]][-2:] == ["call_cancelled", "call_refused"]
    await until(lambda: member.intake.membership_age_s() < 3.0)
    await until(lambda: member.intake.stops_age_s(ownership) < 1.0)


async def test_partitions_move_whole_and_no_input_is_lost_or_taken_twice(group: Group) -> None:
    """A second member comes and goes while requests keep coming."""
    first = await group.member()
    await until(lambda: len(first.owned()) == PARTITIONS)
    calls: list[str] = []
    stopping = asyncio.Event()

    async def keep_asking() -> None:
        for n in itertools.count():
            calls.append(await group.place(n % PARTITIONS))
            if stopping.is_set():
                return
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(keep_asking())
    second = await group.member()
    await until(lambda: len(second.owned()) == PARTITIONS // 2 and len(first.owned()) == PARTITIONS // 2, 60)
    assert first.owned() | second.owned() == set(range(PARTITIONS))
    assert (first.shares[-1], second.shares[-1]) == (12, 12)
    for member in (first, second):
        consumer = member.intake._consumer
        assert consumer is not None
        assert consumer.assignment() == {TopicPartition(topic, p) for topic in INPUTS for p in member.owned()}
    await second.intake.stop()
    await until(lambda: len(first.owned()) == PARTITIONS, 60)
    stopping.set()
    await asking
    told = await group.wait_for(calls)
    assert set(map(tuple, told.values())) <= {
        ("call_requested", "call_prepared"),
        ("call_requested", "call_prepared", "call_deferred"),
    }
    assert len(told) == len(calls) > 20


async def test_a_next_process_goes_on_where_the_former_ended(group: Group) -> None:
    """What came in between is taken, what was taken is not taken again."""
    first = await group.member()
    await until(lambda: len(first.owned()) == PARTITIONS)
    before = [await group.place(p) for p in (1, 2)]
    await group.wait_for(before)
    await first.intake.stop()
    between = [await group.place(p) for p in (1, 2)]
    second = await group.member()
    await until(lambda: len(second.owned()) == PARTITIONS, 60)
    told = await group.wait_for(before + between)
    assert {names.count("call_requested") for names in told.values()} == {1}
    assert {key_of(next(numbers_on(p))) for p in (1, 2)} <= {key for e in second.effects for key, _ in e.wanted}


async def test_an_ownership_that_ends_late_stops_nothing_of_its_successors(group: Group) -> None:
    """A commit without an answer ends its ownership 10 s late; the partition had gone and come back, and its inputs, and
    stops, were cut off for good (simulation, seeds 809 and 1693).
    """
    member = await group.member()
    await until(lambda: len(member.owned()) == PARTITIONS)
    owner = member.intake.owners[3]
    former = owner.current
    assert former is not None
    former.end()
    await until(lambda: owner.current is not None and owner.current is not former)
    member.intake.suspend(former)
    await group.wait_for([await group.place(3)])
    successor = owner.current
    assert successor is not None
    await until(lambda: member.intake.stops_age_s(successor) < 1.0)


async def test_a_bug_while_a_batch_is_handed_over_ends_the_process(group: Group) -> None:
    """FastStream logs and swallows what a handler raises, and the next commit would step over the batch."""
    member = await group.member()
    await until(lambda: len(member.owned()) == PARTITIONS)

    class Bug(RuntimeError):
        pass

    def offer_records(_: Any) -> None:
        raise Bug

    member.intake._feeding[3] = SimpleNamespace(offer_records=offer_records)  # type: ignore[assignment]
    await group.place(3)
    async with asyncio.timeout(20):
        assert isinstance(await member.clock.failed(), Bug)


async def test_a_bug_in_an_owner_ends_the_process(group: Group) -> None:
    """It leaves by the clock's `failed`, whatever the edge thinks of it."""
    member = await group.member()
    await until(lambda: len(member.owned()) == PARTITIONS)

    class Bug(RuntimeError):
        pass

    def align(*_: Any) -> None:
        raise Bug

    for effects in member.effects:
        effects.align = align  # type: ignore[method-assign]
    await group.place(4)
    async with asyncio.timeout(20):
        assert isinstance(await member.clock.failed(), Bug)


GHOST = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

async def stay():
    consumer = AIOKafkaConsumer(
        *sys.argv[3:], bootstrap_servers=sys.argv[1], group_id=sys.argv[2], session_timeout_ms=6000,
        enable_auto_commit=False, partition_assignment_strategy=(RangePartitionAssignor,),
    )
    await consumer.start()
    await asyncio.Event().wait()

asyncio.run(stay())
"""


async def test_a_member_that_dies_costs_the_others_one_rebalance(group: Group) -> None:
    """No commit is sent while they wait for it in JoinGroup: answered late, it would make each of them join anew, for ever."""
    members = [await group.member(), await group.member()]
    await until(lambda: sum(len(member.owned()) for member in members) == PARTITIONS)
    ghost = await asyncio.create_subprocess_exec(sys.executable, "-c", GHOST, group.bootstrap, group.name, *INPUTS)
    try:
        await until(lambda: sum(member.shares[-1] for member in members) < PARTITIONS)
    finally:
        ghost.kill()
        await ghost.wait()
    before = [len(member.shares) for member in members]
    await until(lambda: sum(member.shares[-1] for member in members) == PARTITIONS)
    await until(lambda: all(member.intake.membership_age_s() < 1.5 for member in members))
    assert [len(member.shares) - was for member, was in zip(members, before, strict=True)] == [1, 1]
