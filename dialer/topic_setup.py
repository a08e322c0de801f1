"""Makes the topics of `schemas/topics` and holds existing ones against it: nothing starts on a log with other settings.

Partitions are never altered, since every callee's owner hangs on their number; configurations only with `apply`.
Kafka's AlterConfigs, the version aiokafka speaks, replaces all of a topic's own settings: those that are not ours are
written back as they were. Source: design §3; Kafka protocol, APIs 19, 32, 33.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from runtime.clock import Clock, SystemClock
from runtime.kafka import admin
from schemas.topics import TOPICS, Topic

BROKER_DEFAULT: Final = -1
"""Replication factor: what the broker's `default.replication.factor` says."""
LED_TIMEOUT_S: Final = 60.0
"""Topic asked for -> every partition has a leader that the brokers know of; seconds on a busy machine."""
LED_POLL_S: Final = 0.05
_SET_ON_TOPIC: Final = 1
"""`config_source` of DescribeConfigs: set on the topic itself."""


class SetupFailed(Exception):
    """The broker did not answer, or refused a request: one line for the operator."""


class Verdict(StrEnum):
    """What was found of a topic, and what was done."""

    CREATED = "created"
    OK = "ok"
    WRONG = "wrong"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not as the topics table says."""

    setting: str
    found: str
    wanted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One topic; `differences` tells what was wrong before, also where it was put right (`applied`)."""

    topic: str
    verdict: Verdict
    differences: tuple[Difference, ...] = ()

    def __str__(self) -> str:
        wrong = "; ".join(f"{d.setting} is {d.found}, should be {d.wanted}" for d in self.differences)
        return f"{self.topic}: {self.verdict}" + (f" ({wrong})" if wrong else "")


async def create_or_verify(
    bootstrap: str,
    *,
    replication_factor: int = 1,
    apply: bool = False,
    topics: Sequence[Topic] = TOPICS,
    clock: Clock | None = None,
) -> list[Finding]:
    """Create what is missing, verify the rest, and say what was found, in the order of `topics`.

    `replication_factor` is for created topics only; `BROKER_DEFAULT` leaves it to the broker. `apply` puts wrong
    configurations right; a wrong number of partitions stays `wrong`. Raises: SetupFailed.
    """
    client = admin(bootstrap)
    try:
        await client.start()
        created = await _create_missing(client, topics, replication_factor)
        await _until_led(client, created, clock or SystemClock())
        existing = [topic for topic in topics if topic.name not in created]
        found = await _verify(client, existing, apply=apply) if existing else {}
    except (KafkaError, TimeoutError, OSError) as error:
        raise SetupFailed(f"topics could not be set up: {error}; is Kafka at {bootstrap} up?") from error
    finally:
        await client.close()
    return [found.get(topic.name, Finding(topic=topic.name, verdict=Verdict.CREATED)) for topic in topics]


async def _create_missing(client: AIOKafkaAdminClient, topics: Sequence[Topic], replication_factor: int) -> set[str]:
    there = set(await client.list_topics())
    missing = [topic for topic in topics if topic.name not in there]
    if not missing:
        return set()
    # aiokafka takes a replication factor of -1 only beside an (empty) replica assignment
    assignments: dict[int, list[int]] | None = {} if replication_factor == BROKER_DEFAULT else None
    answer = await client.create_topics(
        [NewTopic(t.name, t.partitions, replication_factor, assignments, t.config) for t in missing]
    )
    created = set()
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if code == 0:
            created.add(name)
        elif error is not TopicAlreadyExistsError:  # another process was quicker: then it is verified like the others
            raise SetupFailed(f"{name} could not be created: {error.__name__} {message[0] if message else ''}".strip())
    return created


async def _until_led(client: AIOKafkaAdminClient, created: set[str], clock: Clock) -> None:
    """Wait until created topics can be used: the controller answers before the brokers have heard of them."""
    async with asyncio.timeout(LED_TIMEOUT_S):
        while created:
            described = await client.describe_topics(sorted(created))
            led = {t["topic"] for t in described if t["error_code"] == 0 and t["partitions"]}
            led -= {t["topic"] for t in described if any(p["leader"] < 0 for p in t["partitions"])}
            created = created - led
            if created:
                await clock.sleep(LED_POLL_S)


async def _verify(client: AIOKafkaAdminClient, topics: Sequence[Topic], *, apply: bool) -> dict[str, Finding]:
    partitions = {t["topic"]: len(t["partitions"]) for t in await client.describe_topics([t.name for t in topics])}
    configs = await _describe(client, topics)
    findings: dict[str, Finding] = {}
    for topic in topics:
        settings = configs[topic.name]
        wrong = tuple(
            Difference(name, settings[name][0] if name in settings else "not known to this broker", wanted)
            for name, wanted in topic.config.items()
            if settings.get(name, ("", 0))[0] != wanted
        )
        count = partitions.get(topic.name, 0)
        layout = (Difference("partitions", str(count), str(topic.partitions)),) if count != topic.partitions else ()
        verdict = Verdict.WRONG if wrong or layout else Verdict.OK
        if wrong and apply:
            await _apply(client, topic, settings)
            verdict = Verdict.WRONG if layout else Verdict.APPLIED
        findings[topic.name] = Finding(topic=topic.name, verdict=verdict, differences=layout + wrong)
    return findings


async def _describe(client: AIOKafkaAdminClient, topics: Sequence[Topic]) -> dict[str, dict[str, tuple[str, int]]]:
    """Return setting → (value, source) by topic."""
    answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, t.name) for t in topics])
    configs: dict[str, dict[str, tuple[str, int]]] = {}
    for answer in answers:
        for code, message, _, name, entries in answer.resources:
            if code:
                raise SetupFailed(f"{name} could not be described: {for_code(code).__name__} {message or ''}".strip())
            configs[name] = {setting: (value, source) for setting, value, _, source, *_ in entries}
    return configs


async def _apply(client: AIOKafkaAdminClient, topic: Topic, settings: dict[str, tuple[str, int]]) -> None:
    kept = {name: value for name, (value, source) in settings.items() if source == _SET_ON_TOPIC}
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, kept | topic.config)
    answers: list[Any] = await client.alter_configs([resource])
    for answer in answers:
        for code, message, *_ in answer.resources:
            if code:
                raise SetupFailed(
                    f"{topic.name} could not be altered: {for_code(code).__name__} {message or ''}".strip()
                )
