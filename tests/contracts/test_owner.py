"""The owner's contract (design §5), one suite on the log in memory and on a real broker: transaction, take-over, input."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from dialer.callee import inputs as i
from dialer.callee.owed import Abandon, Adopt, AskSlot, Dial, OpenRoom
from dialer.log import Log, PartitionLog, Record, Restored
from dialer.ownership import Ownership
from rehearsal.provision import provision
from runtime import metrics
from schemas.envelope import FIRST_TIME, FORWARDED
from schemas.facts import AgentReady, fact_source
from schemas.observations import DialOutcome
from schemas.steps import Step
from schemas.topics import CALLEES, COMMANDS, EVENTS, KEYS, OBSERVATIONS, OFFSETS_KEY, STOPS
from schemas.values import PARTITIONS as TOPIC_PARTITIONS
from schemas.values import attempt_id, partition_of, room_name
from tests.contracts import kafka_bed
from tests.contracts.owner_beds import KafkaBed, MemoryBed, OwnerBed, SteppedClock, command, numbers_on, place
from tests.doubles.tcp_proxy import TcpProxy
from tests.doubles.waiting import until
from tests.doubles.world import MEMORY, id_of, key_of
from tests.platform_fixtures import SupervisorThread

PARTITIONS = itertools.count()
END_TIMEOUT_S = 3.0


@pytest.fixture(scope="session")
def owner_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_bed.ProxiedBroker]:
    """A broker of this suite's own: it is mistreated here."""
    run_dir: Path = tmp_path_factory.mktemp("owner-kafka")
    thread = SupervisorThread(run_dir)
    try:
        broker = thread.run(kafka_bed.prepare(provision().jars, run_dir / "data"))
        thread.start([broker.spec])
        thread.run(kafka_bed.make_topics(broker.bootstrap))
        yield broker
    finally:
        thread.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.broker)])
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[OwnerBed]:
    """Each test on the broker has a partition of its own: 24 are all there are."""
    clock, partition = SteppedClock(), 3 if request.param == "memory" else next(PARTITIONS)
    assert partition < TOPIC_PARTITIONS
    if request.param == "memory":
        memory = OwnerBed(MemoryBed(clock, partition), partition, clock)
        yield memory
        await memory.close()
        return
    broker: kafka_bed.ProxiedBroker = request.getfixturevalue("owner_broker")
    proxy = TcpProxy("127.0.0.1", broker.target_port)
    await proxy.start(broker.proxy_port)
    real = KafkaBed(broker, proxy, clock)
    await real.producer.start()
    bed = OwnerBed(real, partition, clock)
    try:
        yield bed
        await bed.close()
        running = tuple(task for task in clock._tasks if not task.get_name().startswith("sweep"))
        if running:
            await asyncio.wait(running, timeout=END_TIMEOUT_S)
        for task in tuple(clock._tasks):  # sweeps, and refused owners that wait to look again
            task.cancel()
    finally:
        await real.producer.stop()
        await proxy.close()


# ---- the transaction ---------------------------------------------------------------------------------------------


async def test_a_request_makes_events_snapshot_key_and_offsets_in_one_transaction(bed: OwnerBed) -> None:
    """All of it, sealed, in a single commit; and the slot is asked for only after it."""
    owner = await bed.own()
    call = await bed.place(owner)
    assert await bed.told(call) == ["call_requested", "call_prepared"]
    first, second = [e["sequence"] for e in await bed.events(call)]
    assert len(first) == 12 and int(second) == int(first) + 1
    assert (await bed.offsets())[COMMANDS.name] == 1
    assert set(await bed.snapshots()) == {key_of(bed.number).encode(), OFFSETS_KEY}
    assert [k for k, _ in await bed.broker.committed(KEYS, bed.partition)] == [key_of(bed.number).encode()]
    assert bed.clock.passed.count(Step.COMMIT_SENDING) == 1
    assert bed.effects[-1].last() == {AskSlot(call, "cvs-retail-outbound", "rx-refill", 5)}
    assert bed.clock.passed.index(Step.COMMIT_ANSWERED) < bed.clock.passed.index(Step.EFFECTS_STARTED)


