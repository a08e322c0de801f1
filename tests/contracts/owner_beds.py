"""Where the owner's contract runs: on the log in memory and on a real broker, with a small feed and recording effects."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from dialer.callee.owed import Effect
from dialer.callee.state import Callee
from dialer.kafka_log import KafkaLog
from dialer.log import Headers, Log, OwnershipLost
from dialer.owner import Feed, Owner
from dialer.ownership import Ownership, PositionLost
from dialer.stops_reader import raw_record
from runtime.clock import SystemClock
from runtime.kafka import admin, assigned_consumer, idempotent_producer
from schemas.observations import DialOutcome
from schemas.steps import Step
from schemas.topics import BATCH_BYTES_MAX, CALLEES, COMMANDS, EVENTS, OBSERVATIONS, OFFSETS_KEY, REJECTED, STOPS, Topic
from schemas.values import Invalid, callee_key, parse_number, partition_of
from tests.contracts import kafka_bed
from tests.doubles.memory_feed import ClockedBroker, MemoryFeed, Shelf, campaign, campaigns_of
from tests.doubles.memory_log import Fault, MemoryLog
from tests.doubles.tcp_proxy import Swallow, TcpProxy
from tests.doubles.waiting import until
from tests.doubles.world import PEPPER, id_of, key_of, parts

INPUTS = (COMMANDS, OBSERVATIONS, STOPS)
ANSWER_TIMEOUT_S = 1.5


class SteppedClock(SystemClock):
    """A real clock that does something, once, when a named point is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[Step, Callable[[], None]] = {}
        self.passed: list[Step] = []

    def passing(self, step: Step) -> None:
        self.passed.append(step)
        act = self.at.pop(step, None)
        if act is not None:
            act()


class Recording:
    """Effects that are written down; slots are always held."""

    def __init__(self, ownership: Ownership) -> None:
        self.ownership = ownership
        self.wanted: list[tuple[str, frozenset[Effect]]] = []
        self.orphans: list[tuple[str, DialOutcome]] = []
        self.joined: list[tuple[str, int]] = []
        self.closed = False

    def align(self, callee: Callee, wanted: frozenset[Effect], decided_at: float) -> None:
        self.wanted.append((callee.callee_key, wanted))

    def holds_slot(self, call_id: str) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def leg_joined(self, callee_key: str, call_id: str, attempt: int) -> None:
        self.joined.append((call_id, attempt))

    def orphaned(self, call_id: str, outcome: DialOutcome) -> None:
        self.orphans.append((call_id, outcome))

    def last(self) -> frozenset[Effect]:
        return self.wanted[-1][1]


class Broker(Protocol):
    """What the suite needs of an adapter."""

    log: Log
    feed: Feed

    async def send(
        self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers, partition: int
    ) -> int: ...

    async def committed(self, topic: Topic, partition: int) -> list[tuple[bytes, bytes | None]]: ...

    async def headers(self, topic: Topic, partition: int) -> list[tuple[int, dict[str, bytes]]]: ...

    async def refuse_events(self, *, refused: bool) -> None: ...

    async def begin_at(self, topic: Topic, partition: int, offset: int) -> None: ...

    def swallow_next_answer(self, *, applied: bool) -> None: ...

    def heal(self) -> None: ...

    def another_feed(self) -> Feed: ...


