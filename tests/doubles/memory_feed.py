"""What stands around owners in memory: a broker on the test's clock, its feed, a producer of requests, campaigns."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

from dialer.campaigns import Campaigns, NotFound, Unreachable
from dialer.log import Headers, OwnershipLost, Record
from dialer.ownership import Ownership
from dialer.records import RawRecord
from dialer.requests import NotAccepted
from runtime.clock import Clock
from schemas.campaign import Campaign, load_campaign
from schemas.envelope import Envelope, encode, headers_of
from schemas.topics import COMMANDS, OBSERVATIONS, STOPS, Topic
from schemas.values import partition_of
from tests.doubles.memory_log import MemoryBroker, Stored, Transaction

CAMPAIGN = "rx-refill"
TRUNK = "cvs-retail-outbound"


class ClockedBroker(MemoryBroker):
    """A broker in memory that stamps records with the test's clock, and says when something was written."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.written = asyncio.Event()
        self.ahead_s = 0.0
        """How far the broker's clock is ahead of the test's."""

    def _append(self, record: Record, transaction: Transaction | None, *, is_marker: bool = False) -> int:
        self._timestamp_ms = max(self._timestamp_ms, int((self._clock.now().timestamp() + self.ahead_s) * 1000) - 1)
        offset = super()._append(record, transaction, is_marker=is_marker)
        self.written.set()
        self.written = asyncio.Event()
        return offset

    def send(
        self, topic: Topic, key: str | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> int:
        """Produce without a transaction; to the key's canonical partition unless told otherwise."""
        place = partition_of(key or "") if partition is None else partition
        return self.produce(Record(topic.name, place, (key or "").encode(), value, headers))


def raw(stored: Stored, topic: str, partition: int) -> RawRecord:
    """Return a stored record as a consumer has it: an empty key was none."""
    return RawRecord(
        topic=topic,
        partition=partition,
        offset=stored.offset,
        timestamp_ms=stored.timestamp_ms,
        key=stored.key or None,
        value=stored.value,
        headers=tuple(stored.headers),
    )


class MemoryFeed:
    """Feeds owners from the broker in memory: stops uncommitted, the rest committed, each from the position on."""

    def __init__(self, broker: ClockedBroker, clock: Clock) -> None:
        self._broker, self._clock = broker, clock
        self._feeding: dict[int, tuple[Ownership, asyncio.Task[None]]] = {}
        self.begins: dict[str, int] = {}
        """Where topics begin: set to test what retention has deleted."""
        self.delayed: set[str] = set()
        """Topics that do not flow for now."""

    async def resume(self, ownership: Ownership, positions: Mapping[str, int]) -> None:
        from dialer.ownership import PositionLost

        for topic in (COMMANDS, OBSERVATIONS, STOPS):
            begin = self.begins.get(topic.name, 0)
            if positions.get(topic.name, begin) < begin:
                raise PositionLost(f"$offsets lie below the start of {topic.name}")
            ownership.positions.setdefault(topic.name, begin)
        if not ownership.alive:
            raise OwnershipLost("ended meanwhile")
        if ownership.partition in self._feeding:
            self.suspend(self._feeding[ownership.partition][0])
        next_at = dict(ownership.positions)
        delivering = self._clock.spawn(self._deliver(ownership, next_at), "feed")
        self._feeding[ownership.partition] = (ownership, delivering)

    def suspend(self, ownership: Ownership) -> None:
        fed, delivering = self._feeding.get(ownership.partition, (None, None))
        if fed is ownership and delivering is not None:
            del self._feeding[ownership.partition]
            delivering.cancel()

    def stops_age_s(self, ownership: Ownership) -> float:
        """0 where every stop there is was committed."""
        stops = self._broker.uncommitted(STOPS.name, ownership.partition)
        after_last = stops[-1].offset + 1 if stops else 0
        return 0.0 if ownership.positions.get(STOPS.name, 0) >= after_last else 1e9

    async def _deliver(self, ownership: Ownership, next_at: dict[str, int]) -> None:
        while ownership.alive:
            written = self._broker.written
            for topic in (STOPS, COMMANDS, OBSERVATIONS):
                records = self._new(topic.name, ownership.partition, next_at)
                if not records:
                    continue
                next_at[topic.name] = records[-1].offset + 1
                if topic is STOPS:
                    ownership.offer_stops(records)
                else:
                    for full in ownership.offer_records(records):
                        await ownership.space(full)
            await written.wait()

    def _new(self, topic: str, partition: int, next_at: dict[str, int]) -> Sequence[RawRecord]:
        if topic in self.delayed:
            return ()
        new, _ = self._broker.read(
            topic, partition, next_at.get(topic, 0), committed=topic != STOPS.name, count_max=sys.maxsize
        )
        return [raw(stored, topic, partition) for stored in new]

    def nudge(self) -> None:
        """Look again: what was delayed flows."""
        self._broker.written.set()
        self._broker.written = asyncio.Event()


class MemoryRequests:
    """`dialer.requests.Requests` into the broker in memory; `away` refuses so many sends first."""

    def __init__(self, broker: ClockedBroker) -> None:
        self._broker = broker
        self.away = 0

    async def send(self, topic: Topic, callee_key: str, envelope: Envelope) -> None:
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise NotAccepted("away")
        self._broker.send(topic, callee_key, encode(envelope), headers_of(envelope))


class Shelf:
    """`dialer.campaigns.Source` in memory."""

    def __init__(self, *campaigns: Campaign) -> None:
        self.campaigns = {c.id: c for c in campaigns}
        self.reachable = True
        self.asked = 0

    def ids(self) -> tuple[str, ...]:
        return tuple(self.campaigns)

    async def get(self, campaign_id: str) -> Campaign | NotFound | Unreachable:
        self.asked += 1
        await asyncio.sleep(0)
        return self.campaigns.get(campaign_id, NotFound()) if self.reachable else Unreachable("transport")

    async def close(self) -> None:
        return None


def campaign(**over: object) -> Campaign:
    """The campaign of the tests: three attempts, busy again after 5 min."""
    return load_campaign(
        {
            "id": CAMPAIGN,
            "type": "one_way",
            "message": "Hello {first_name}, your prescription is ready at {store}.",
            "retry_after_s": {"busy": 300, "no_answer": 1800, "agent_lost": 60},
            "trunk": TRUNK,
        }
        | over
    )


async def published(_hash: str, _definition: bytes) -> None:
    """`dialer.campaigns` takes everything."""


def campaigns_of(shelf: Shelf, clock: Clock) -> Campaigns:
    """Open campaigns on a shelf."""
    return Campaigns(shelf, published, clock, None)