async def test_a_repetition_adds_nothing_and_another_body_is_a_conflict(bed: OwnerBed) -> None:
    """The same again is the same call; with another body it is rejected once, and the call goes on as it is."""
    owner = await bed.own()
    call = await bed.place(owner)
    await bed.place(owner)
    await bed.place(owner, priority=9)
    assert await bed.told() == ["call_requested", "call_prepared"]
    (rejected,) = await bed.rejected()
    assert (rejected["field"], rejected["rule"], rejected["offset"]) == ("request_id", "conflict", 2)
    assert bed.effects[-1].ownership.committed(key_of(bed.number)).calls[call].priority == 5  # type: ignore[union-attr]


async def test_a_refused_batch_ends_the_ownership_and_loses_nothing(bed: OwnerBed) -> None:
    """Nothing half-written; what was refused is made by a later ownership, once."""
    owner = await bed.own()
    first = await bed.owned(owner)
    await bed.broker.refuse_events(refused=True)
    offset = await bed.send(COMMANDS, place(bed.number), key_of(bed.number))
    await until(lambda: not first.alive)
    assert await bed.told() == []
    assert await bed.snapshots() == {}
    await bed.broker.refuse_events(refused=False)
    await bed.taken(owner, COMMANDS, offset)
    assert await bed.told() == ["call_requested", "call_prepared"]
    assert bed.effects[0].wanted == []


@pytest.mark.parametrize("applied", [True, False])
async def test_a_commit_without_an_answer_leaves_one_set_of_events(bed: OwnerBed, applied: bool) -> None:
    """Nobody knows whether it came through: the next ownership reads what the log says."""
    owner = await bed.own()
    first = await bed.owned(owner)
    bed.broker.swallow_next_answer(applied=applied)
    await bed.send(COMMANDS, place(bed.number), key_of(bed.number))
    await until(lambda: not first.alive)
    bed.broker.heal()
    second = await bed.owned(owner)
    await until(lambda: second.committed(key_of(bed.number)) is not None)
    await bed.place(owner, request="r-2")
    call = id_of(bed.number)
    assert await bed.told(call) == ["call_requested", "call_prepared"]
    assert bed.effects[0].wanted == [], "effects run only after the commit's answer"
    assert bed.effects[0].closed


async def test_a_bug_in_the_handler_ends_the_process(bed: OwnerBed) -> None:
    """It is not swallowed: whoever waits for bugs gets it, and nothing steps over the input."""

    class Broken(RuntimeError):
        pass

    class BrokenEffects:
        def __init__(self, ownership: Ownership) -> None:
            pass

        def align(self, *_: Any) -> None:
            raise Broken

        def close(self) -> None:
            pass

    bed.make_effects = BrokenEffects
    owner = await bed.own()
    await bed.owned(owner)
    await bed.send(COMMANDS, place(bed.number), key_of(bed.number))
    async with asyncio.timeout(20):
        assert isinstance(await bed.clock.failed(), Broken)
    assert owner.current is None


# ---- take-over ---------------------------------------------------------------------------------------------------


class ReadBeforeTheFence:
    """The wrong order, for control: what an owner restores was read before its fence."""

    def __init__(self, log: Log, before: Restored) -> None:
        self._log, self._before = log, before

    def open(self, partition: int) -> PartitionLog:
        log, before = self._log.open(partition), self._before

        class Opening:
            async def fence(self) -> None:
                await log.fence()

            async def restore(self) -> Restored:
                return before

            async def commit(self, records: Sequence[Record]) -> None:
                await log.commit(records)

            async def close(self) -> None:
                await log.close()

        return Opening()


@pytest.mark.parametrize("order", ["fence first", "read first"])
async def test_positions_are_read_after_the_fence(bed: OwnerBed, order: str) -> None:
    """A former owner commits while a new one takes over: read before the fence, its inputs are handed out twice."""
    former = await bed.own()
    await bed.owned(former)
    read = Restored(snapshots={}, keys={}, offsets=None)
    call = await bed.place(former)
    new = await bed.own(bed.broker.log if order == "fence first" else ReadBeforeTheFence(bed.broker.log, read))
    former.stop()
    await bed.owned(new)
    offset = await bed.send(COMMANDS, b"{", key_of(bed.number))
    await bed.taken(new, COMMANDS, offset)
    times = (await bed.told(call)).count("call_requested")
    assert times == (1 if order == "fence first" else 2)


