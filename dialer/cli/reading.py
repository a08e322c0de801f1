"""`events`, `rejected`, `topics`: what stands on Kafka, masked: sealed values and foreign words are never shown."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from dialer.cli.errors import CliError
from runtime.kafka import assigned_consumer
from runtime.settings import Settings
from schemas import topics

IDLE_END_S: Final = 1.0
POLL_MS: Final = 200


def add_commands(commands: Any) -> None:
    """Add what reads Kafka to the table of commands."""
    events = commands.add_parser("events", help="print the log, masked, and follow it (Ctrl-C ends)")
    events.add_argument("--call", help="only this call's")
    events.add_argument("--from-start", action="store_true", help="from the log's beginning, not from now")
    events.add_argument("--no-follow", action="store_true", help="end at the log's end")
    events.set_defaults(run=_events)
    rejected = commands.add_parser("rejected", help="print what was refused: where it lay, which field, which rule")
    rejected.add_argument("--follow", action="store_true", help="go on at the end")
    rejected.set_defaults(run=_rejected)
    setup = commands.add_parser("topics", help="make and verify all topics; says what is wrong with which setting")
    setup.add_argument("--replication-factor", type=int, default=1, help="of topics that are made; -1: the broker's")
    setup.add_argument("--apply", action="store_true", help="put wrong settings right (never partitions)")
    setup.set_defaults(run=_topics)


def _events(settings: Settings, asked: argparse.Namespace) -> None:
    async def run() -> None:
        start = asked.from_start or asked.no_follow
        async for document in _records(settings, topics.EVENTS.name, start=start, follow=not asked.no_follow):
            if asked.call in {None, document.get("subject")}:
                print(event_line(document), flush=True)

    asyncio.run(run())


def _rejected(settings: Settings, asked: argparse.Namespace) -> None:
    async def run() -> None:
        async for document in _records(settings, topics.REJECTED.name, start=True, follow=asked.follow):
            data = document["data"]
            where = f"{data['topic']}/{data['partition']}/{data['offset']}"
            print(f"{document['time']}  {where}  {data['length']} bytes  {data['field']}: {data['rule']}", flush=True)

    asyncio.run(run())


def _topics(settings: Settings, asked: argparse.Namespace) -> int:
    from dialer.topic_setup import SetupFailed, Verdict, create_or_verify

    try:
        found = asyncio.run(
            create_or_verify(settings.kafka_bootstrap, replication_factor=asked.replication_factor, apply=asked.apply)
        )
    except SetupFailed as error:
        raise CliError(str(error)) from None
    for finding in found:
        print(finding)
    return 1 if any(finding.verdict is Verdict.WRONG for finding in found) else 0


def event_line(document: dict[str, Any]) -> str:
    """Show one record of the log in one line, sealed values as the word `sealed`."""
    data = ", ".join(f"{k}={masked(v)}" for k, v in document["data"].items() if v is not None)
    kind = document["type"].removesuffix(".v1")
    return f"{document['time']}  {document.get('subject', '-')}  {document['sequence']}  {kind}  {data}"


def masked(value: Any) -> str:
    """Show a value of a record; a sealed one, or what contains one, by a word."""
    if isinstance(value, dict):
        if set(value) == {"key", "box"}:
            return "sealed"
        return "{" + ", ".join(f"{k}={masked(v)}" for k, v in value.items()) + "}"
    return str(value)


async def _records(settings: Settings, topic: str, *, start: bool, follow: bool) -> AsyncIterator[dict[str, Any]]:
    """Read a topic from its start or its end; end there, or go on."""
    consumer = assigned_consumer(settings.kafka_bootstrap, "dialer-cli", read_committed=True)
    try:
        await consumer.start()
        tps = [
            TopicPartition(topic, p)
            for p in sorted(consumer.partitions_for_topic(topic) or await _found(consumer, topic))
        ]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        starts = await consumer.beginning_offsets(tps)
        for tp in tps:
            consumer.seek(tp, starts[tp] if start else ends[tp])
        while True:
            fetched = await consumer.getmany(timeout_ms=POLL_MS)
            records = sorted((r for batch in fetched.values() for r in batch), key=lambda r: (r.timestamp, r.offset))
            for record in records:
                yield orjson.loads(record.value)
            if not follow and not records and [True for tp in tps if await consumer.position(tp) < ends[tp]] == []:
                return
    except KafkaError as error:
        raise CliError(
            f"{topic} cannot be read at {settings.kafka_bootstrap} ({type(error).__name__}); is Kafka up?"
        ) from None
    finally:
        await consumer.stop()


async def _found(consumer: Any, topic: str) -> set[int]:
    found = (await consumer._client.fetch_all_metadata()).partitions_for_topic(topic)
    if not found:
        raise CliError(f"there is no topic {topic}; `dialer topics` makes it")
    return set(found)