@dataclass
class OwnerBed:
    """One partition, its owners, and everything on it."""

    broker: Broker
    partition: int
    clock: SteppedClock
    owners: list[Owner] = field(default_factory=list)
    effects: list[Recording] = field(default_factory=list)
    make_effects: Callable[[Ownership], Any] | None = None

    def __post_init__(self) -> None:
        self.numbers = numbers_on(self.partition)
        self.number = next(self.numbers)

    async def own(self, logs: Log | None = None, feed: Feed | None = None) -> Owner:
        """Start an owner; it runs until the bed is closed."""
        campaigns = campaigns_of(Shelf(campaign()), self.clock)
        await campaigns.warm()
        shared = parts(self.clock, campaigns, self.make_effects or self._recorded)
        owner = Owner(self.partition, logs or self.broker.log, shared, feed or self.broker.feed, self.clock)
        self.owners.append(owner)
        self.clock.spawn(owner.run(), "owner")
        return owner

    def _recorded(self, ownership: Ownership) -> Recording:
        self.effects.append(Recording(ownership))
        return self.effects[-1]

    async def owned(self, owner: Owner) -> Ownership:
        await until(lambda: owner.current is not None)
        assert owner.current is not None
        return owner.current

    async def send(
        self,
        topic: Topic,
        value: bytes | None,
        key: str | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> int:
        """Produce to the bed's partition unless told otherwise."""
        named = None if key is None else key.encode()
        return await self.broker.send(topic, named, value, headers, self.partition if partition is None else partition)

    async def taken(self, owner: Owner, topic: Topic, offset: int) -> None:
        """Wait until an input's position is behind it."""
        await until(lambda: owner.current is not None and owner.current.positions.get(topic.name, 0) > offset)

    async def place(self, owner: Owner, to: str | None = None, request: str = "r-1", **more: Any) -> str:
        """Ask for a call and wait until it is taken."""
        number = to or self.number
        offset = await self.send(COMMANDS, place(number, request, **more), key_of(number))
        await self.taken(owner, COMMANDS, offset)
        return id_of(number, request)

    async def events(self, call: str | None = None) -> list[dict[str, Any]]:
        found = [orjson.loads(v or b"{}") for _, v in await self.broker.committed(EVENTS, self.partition)]
        return [e for e in found if call is None or e.get("subject") == call]

    async def told(self, call: str | None = None) -> list[str]:
        return [e["type"].split(".")[2] for e in await self.events(call)]

    async def rejected(self) -> list[dict[str, Any]]:
        """Return what was refused, without what only the broker knows."""
        found = [orjson.loads(v or b"{}")["data"] for _, v in await self.broker.committed(REJECTED, self.partition)]
        return sorted(found, key=lambda d: (d["topic"], d["offset"]))

    async def snapshots(self) -> dict[bytes, bytes | None]:
        return dict(await self.broker.committed(CALLEES, self.partition))

    async def offsets(self) -> dict[str, int]:
        value = (await self.snapshots()).get(OFFSETS_KEY)
        return {} if value is None else dict(orjson.loads(value)["next"])

    async def close(self) -> None:
        for owner in self.owners:
            owner.stop()
        self.broker.heal()


def numbers_on(partition: int) -> Iterator[str]:
    """Give numbers whose callees belong to a partition."""
    for n in itertools.count():
        number = f"+1212{2000000 + n * 17}"
        try:
            if partition_of(callee_key(parse_number(number).e164, PEPPER)) == partition:
                yield number
        except Invalid:
            continue


def place(to: str, request: str = "r-1", command_id: str | None = None, **more: Any) -> bytes:
    """Write a `place_call` as a pipeline does."""
    data = {
        "request_id": request,
        "campaign_id": "rx-refill",
        "to": to,
        "variables": {"first_name": "Ann", "store": "Main Street"},
    }
    return command("place_call", command_id or f"cmd-{request}", data | more)


def command(kind: str, command_id: str, data: Any, **attributes: Any) -> bytes:
    envelope = {
        "specversion": "1.0",
        "type": kind if "." in kind else f"dialer.command.{kind}.v1",
        "source": "/campaigns/rx-refill",
        "id": command_id,
        "data": data,
    }
    return orjson.dumps({k: v for k, v in (envelope | attributes).items() if v is not ...})


class MemoryBed:
    """The log and the feed in memory, on the real clock."""

    def __init__(self, clock: SteppedClock, partition: int) -> None:
        self._partition, self.clock = partition, clock
        self.memory = ClockedBroker(clock)
        self.log: Log = MemoryLog(self.memory, clock)
        self.memory_feed = MemoryFeed(self.memory, clock)
        self.feed: Feed = self.memory_feed

    async def send(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers, partition: int) -> int:
        return self.memory.send(topic, (key or b"").decode(), value, headers, partition)

    async def committed(self, topic: Topic, partition: int) -> list[tuple[bytes, bytes | None]]:
        return [(s.key, s.value) for s in self.memory.committed(topic.name, partition)]

    async def headers(self, topic: Topic, partition: int) -> list[tuple[int, dict[str, bytes]]]:
        return [(s.timestamp_ms, dict(s.headers)) for s in self.memory.committed(topic.name, partition)]

    async def refuse_events(self, *, refused: bool) -> None:
        self.memory.record_bytes_max = 1000 if refused else BATCH_BYTES_MAX

    async def begin_at(self, topic: Topic, partition: int, offset: int) -> None:
        self.memory_feed.begins[topic.name] = offset

    def swallow_next_answer(self, *, applied: bool) -> None:
        fault = Fault.ANSWER_SWALLOWED_APPLIED if applied else Fault.ANSWER_SWALLOWED_LOST
        self.memory.next_commit(self._partition, fault)

    def heal(self) -> None:
        pass

    def another_feed(self) -> Feed:
        return MemoryFeed(self.memory, self.clock)


class KafkaBed:
    """A real broker; the log's clients come through a proxy."""

    def __init__(self, broker: kafka_bed.ProxiedBroker, proxy: TcpProxy, clock: SteppedClock) -> None:
        self._broker, self._proxy, self._clock = broker, proxy, clock
        self.log: Log = KafkaLog(broker.proxied, clock, answer_timeout_s=ANSWER_TIMEOUT_S)
        self.feed: Feed = KafkaFeed(broker.bootstrap, clock)
        self.producer = idempotent_producer(broker.bootstrap, "test")

    async def send(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers, partition: int) -> int:
        sent = await self.producer.send_and_wait(topic.name, value, key=key, partition=partition, headers=list(headers))
        return int(sent.offset)

    async def committed(self, topic: Topic, partition: int) -> list[tuple[bytes, bytes | None]]:
        async with kafka_bed.reader(self._broker.bootstrap, topic.name, partition) as seen:
            return seen

    async def headers(self, topic: Topic, partition: int) -> list[tuple[int, dict[str, bytes]]]:
        tp = TopicPartition(topic.name, partition)
        consumer = assigned_consumer(self._broker.bootstrap, "headers", read_committed=True)
        await consumer.start()
        try:
            consumer.assign([tp])
            consumer.seek(tp, 0)
            async with asyncio.timeout(20):
                while not (fetched := (await consumer.getmany(tp, timeout_ms=200)).get(tp)):
                    pass
            return [(r.timestamp, dict(r.headers)) for r in fetched]
        finally:
            await consumer.stop()

    async def refuse_events(self, *, refused: bool) -> None:
        config = EVENTS.config | ({"max.message.bytes": "1000"} if refused else {})
        client = admin(self._broker.bootstrap)
        await client.start()
        try:
            await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, EVENTS.name, configs=config)])
        finally:
            await client.close()

    async def begin_at(self, topic: Topic, partition: int, offset: int) -> None:
        client = admin(self._broker.bootstrap)
        await client.start()
        try:
            await client.delete_records({TopicPartition(topic.name, partition): RecordsToDelete(offset)})
        finally:
            await client.close()

    def swallow_next_answer(self, *, applied: bool) -> None:
        def swallow() -> None:
            self._proxy.swallow = Swallow.ANSWERS if applied else Swallow.ANSWERS | Swallow.REQUESTS

        self._clock.at[Step.COMMIT_SENT] = swallow

    def heal(self) -> None:
        self._proxy.swallow = Swallow.NOTHING

    def another_feed(self) -> Feed:
        return KafkaFeed(self._broker.bootstrap, self._clock)