async def test_a_former_owner_that_is_fenced_writes_nothing_more(bed: OwnerBed) -> None:
    """Both are fed; only the newer one decides, and the former starts over behind it."""
    former = await bed.own()
    first = await bed.owned(former)
    new = await bed.own(feed=bed.broker.another_feed())
    await bed.owned(new)
    former._stopping = True  # it may finish what it has, and must not fence the new one in turn
    call = await bed.place(new)
    await until(lambda: not first.alive)
    assert await bed.told(call) == ["call_requested", "call_prepared"]


async def test_a_take_over_restores_live_calls_and_adopts_dials(bed: OwnerBed) -> None:
    """What the other process dialed is never dialed here; a room that it only asked for is given up."""
    owner = await bed.own()
    call = await bed.place(owner)
    await to_dial_started(bed, await bed.owned(owner), call)
    assert Dial(call, 1) in bed.effects[-1].last()
    other = next(bed.numbers)
    opened = await bed.place(owner, other)
    (await bed.owned(owner)).offer(key_of(other), i.SlotGranted(id="slot", at=bed.clock.now(), call_id=opened))
    await until(lambda: OpenRoom(opened, 1) in bed.effects[-1].last())
    ended = await bed.owned(owner)
    ended.end()
    await until(lambda: owner.current is not None and owner.current is not ended)
    await until(lambda: len(bed.effects[-1].wanted) >= 2)
    wanted = frozenset().union(*(w for _, w in bed.effects[-1].wanted))
    assert {Adopt(call, 1), Abandon(opened, 1)} <= wanted
    assert not any(isinstance(e, Dial | OpenRoom) for e in wanted)
    await bed.place(owner, request="r-2")
    assert not any(isinstance(e, Dial | OpenRoom) for _, w in bed.effects[-1].wanted for e in w)


async def to_dial_started(bed: OwnerBed, ownership: Ownership, call: str) -> None:
    """Bring a call to its committed dial, by what the shell hands in."""
    key, now = call[:26], bed.clock.now
    fact = AgentReady(attempt=1, job_id="AJ_1", number=1)
    room = i.RoomAnswered(
        id="room", at=now(), call_id=call, attempt=1, ok=True, room=room_name(call, 1), room_sid="R", agent_name="a"
    )
    turn = i.TurnGranted(id="turn", at=now(), call_id=call, attempt=1, trunk="t", caller_id="+12125550100", control="1")
    ready = i.FactSeen(id="f", at=now(), call_id=call, attempt=1, fact=fact, source=fact_source(1, "AJ_1"))
    for given in (i.SlotGranted(id="slot", at=now(), call_id=call), room, ready, turn):
        assert ownership.offer(key, given)
    await until(lambda: Dial(call, 1) in bed.effects[-1].last())


async def test_an_outcome_that_was_not_committed_is_delivered_another_way(bed: OwnerBed) -> None:
    """The ownership ends between the hand-over and the commit's answer."""
    owner = await bed.own()
    call = await bed.place(owner)
    ownership = await bed.owned(owner)
    await to_dial_started(bed, ownership, call)
    outcome = DialOutcome(attempt=1, result="answered")
    bed.broker.swallow_next_answer(applied=False)
    ownership.offer_outcome(key_of(bed.number), call, outcome)
    await until(lambda: not ownership.alive)
    assert bed.effects[0].orphans == [(call, outcome)]
    ownership.offer_outcome(key_of(bed.number), call, outcome)
    assert bed.effects[0].orphans == [(call, outcome)] * 2


