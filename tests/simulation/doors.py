"""The doors where `dialer/` opens clients of Kafka, opened onto the broker in memory for the process that knocks.

`Intake`, `StopsReader` and `ControlReader` run as they are; what they would have of FastStream and aiokafka is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from tests.simulation.kafka import Group, GroupConsumer, SimBroker, SimConsumer
from tests.simulation.loop import HOST
from tests.simulation.process import Process

ASK_EVERY_S = 0.8
"""Ends are asked for this often instead of ten times a second: what is asked is the same, and 1 s is fresh enough."""

MEMBERSHIP_EVERY_S = 2.0
"""Likewise: membership counts for 7 s."""


def _here() -> Process:
    host = HOST.get()
    assert isinstance(host, Process), "only a process opens clients"
    return host


class _Subscriber:
    """FastStream's batch subscriber: one loop that fetches and hands over."""

    def __init__(self, kafka: KafkaDoor, topics: Sequence[str], listener: Any) -> None:
        self._kafka, self._topics, self._listener = kafka, topics, listener
        self._handler: Callable[[Any], Any] | None = None
        self.consumer: GroupConsumer | None = None

    def __call__(self, handler: Callable[[Any], Any]) -> None:
        self._handler = handler

    def start(self) -> None:
        process = _here()
        self.consumer = GroupConsumer(self._kafka.broker, process, self._kafka.group, self._topics, self._listener)
        process.clock.spawn(self.consumer.live(), "group")
        process.clock.spawn(self._fetch(self.consumer), "fetch")

    async def _fetch(self, consumer: GroupConsumer) -> None:
        assert self._handler is not None
        while True:
            fetched = await consumer.getmany(timeout_ms=200, max_records=50)
            if fetched:
                records = tuple(record for found in fetched.values() for record in found)
                await self._handler(SimpleNamespace(raw_message=records))
                await asyncio.sleep(0)


class KafkaDoor:
    """Opens clients on one broker and one group."""

    def __init__(self, broker: SimBroker, group: Group) -> None:
        self.broker, self.group = broker, group
        self.consumers: dict[str, list[SimConsumer]] = {}

    def assigned_consumer(
        self, _bootstrap: str, _client_id: str, *, read_committed: bool, **_options: Any
    ) -> SimConsumer:
        process = _here()
        consumer = SimConsumer(self.broker, process, read_committed=read_committed)
        self.consumers.setdefault(process.name, []).append(consumer)
        return consumer

    def faststream(self, _bootstrap: str, **_options: Any) -> Any:
        """Stand for FastStream's KafkaBroker."""
        subscribers: list[_Subscriber] = []

        def subscriber(*topics: str, listener: Any, **_more: Any) -> _Subscriber:
            subscribers.append(_Subscriber(self, topics, listener))
            return subscribers[-1]

        async def start() -> None:
            for one in subscribers:
                one.start()
                assert one.consumer is not None
                self.consumers.setdefault(_here().name, []).append(one.consumer)

        async def stop() -> None:
            self.group.leave(_here().name)

        return SimpleNamespace(subscriber=subscriber, start=start, stop=stop)


@contextmanager
def opened(kafka: KafkaDoor) -> Iterator[None]:
    """Let `dialer/` find these clients instead of the network's."""
    with ExitStack() as stack:
        for where in ("dialer.stops_reader", "dialer.control"):
            stack.enter_context(patch(f"{where}.assigned_consumer", kafka.assigned_consumer))
            stack.enter_context(patch(f"{where}.ASK_EVERY_S", ASK_EVERY_S))
        stack.enter_context(patch("dialer.intake.MEMBERSHIP_EVERY_S", MEMBERSHIP_EVERY_S))
        stack.enter_context(patch("dialer.intake.KafkaBroker", kafka.faststream))
        yield
