"""The edge to Kafka: one FastStream subscriber of commands and observations, handing batches to the owners.

What was tried and is held here (reference/kafka.md): aiokafka hands out records before the assignment callback has
finished, so a partition without a current ownership drops what comes (its owner seeks back when it is ready); a failing
handler is swallowed by FastStream, so a failure here ends the process; there is no offset reset, so every newly
assigned partition is paused and put to 0 before anything is awaited. Positions are kept in `$offsets`; the group's
committed offsets are for lag displays, and their commit proves that this process is still a member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage

from dialer.log import OwnershipLost
from dialer.owner import Owner
from dialer.ownership import Ownership, PositionLost
from dialer.records import RawRecord
from dialer.stops_reader import StopsReader, raw_record
from runtime.clock import Clock
from runtime.kafka import FETCH_MAX_WAIT_MS, RETRY_BACKOFF_MS
from runtime.logs import Log
from schemas import topics

INPUTS: Final = (topics.COMMANDS.name, topics.OBSERVATIONS.name)
MEMBERSHIP_EVERY_S: Final = 1.0
_NEVER: Final = -1e9
_FAR: Final = 1e9

log = Log("dialer.intake")


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]
    """Feeds the owners of the partitions this process was given."""

    def __init__(
        self,
        bootstrap: str,
        group_id: str,
        session_timeout_s: float,
        new_owner: Callable[[int], Owner],
        share_changed: Callable[[int], None],
        clock: Clock,
        client_id: str = "dialer-intake",
    ) -> None:
        """Take what the group shows this member as: `client_id` is who confirms what `dialer.control` says."""
        self.owners: dict[int, Owner] = {}
        self._feeding: dict[int, Ownership] = {}
        self._stops = StopsReader(bootstrap, clock)
        self._new_owner, self._share_changed, self._clock = new_owner, share_changed, clock
        self._member_at = _NEVER
        self._joined = False
        """Whether no rebalance is under way, as far as we know."""
        self._stopped = False
        self._broker = KafkaBroker(bootstrap, logger=None, client_id=client_id, retry_backoff_ms=RETRY_BACKOFF_MS)
        self._subscriber = self._broker.subscriber(
            *INPUTS,
            batch=True,
            group_id=group_id,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="none",
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=int(session_timeout_s * 1000),
            heartbeat_interval_ms=int(session_timeout_s * 1000 / 5),
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            max_partition_fetch_bytes=1024 * 1024,
            max_records=5000,
            batch_timeout_ms=200,
            listener=self,
            decoder=_keep_bytes,
        )
        self._subscriber(self._handle)

    @property
    def _consumer(self) -> AIOKafkaConsumer[bytes, bytes] | None:
        return self._subscriber.consumer

    async def start(self) -> None:
        """Join the group."""
        await self._stops.start()
        await self._broker.start()
        self._clock.spawn(self._prove_membership(), "intake-membership")

    async def stop(self) -> None:
        """Leave the group and end all owners."""
        self._stopped = True
        for owner in self.owners.values():
            owner.stop()
        await self._broker.stop()
        await self._stops.close()

    def membership_age_s(self) -> float:
        """Return how long ago the group's coordinator last confirmed that we are a member, in seconds."""
        return self._clock.monotonic() - self._member_at

    # ---- assignment ----------------------------------------------------------------------------------------------

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Go on until the new assignment is known; whoever gets a partition fences us."""
        del revoked
        self._member_at = _NEVER
        self._joined = False

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause and seek before anything is awaited; end, keep and start owners."""
        consumer = self._consumer
        if consumer is None or self._stopped:
            return
        self._joined = True
        mine = set(assigned)
        consumer.pause(*mine)
        for partition in mine:
            consumer.seek(partition, 0)
        wanted = {tp.partition for tp in mine}
        if mine != {TopicPartition(topic, p) for topic in INPUTS for p in wanted}:
            split = AssertionError("the assignor split a callee's topics between processes")
            self._clock.spawn(_fail(split), "intake-split")
            return
        for partition in [p for p in self.owners if p not in wanted]:
            self.owners.pop(partition).stop()
        self._share_changed(len(wanted))
        for partition in wanted:
            kept = self.owners.get(partition)
            if kept is None:
                owner = self.owners[partition] = self._new_owner(partition)
                self._clock.spawn(owner.run(), f"owner-{partition}")
            elif kept.current is not None:
                self._clock.spawn(self._resume_kept(kept.current), f"resume-{partition}")

    async def _resume_kept(self, ownership: Ownership) -> None:
        try:
            await self.resume(ownership, ownership.positions)
        except (OwnershipLost, PositionLost):
            ownership.end()

    async def resume(self, ownership: Ownership, positions: Mapping[str, int]) -> None:
        """Position every input of the partition and let it flow."""
        consumer = self._consumer
        partition = ownership.partition
        tps = [TopicPartition(topic, partition) for topic in INPUTS]
        if consumer is None or not set(tps) <= consumer.assignment():
            raise OwnershipLost("the partition is assigned elsewhere")
        stops = TopicPartition(topics.STOPS.name, partition)
        try:
            starts = await consumer.beginning_offsets([*tps, stops])
        except (KafkaError, TimeoutError) as error:
            raise OwnershipLost(f"inputs could not be positioned: {type(error).__name__}") from None
        for tp, start in starts.items():
            if positions.get(tp.topic, start) < start:
                raise PositionLost(f"$offsets lie below the start of {tp.topic}")
        if not set(tps) <= consumer.assignment() or not ownership.alive:
            raise OwnershipLost("the partition is assigned elsewhere")
        for tp, start in starts.items():
            ownership.positions.setdefault(tp.topic, start)
        self._stops.assign(partition, ownership.positions[stops.topic], ownership.offer_stops, ownership.stops_open)
        for tp in tps:
            consumer.seek(tp, ownership.positions[tp.topic])
        self._feeding[partition] = ownership
        consumer.resume(*tps)

    def suspend(self, ownership: Ownership) -> None:
        """Let nothing flow to this ownership any more.

        It may end late, after the answer of a commit that never came; the partition may have gone and come back by then,
        and its inputs belong to another ownership.
        """
        partition = ownership.partition
        if self._feeding.get(partition) is not ownership:
            return
        del self._feeding[partition]
        self._stops.release(partition)
        consumer = self._consumer
        if consumer is not None:
            tps = {TopicPartition(topic, partition) for topic in INPUTS} & consumer.assignment()
            if tps:
                consumer.pause(*tps)

    def stops_age_s(self, ownership: Ownership) -> float:
        """Return how long ago every accepted stop of the partition was known to be committed, in seconds."""
        drained_at = self._stops.drained_at(ownership.partition, ownership.positions.get(topics.STOPS.name, 0))
        return _FAR if drained_at is None else self._clock.monotonic() - drained_at

    # ---- records -------------------------------------------------------------------------------------------------

    async def _handle(self, message: KafkaMessage) -> None:
        """Hand a batch over; a bug ends the process: FastStream would log it, and go on behind the batch."""
        try:
            self._hand_over(message)
        except Exception as error:
            self._clock.spawn(_fail(error), "intake-handler")

    def _hand_over(self, message: KafkaMessage) -> None:
        """Hand a batch to its ownerships; nothing is awaited meanwhile, so which ones these are cannot change."""
        batches: dict[int, list[RawRecord]] = {}
        for record in cast("tuple[ConsumerRecord[bytes, bytes], ...]", message.raw_message):
            batches.setdefault(record.partition, []).append(raw_record(record))
        fed = [(self._feeding[p], records) for p, records in batches.items() if p in self._feeding]
        for ownership, records in fed:
            for topic in ownership.offer_records(records):
                self._hold_back(ownership, TopicPartition(topic, ownership.partition))

    def _hold_back(self, ownership: Ownership, tp: TopicPartition) -> None:
        """Fetch no more of a topic until its owner has space for it; all others flow on."""
        consumer = self._consumer
        if consumer is not None and tp in consumer.assignment() and not consumer.paused() & {tp}:
            consumer.pause(tp)
            self._clock.spawn(self._let_flow(ownership, tp), f"space-{tp.partition}")

    async def _let_flow(self, ownership: Ownership, tp: TopicPartition) -> None:
        await ownership.space(tp.topic)
        consumer = self._consumer
        if consumer is not None and self._feeding.get(tp.partition) is ownership and tp in consumer.assignment():
            consumer.resume(tp)

    async def _prove_membership(self) -> None:
        while not self._stopped:
            await self._clock.sleep(MEMBERSHIP_EVERY_S)
            consumer = self._consumer
            if consumer is None or not self._joined:
                # A commit sent amid a rebalance waits behind our JoinGroup on its connection, and is answered "illegal
                # generation": aiokafka then leaves and joins as a stranger, which is the next rebalance, and so for ever.
                continue
            offsets = {
                TopicPartition(topic, p): owner.current.positions[topic]
                for p, owner in self.owners.items()
                for topic in INPUTS
                if owner.current is not None and topic in owner.current.positions
            }
            offsets = {tp: offset for tp, offset in offsets.items() if tp in consumer.assignment()}
            if not offsets:
                continue
            asked_at = self._clock.monotonic()
            try:
                await consumer.commit(offsets)
            except KafkaError as error:
                log.info("membership not proven", reason=type(error).__name__)
            else:
                self._member_at = asked_at


async def _keep_bytes(message: Any) -> Any:
    return message.body


async def _fail(error: Exception) -> None:
    raise error