async def test_a_snapshot_that_cannot_be_decoded_parks_that_callee_only(bed: OwnerBed) -> None:
    """It alarms, that callee's commands become rejected records, everybody else goes on."""
    broken, lazy = bed.number, next(bed.numbers)
    await bed.send(CALLEES, b'{"v":1,"callee_key":"x","calls":{"?":1}}', key_of(broken))
    await bed.send(CALLEES, b'{"v":99,"callee_key":"x","calls":{}}', key_of(lazy))
    await bed.send(CALLEES, orjson.dumps({"v": 1, "next": {}}), OFFSETS_KEY.decode())
    before = metrics.ALARMS.labels("snapshot_undecodable")._value.get()
    owner = await bed.own()
    await bed.owned(owner)
    assert metrics.ALARMS.labels("snapshot_undecodable")._value.get() == before + 1
    for number in (broken, lazy, broken):
        await bed.place(owner, number)
    fine = await bed.place(owner, next(bed.numbers))
    assert metrics.ALARMS.labels("snapshot_undecodable")._value.get() == before + 2
    assert [(r["field"], r["rule"], r["offset"]) for r in await bed.rejected()] == [
        ("callee_key", "callee_parked", n) for n in range(3)
    ]
    assert await bed.told() == ["call_requested", "call_prepared"]
    assert await bed.told(fine) == ["call_requested", "call_prepared"]
    assert (await bed.snapshots())[key_of(broken).encode()] == b'{"v":1,"callee_key":"x","calls":{"?":1}}'


async def test_snapshots_without_readable_offsets_are_refused(bed: OwnerBed) -> None:
    """Positions are never guessed at: nothing is taken, and somebody must look."""
    await bed.send(CALLEES, b'{"v":1,"callee_key":"x","calls":{}}', key_of(bed.number))
    await bed.send(COMMANDS, place(bed.number), key_of(bed.number))
    for offsets in (None, b"{", b'{"v":2,"next":{}}', b'{"v":1}', b"[]"):
        if offsets is not None:
            await bed.send(CALLEES, offsets, OFFSETS_KEY.decode())
        before = metrics.ALARMS.labels("position_lost")._value.get()
        owner = await bed.own()
        await until(lambda before=before: metrics.ALARMS.labels("position_lost")._value.get() == before + 1)
        assert owner.current is None
        owner.stop()
    assert await bed.told() == []


async def test_offsets_below_the_logs_start_are_refused(bed: OwnerBed) -> None:
    """Inputs were deleted before they were taken: what was in them nobody knows."""
    for n in range(3):
        await bed.send(COMMANDS, place(bed.number, f"r-{n}"), key_of(bed.number))
    await bed.send(CALLEES, orjson.dumps({"v": 1, "next": {COMMANDS.name: 1}}), OFFSETS_KEY.decode())
    await bed.broker.begin_at(COMMANDS, bed.partition, 2)
    before = metrics.ALARMS.labels("position_lost")._value.get()
    owner = await bed.own()
    await until(lambda: metrics.ALARMS.labels("position_lost")._value.get() == before + 1)
    assert owner.current is None
    assert await bed.told() == []


async def test_an_empty_partition_starts_every_input_at_its_beginning(bed: OwnerBed) -> None:
    """Where the beginning is not 0 as well."""
    for n in range(3):
        await bed.send(COMMANDS, place(bed.number, f"r-{n}"), key_of(bed.number))
    await bed.broker.begin_at(COMMANDS, bed.partition, 2)
    owner = await bed.own()
    await bed.taken(owner, COMMANDS, 2)
    assert {e["subject"] for e in await bed.events()} == {id_of(bed.number, "r-2")}
    assert await bed.offsets() == {COMMANDS.name: 3, OBSERVATIONS.name: 0, STOPS.name: 0}


# ---- stops and strays --------------------------------------------------------------------------------------------


async def test_stops_are_taken_before_commands_in_every_turn(bed: OwnerBed) -> None:
    """A cancel behind a backlog of thousands still comes before its call."""
    owner = await bed.own()
    ownership = await bed.owned(owner)
    last = id_of(bed.number, "r-last")
    backlog = [place(bed.number, f"r-{n}") for n in range(10)] + [place(bed.number, "r-last")]
    stop = command("cancel_call", "stop-1", {"call_id": last})
    ownership.positions |= {COMMANDS.name: 0, STOPS.name: 0}
    ownership.offer_records([raw(COMMANDS.name, n, bed, value) for n, value in enumerate(backlog)])
    ownership.offer_stops([raw(STOPS.name, 0, bed, stop)])
    await until(lambda: ownership.positions[COMMANDS.name] == len(backlog))
    assert (await bed.told())[0] == "call_cancelled"
    assert await bed.told(last) == ["call_cancelled", "call_requested", "call_refused"]
    assert ownership.stops_open() == 0


