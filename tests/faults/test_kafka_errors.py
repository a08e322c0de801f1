"""Every error that Kafka's client knows, at every call of ours: nothing is claimed, nothing crashes, and it goes on after."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, Final

import aiokafka.errors
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from dialer import control as control_module
from dialer import stops_reader as stops_module
from dialer.control import ControlReader, ControlUnreadable
from dialer.control_words import EVERYTHING, Dialling, encode_said
from dialer.kafka_log import KafkaPartitionLog
from dialer.log import OwnershipLost, Record
from dialer.records import RawRecord
from dialer.requests import NotAccepted, Requests
from dialer.stops_reader import StopsReader
from schemas.envelope import Envelope
from schemas.topics import COMMANDS, CONTROL, EVENTS, STOPS
from tests.doubles.clock import VirtualClock
from tests.doubles.world import ANN, key_of


def errors() -> list[type[KafkaError]]:
    """Return every error class of the client that can be made without arguments."""
    found = []
    for value in vars(aiokafka.errors).values():
        if isinstance(value, type) and issubclass(value, KafkaError):
            try:
                value()
            except TypeError:
                continue
            found.append(value)
    return sorted(set(found), key=lambda error: error.__name__)


ERRORS: Final = errors()
READING: Final = (
    aiokafka.errors.OffsetOutOfRangeError,
    aiokafka.errors.TopicAuthorizationFailedError,
    aiokafka.errors.KafkaTimeoutError,
    aiokafka.errors.KafkaConnectionError,
    aiokafka.errors.CorruptRecordException,
    aiokafka.errors.IllegalStateError,
    KafkaError,
)
"""What a consumer's calls raise: by the log, by rights, by time, by the line, by the bytes, by an assignment that changed."""
AWAY: Final = [*ERRORS, TimeoutError, ConnectionResetError]