class KafkaFeed:
    """Reads one partition's inputs by itself, without a group."""

    def __init__(self, bootstrap: str, clock: SteppedClock) -> None:
        self._bootstrap, self._clock = bootstrap, clock
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def resume(self, ownership: Ownership, positions: Mapping[str, int]) -> None:
        tps = [TopicPartition(topic.name, ownership.partition) for topic in INPUTS]
        consumer = assigned_consumer(self._bootstrap, "feed", read_committed=True, fetch_max_wait_ms=10)
        await consumer.start()
        for tp, start in (await consumer.beginning_offsets(tps)).items():
            if positions.get(tp.topic, start) < start:
                await consumer.stop()
                raise PositionLost(f"$offsets lie below the start of {tp.topic}")
            ownership.positions.setdefault(tp.topic, start)
        if not ownership.alive:
            await consumer.stop()
            raise OwnershipLost("ended meanwhile")
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, ownership.positions[tp.topic])
        delivering = self._clock.spawn(self._deliver(consumer, ownership), "feed")
        self._tasks[ownership.partition] = (ownership, delivering)

    def suspend(self, ownership: Ownership) -> None:
        fed, delivering = self._tasks.get(ownership.partition, (None, None))
        if fed is ownership and delivering is not None:
            del self._tasks[ownership.partition]
            delivering.cancel()

    async def _deliver(self, consumer: Any, ownership: Ownership) -> None:
        try:
            while ownership.alive:
                for tp, records in (await consumer.getmany(timeout_ms=20)).items():
                    taken = [raw_record(r) for r in records]
                    if tp.topic == STOPS.name:
                        ownership.offer_stops(taken)
                    else:
                        for full in ownership.offer_records(taken):
                            await ownership.space(full)
        finally:
            await consumer.stop()
