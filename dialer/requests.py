"""Writes requests and observations to their topics, each to its canonical key and partition, acknowledged by all.

Used by the HTTP API, by the webhook receiver, and for outcomes of dials whose ownership is over.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from runtime.kafka import idempotent_producer
from schemas.envelope import Envelope, encode, headers_of
from schemas.topics import CAMPAIGNS, CONTROL, Topic
from schemas.values import partition_of

SEND_TIMEOUT_S: Final = 10.0


class NotAccepted(Exception):
    """The broker did not acknowledge in time: nobody may assume that the request was taken, or that it was not."""


class Requests:
    """One idempotent producer for everything that is asked or seen."""

    def __init__(self, bootstrap: str) -> None:
        self._producer: AIOKafkaProducer = idempotent_producer(bootstrap, "dialer-requests")

    async def start(self) -> None:
        """Connect. Raises: KafkaError."""
        await self._producer.start()

    async def close(self) -> None:
        """Send what is buffered and disconnect."""
        await self._producer.stop()

    async def send(self, topic: Topic, callee_key: str, envelope: Envelope) -> None:
        """Write one record and wait for the acknowledgement. Raises: NotAccepted."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._producer.send_and_wait(
                    topic.name,
                    value=encode(envelope),
                    key=callee_key.encode(),
                    partition=partition_of(callee_key),
                    headers=headers_of(envelope),
                )
        except (KafkaError, TimeoutError) as error:
            raise NotAccepted(type(error).__name__) from None

    async def send_campaign(self, campaign_hash: str, definition: bytes) -> None:
        """Write a definition under its hash and wait for the acknowledgement. Raises: NotAccepted."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._producer.send_and_wait(CAMPAIGNS.name, value=definition, key=campaign_hash.encode())
        except (KafkaError, TimeoutError) as error:
            raise NotAccepted(type(error).__name__) from None

    async def send_control(self, key: bytes, value: bytes | None) -> int:
        """Write one record to `dialer.control`, wait for the acknowledgement, return its offset. Raises: NotAccepted."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                sent = await self._producer.send_and_wait(CONTROL.name, value, key=key, partition=0)
        except (KafkaError, TimeoutError) as error:
            raise NotAccepted(type(error).__name__) from None
        return int(sent.offset)