def raw(topic: str, offset: int, bed: OwnerBed, value: bytes) -> Any:
    from dialer.records import RawRecord

    return RawRecord(
        topic=topic,
        partition=bed.partition,
        offset=offset,
        timestamp_ms=int(bed.clock.now().timestamp() * 1000),
        key=key_of(bed.number).encode(),
        value=value,
    )


async def test_a_stray_is_forwarded_once_with_its_first_broker_time(bed: OwnerBed) -> None:
    """To the canonical key and partition, as it was, marked; nothing is decided here."""
    owner = await bed.own()
    await bed.owned(owner)
    elsewhere = (bed.partition - 1) % 24
    number = next(numbers_on(elsewhere))
    value = place(number)
    before = len(await bed.broker.committed(COMMANDS, elsewhere))
    offset = await bed.send(COMMANDS, value, "any-key", [("x", b"kept")])
    await bed.taken(owner, COMMANDS, offset)
    found = (await bed.broker.committed(COMMANDS, elsewhere))[before:]
    assert found == [(key_of(number).encode(), value)]
    ((first_time, _),) = (await bed.broker.headers(COMMANDS, bed.partition))[-1:]
    ((_, headers),) = (await bed.broker.headers(COMMANDS, elsewhere))[before:]
    assert headers == {"x": b"kept", FORWARDED: b"1", FIRST_TIME: str(first_time).encode()}
    assert await bed.told() == []


async def test_a_forwarded_record_counts_from_its_first_broker_time(bed: OwnerBed) -> None:
    """What lay around for weeks before it was forwarded is too old, as it would have been where it came first."""
    owner = await bed.own()
    await bed.owned(owner)
    first = bed.clock.now() - timedelta(days=1)
    marks = [(FORWARDED, b"1"), (FIRST_TIME, str(int(first.timestamp() * 1000)).encode())]
    offset = await bed.send(COMMANDS, place(bed.number), key_of(bed.number), marks)
    await bed.taken(owner, COMMANDS, offset)
    (requested, _) = await bed.events(id_of(bed.number))
    remembered = datetime.fromisoformat(requested["data"]["remember_until"])
    assert abs(remembered - MEMORY - first) < timedelta(seconds=1)


async def test_a_marked_stray_is_rejected_with_an_alarm(bed: OwnerBed) -> None:
    """Two layouts are at work: forwarding it again would go on for ever."""
    owner = await bed.own()
    await bed.owned(owner)
    before = metrics.ALARMS.labels("layout")._value.get()
    number = next(numbers_on((bed.partition - 1) % 24))
    offset = await bed.send(COMMANDS, place(number), key_of(number), [(FORWARDED, b"1"), (FIRST_TIME, b"1")])
    await bed.taken(owner, COMMANDS, offset)
    (rejected,) = await bed.rejected()
    assert (rejected["field"], rejected["rule"]) == ("key", "layout")
    assert metrics.ALARMS.labels("layout")._value.get() == before + 1


async def test_stops_among_commands_are_forwarded_without_any_number(bed: OwnerBed) -> None:
    """To `dialer.stops`, by pseudonym; whatever else the record carried stays behind; then they are taken there."""
    owner = await bed.own()
    await bed.owned(owner)
    to, named = bed.number, {"campaign_id": "rx-refill", "request_id": "r-1", "to": bed.number}
    kinds = {"cancel_call": named, "suppress_callee": {"to": to}, "lift_suppression": {"to": to}}
    for kind, data in kinds.items():
        value = command(kind, f"stop-{kind}", data | {"reason": "asked"}, subject=to)
        await bed.send(COMMANDS, value, to, [("ce_subject", to.encode()), ("note", to.encode())])
    async with asyncio.timeout(30):
        while len(told := await bed.told()) < len(kinds):
            await asyncio.sleep(0.05)
    assert told == ["call_cancelled", "callee_suppressed", "suppression_lifted"]
    stops = await bed.broker.committed(STOPS, bed.partition)
    headers = [h for _, h in await bed.broker.headers(STOPS, bed.partition)]
    for (key, stop), header in zip(stops, headers, strict=True):
        assert key == key_of(to).encode()
        assert to.encode()[1:] not in (stop or b"") + b"".join(header.values()) + key
    by_key = {"callee_key": key_of(to), "scope": "all", "reason": "asked"}
    expected = [{"call_id": id_of(to), "reason": "asked"}, by_key, by_key]
    assert [orjson.loads(stop or b"")["data"] for _, stop in stops] == expected


