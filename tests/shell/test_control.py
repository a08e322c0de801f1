"""Control is read to its end before it says anything, follows, and fails closed."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from dialer.control import ControlReader, ControlUnreadable, LayoutMismatch
from dialer.control_words import EVERYTHING, Dialling
from dialer.topic_setup import create_or_verify
from rehearsal.ports import free_port
from runtime.clock import SystemClock
from runtime.kafka import idempotent_producer
from runtime.seal import MasterKey
from schemas.topics import CONTROL, FORMAT_KEY, LAYOUT_KEY
from tests.doubles.waiting import until

pytestmark = pytest.mark.broker


class Control:
    """A control topic of the test's own on a real broker."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.clock = SystemClock()
        self.topic = f"{secrets.token_hex(4)}.{CONTROL.name}"
        self.readers: list[ControlReader] = []
        self.changes = 0

    async def write(self, key: bytes, value: bytes | None) -> None:
        producer = idempotent_producer(self.bootstrap, "test")
        await producer.start()
        try:
            await producer.send_and_wait(self.topic, value, key=key, partition=0)
        finally:
            await producer.stop()

    async def say(self, key: str, state: str) -> None:
        await self.write(key.encode(), orjson.dumps({"state": state, "at": "2026-11-22T15:00:00Z"}))

    async def reader(self) -> ControlReader:
        def changed() -> None:
            self.changes += 1

        reader = ControlReader(self.bootstrap, self.clock, changed, topic=self.topic)
        self.readers.append(reader)
        await reader.start()
        return reader

    async def read_after_now(self, reader: ControlReader) -> None:
        now = self.clock.monotonic()
        await until(lambda: (reader.read_at() or 0) >= now)


@pytest.fixture
async def control(kafka_bootstrap: str) -> AsyncIterator[Control]:
    control = Control(kafka_bootstrap)
    await create_or_verify(kafka_bootstrap, topics=[replace(CONTROL, name=control.topic)])
    try:
        yield control
    finally:
        for reader in control.readers:
            await reader.close()


async def test_an_empty_topic_lets_dialling_run_and_stays_fresh(control: Control) -> None:
    """Freshness goes on without a single record."""
    reader = await control.reader()
    assert reader.read_at() is not None
    assert not reader.stopped("rx-refill")
    assert reader.version() == "0"
    for _ in range(3):
        await control.read_after_now(reader)


async def test_before_it_was_read_everything_is_stopped(control: Control) -> None:
    """The kill switch fails closed."""
    reader = ControlReader(control.bootstrap, control.clock, topic=control.topic)
    assert reader.read_at() is None
    assert reader.stopped("rx-refill")


async def test_what_was_said_before_the_start_is_known_after_it(control: Control) -> None:
    """The kill switch survives restarts; the last word on a campaign counts."""
    await control.say("a", "stopped")
    await control.say("b", "paused")
    await control.say("c", "stopped")
    await control.say("c", "running")
    reader = await control.reader()
    assert [reader.stopped(campaign) for campaign in "abcd"] == [True, True, False, False]
    assert (reader.words.state("a"), reader.words.state("b")) == (Dialling.STOPPED, Dialling.PAUSED)
    assert reader.version() == "4"


async def test_the_kill_switch_is_followed_and_lifted(control: Control) -> None:
    """`*` speaks of all campaigns; a change is told."""
    reader = await control.reader()
    await control.say(EVERYTHING, "stopped")
    await until(lambda: reader.stopped("rx-refill"))
    assert control.changes == 1
    await control.say(EVERYTHING, "running")
    await until(lambda: not reader.stopped("rx-refill"))
    assert reader.version() == "2"


@pytest.mark.parametrize("value", [b"stop!", b'{"state": "halted"}', b"[]", b"{}"])
async def test_a_value_that_cannot_be_read_stops_what_it_is_about(control: Control, value: bytes) -> None:
    """A later version may say something we do not know."""
    await control.write(b"a", value)
    reader = await control.reader()
    assert reader.stopped("a")
    assert not reader.stopped("b")


async def test_a_tombstone_changes_nothing(control: Control) -> None:
    """Control is given by values: a lost value must not start a stopped campaign."""
    await control.say("a", "stopped")
    await control.write(b"a", None)
    assert (await control.reader()).stopped("a")


async def test_layout_and_format_are_written_once_and_compared(control: Control) -> None:
    """The second process writes nothing."""
    first = await control.reader()
    await first.ensure_layout()
    assert first.version() == "2"
    second = await control.reader()
    await second.ensure_layout()
    await first.ensure_layout()
    assert second.version() == "2"
    assert not second.stopped("rx-refill")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (LAYOUT_KEY, b'{"partitions": 12, "partitioner": "murmur2"}'),
        (LAYOUT_KEY, b'{"partitions": 24, "partitioner": "crc32"}'),
        (FORMAT_KEY, b'{"format": "2"}'),
        (FORMAT_KEY, b"?"),
    ],
)
async def test_another_layout_is_an_error_that_names_it(control: Control, key: bytes, value: bytes) -> None:
    """A process that would lay the log out otherwise must not write to it."""
    await control.write(key, value)
    reader = await control.reader()
    with pytest.raises(LayoutMismatch, match=key.decode().replace("$", r"\$")):
        await reader.ensure_layout()


async def test_another_master_key_is_an_error_before_anything_is_read_with_it(control: Control) -> None:
    """No data key would unwrap: such a process must not begin; the message holds no key."""
    secret = bytes(range(32))
    first = await control.reader()
    await first.ensure_layout(MasterKey(secret).check)
    await first.ensure_layout(MasterKey(secret).check)
    second = await control.reader()
    with pytest.raises(LayoutMismatch, match="DIALER_MASTER_KEY") as refused:
        await second.ensure_layout(MasterKey(bytes(32)).check)
    assert secret.hex()[:16] not in str(refused.value)


async def test_no_broker_is_one_line_that_says_so(control: Control) -> None:
    """Within a bounded time."""
    reader = ControlReader(f"127.0.0.1:{free_port()}", control.clock)
    with pytest.raises(ControlUnreadable):
        await reader.start()