class Consumer:
    """aiokafka's consumer of one partition in memory; `fails` are raised by the next calls, one each."""

    def __init__(self, topic: str, clock: VirtualClock) -> None:
        self.tp = TopicPartition(topic, 0)
        self.clock = clock
        self.records: list[tuple[bytes, bytes]] = []
        self.at = 0
        self.fails: dict[str, deque[BaseException]] = {}

    async def meet(self, call: str) -> None:
        await self.clock.sleep(0)
        if self.fails.get(call):
            error = self.fails[call].popleft()
            raise error

    async def start(self) -> None:
        await self.meet("start")

    async def stop(self) -> None:
        return None

    def assign(self, tps: Sequence[TopicPartition]) -> None:
        return None

    def unsubscribe(self) -> None:
        return None

    def assignment(self) -> set[TopicPartition]:
        return {self.tp}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, tp: TopicPartition) -> int:
        await self.meet("position")
        return self.at

    async def beginning_offsets(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        await self.meet("beginning_offsets")
        return {self.tp: 0}

    async def end_offsets(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        await self.meet("end_offsets")
        return {self.tp: len(self.records)}

    async def getmany(self, *_: Any, **__: Any) -> dict[TopicPartition, list[Any]]:
        await self.clock.sleep(0.01)
        await self.meet("getmany")
        new = self.records[self.at :]
        found = [
            SimpleNamespace(
                topic=self.tp.topic, partition=0, offset=self.at + n, timestamp=0, key=key, value=value, headers=()
            )
            for n, (key, value) in enumerate(new)
        ]
        self.at += len(new)
        return {self.tp: found} if found else {}


@pytest.fixture
async def clock() -> AsyncIterator[VirtualClock]:
    clock = VirtualClock()
    yield clock
    await clock.close()


@pytest.mark.parametrize("call", ["start", "beginning_offsets"])
async def test_control_that_cannot_be_opened_is_unreadable(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """And can be opened later."""
    for error in AWAY:
        await opened_late(clock, monkeypatch, call, error)


async def opened_late(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, call: str, error: type[BaseException]
) -> None:
    consumer = Consumer(CONTROL.name, clock)
    monkeypatch.setattr(control_module, "assigned_consumer", lambda *_, **__: consumer)
    consumer.fails[call] = deque([error()])
    reader = ControlReader("x", clock)
    with pytest.raises(ControlUnreadable):
        await reader.start()
    assert reader.stopped("rx-refill")
    opening = asyncio.create_task(reader.start())
    await clock.advance(1)
    await opening
    assert not reader.stopped("rx-refill")
    await reader.close()


@pytest.mark.parametrize("call", ["getmany", "position", "end_offsets"])
async def test_control_that_cannot_be_read_stops_everything_until_it_can(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What was said meanwhile is known before anything is dialed."""
    for error in READING:
        await said_meanwhile(clock, monkeypatch, call, error)


async def said_meanwhile(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, call: str, error: type[KafkaError]
) -> None:
    consumer = Consumer(CONTROL.name, clock)
    monkeypatch.setattr(control_module, "assigned_consumer", lambda *_, **__: consumer)
    reader = ControlReader("x", clock)
    opening = asyncio.create_task(reader.start())
    await clock.advance(1)
    await opening
    consumer.fails[call] = deque(error() for _ in range(200))
    await clock.advance(3)
    age_s = clock.monotonic() - (reader.read_at() or 0.0)
    assert age_s > 1.0, "the gate's row is stale"
    consumer.records.append((EVERYTHING.encode(), encode_said(Dialling.STOPPED, "")))
    consumer.fails.clear()
    await clock.advance(3)
    assert clock.monotonic() - (reader.read_at() or 0.0) < 1.0
    assert reader.stopped("rx-refill")
    await reader.close()


@pytest.mark.parametrize("call", ["getmany", "position", "end_offsets"])
async def test_stops_that_cannot_be_read_are_not_drained_until_they_can(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A stop that was written meanwhile is delivered before anything counts as drained; a log that was cut never does."""
    for error in READING:
        await stopped_meanwhile(clock, monkeypatch, call, error)


async def stopped_meanwhile(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, call: str, error: type[KafkaError]
) -> None:
    consumer = Consumer(STOPS.name, clock)
    monkeypatch.setattr(stops_module, "assigned_consumer", lambda *_, **__: consumer)
    reader = StopsReader("x", clock)
    await reader.start()
    got: list[RawRecord] = []
    reader.assign(0, 0, got.extend)
    await clock.advance(1)
    consumer.fails[call] = deque(error() for _ in range(200))
    await clock.advance(3)
    # an end that was told proves what was delivered, whether or not a marker behind it can be passed
    assert call == "position" or clock.monotonic() - (reader.drained_at(0) or 0.0) > 1.0
    consumer.records.append((b"k", b"stop"))
    consumer.fails.clear()
    await clock.advance(3)
    if error is OffsetOutOfRangeError and call == "getmany":
        assert reader.drained_at(0) is None
    else:
        assert [record.value for record in got] == [b"stop"]
        assert clock.monotonic() - (reader.drained_at(0) or 0.0) < 1.0
    await reader.close()


class Producer:
    """aiokafka's producer that fails at one call."""

    def __init__(self, call: str, error: type[BaseException]) -> None:
        self._call, self._error = call, error
        self.client = self

    def __getattr__(self, name: str) -> Any:
        def create_batch() -> Any:
            return SimpleNamespace(append=lambda **_: object())

        async def answers(*_: Any, **__: Any) -> Any:
            if name == self._call:
                raise self._error()
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            if name == "send_batch" and self._call == "answer":
                future.set_exception(self._error())
            else:
                future.set_result(object())
            return future if name == "send_batch" else None

        return create_batch if name == "create_batch" else answers


@pytest.mark.parametrize("call", ["begin_transaction", "send_batch", "answer", "commit_transaction"])
async def test_any_error_of_a_commit_ends_the_ownership(clock: VirtualClock, call: str) -> None:
    """Wherever it comes; and the opening never writes again."""
    for error in AWAY:
        opened = KafkaPartitionLog("x", clock, 0, 8.0)
        opened._producer = Producer(call, error)
        for _ in range(2):
            with pytest.raises(OwnershipLost):
                await opened.commit([Record(EVENTS.name, 0, b"k", b"v")])
        await opened.close()


async def test_a_request_that_was_not_acknowledged_is_not_accepted(clock: VirtualClock) -> None:
    """Nobody is told 202 for it: of a command, a campaign, and a word on control alike."""
    envelope = Envelope(type="t", source="/s", id="1", data={}, time=clock.now())
    for error in ERRORS:
        requests = Requests.__new__(Requests)
        requests._producer = Producer("send_and_wait", error)
        for asked in (
            requests.send(COMMANDS, key_of(ANN), envelope),
            requests.send_campaign("h", b"d"),
            requests.send_control(b"*", b"{}"),
        ):
            with pytest.raises(NotAccepted, match=error.__name__):
                await asked