async def test_a_stop_that_is_delivered_again_changes_nothing(bed: OwnerBed) -> None:
    """A stop of an aborted forwarding is a stop; its repetition is none."""
    owner = await bed.own()
    await bed.place(owner)
    stop = command("suppress_callee", "stop-1", {"callee_key": key_of(bed.number)})
    lift = command("lift_suppression", "stop-2", {"callee_key": key_of(bed.number)})
    for value in (stop, stop, lift, stop, lift):
        offset = await bed.send(STOPS, value, key_of(bed.number))
        await bed.taken(owner, STOPS, offset)
    about_the_callee = [name for name in await bed.told() if not name.startswith("call_")]
    assert about_the_callee == ["callee_suppressed", "suppression_lifted"]


# ---- the rest of the flow ----------------------------------------------------------------------------------------


async def test_a_deadline_passes(bed: OwnerBed) -> None:
    """A call whose time is over is refused, without any input."""
    owner = await bed.own()
    await bed.owned(owner)
    until_then = datetime.now(UTC) + timedelta(seconds=1.0)
    call = await bed.place(owner, not_after=until_then.isoformat())
    assert await bed.told(call) == ["call_requested", "call_prepared"]
    commits = bed.clock.passed.count(Step.COMMIT_ANSWERED)
    await until(lambda: bed.clock.passed.count(Step.COMMIT_ANSWERED) > commits)
    refused = (await bed.events(call))[-1]
    assert refused["data"] == {"reason": "expired"}
    assert datetime.fromisoformat(refused["time"]) >= until_then


async def test_facts_are_copied_once_with_their_own_source_and_id(bed: OwnerBed) -> None:
    """Delivered twice, over a take-over too."""
    owner = await bed.own()
    call = await bed.place(owner)
    (await bed.owned(owner)).offer(call[:26], i.SlotGranted(id="slot", at=bed.clock.now(), call_id=call))
    await until(lambda: OpenRoom(call, 1) in bed.effects[-1].last())
    fact = AgentReady(attempt=1, job_id="AJ_1", number=1)
    value = command(
        AgentReady.TYPE,
        f"{attempt_id(call, 1)}/AJ_1/1",
        orjson.loads(orjson.dumps(fact)),
        subject=call,
        source=fact_source(1, "AJ_1"),
    )
    for _ in range(2):
        offset = await bed.send(OBSERVATIONS, value, call[:26])
        await bed.taken(owner, OBSERVATIONS, offset)
        ended = await bed.owned(owner)
        ended.end()
        await until(lambda ended=ended: owner.current is not None and owner.current is not ended)
    copied = [e for e in await bed.events(call) if e["type"] == AgentReady.TYPE]
    assert [(e["source"], e["id"]) for e in copied] == [("/agent/1/AJ_1", f"{attempt_id(call, 1)}/AJ_1/1")]
    assert (await bed.told(call)).count("agent_joined") == 1


async def test_events_of_a_callee_are_numbered_without_gaps_over_take_overs(bed: OwnerBed) -> None:
    """One counter a callee, the same in log and snapshot."""
    owner = await bed.own()
    for n in range(4):
        await bed.place(owner, request=f"r-{n}")
        ended = await bed.owned(owner)
        ended.end()
        await until(lambda ended=ended: owner.current is not None and owner.current is not ended)
    sequences = [int(e["sequence"]) for e in await bed.events()]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    snapshot = orjson.loads((await bed.snapshots())[key_of(bed.number).encode()] or b"")
    assert snapshot["sequence"] == sequences[-1]
    assert partition_of(key_of(bed.number)) == bed.partition
    assert EVENTS.partitions == 24
