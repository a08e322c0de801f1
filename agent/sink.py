"""Where facts leave the worker: `dialer.observations`, by one idempotent producer of the parent process.

The producer retries by itself as long as Kafka is away, in order. Only an error that ends it (its sequence lost, its
metadata gone) comes out; a fresh one then takes its place, and a fact may stand twice on the topic: the owner counts
facts by their number.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from agent.wire import Hello, Told
from runtime.kafka import idempotent_producer
from schemas.envelope import Envelope, Headers, encode, headers_of
from schemas.facts import fact_source
from schemas.topics import OBSERVATIONS
from schemas.values import attempt_id, callee_of, partition_of

STOP_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of `dialer.observations`."""

    key: bytes
    partition: int
    value: bytes
    headers: Headers


class SinkDown(Exception):
    """The record was not acknowledged; it may be sent again."""


class Sink(Protocol):
    """Where records go."""

    async def send(self, record: Record) -> None:
        """Return once the record is safe. Raises: SinkDown."""
        ...


def record_of(hello: Hello, fact: Told) -> Record:
    """Write a job's fact as its record: keyed by callee, named by attempt, job and number (design §3, §4)."""
    key = callee_of(hello.call_id)
    name = f"{attempt_id(hello.call_id, hello.attempt)}/{hello.job_id}/{fact.number}"
    envelope = Envelope(
        type=fact.type,
        source=fact_source(hello.attempt, hello.job_id),
        id=f"{name}/r{fact.renewal}" if fact.renewal else name,
        subject=hello.call_id,
        time=fact.time,
        data=fact.data,
    )
    return Record(
        key=key.encode(),
        partition=partition_of(key),
        value=encode(envelope),
        headers=tuple(headers_of(envelope)),
    )


class KafkaSink:
    """The producer, and its successor when it fails."""

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._bootstrap, self._client_id = bootstrap, client_id
        self._producer: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises: KafkaError when no broker answers."""
        producer = idempotent_producer(self._bootstrap, self._client_id)
        try:
            await producer.start()
        except BaseException:
            await _stop(producer)
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Flush and close, within a bound."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)

    async def send(self, record: Record) -> None:
        """Send one record and wait until all in-sync replicas have it. Raises: SinkDown."""
        producer = self._producer
        if producer is None:
            await self._replace(producer)
            raise SinkDown("no producer")
        try:
            acknowledged = await producer.send(
                OBSERVATIONS.name,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=list(record.headers),
            )
            await acknowledged
        except KafkaError as error:
            await self._replace(producer)
            raise SinkDown(type(error).__name__) from None

    async def _replace(self, broken: AIOKafkaProducer | None) -> None:
        async with self._replacing:
            if self._producer is not broken:
                return
            await self.stop()
            with contextlib.suppress(KafkaError):
                await self.start()


async def _stop(producer: AIOKafkaProducer) -> None:
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await producer.stop()
