"""Topics are made and verified on a real broker."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from dialer.topic_setup import BROKER_DEFAULT, Difference, Finding, SetupFailed, Verdict, create_or_verify
from rehearsal.ports import free_port
from runtime.kafka import admin
from schemas.topics import TOPICS, Topic

pytestmark = pytest.mark.broker


def renamed() -> list[Topic]:
    """The table under names of this test's own, with few partitions: the broker is shared."""
    prefix = secrets.token_hex(4)
    return [replace(t, name=f"{prefix}.{t.name}", partitions=min(t.partitions, 2)) for t in TOPICS]


async def alter(bootstrap: str, topic: str, config: dict[str, str]) -> None:
    client = admin(bootstrap)
    await client.start()
    answers = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
    assert all(code == 0 for answer in answers for code, *_ in answer.resources)
    await client.close()


async def config_of(bootstrap: str, topic: str) -> dict[str, str]:
    client = admin(bootstrap)
    await client.start()
    (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    await client.close()
    return {name: value for name, value, *_ in answer.resources[0][4]}


@pytest.mark.parametrize("replication_factor", [1, BROKER_DEFAULT])
async def test_missing_topics_are_created_and_then_found_right(kafka_bootstrap: str, replication_factor: int) -> None:
    """All topics of the table, with partitions and settings; a second run changes nothing."""
    topics = renamed()
    first = await create_or_verify(kafka_bootstrap, replication_factor=replication_factor, topics=topics)
    assert first == [Finding(topic=topic.name, verdict=Verdict.CREATED) for topic in topics]
    second = await create_or_verify(kafka_bootstrap, topics=topics)
    assert second == [Finding(topic=topic.name, verdict=Verdict.OK) for topic in topics]


async def test_only_what_is_missing_is_created(kafka_bootstrap: str) -> None:
    """Findings keep the table's order."""
    topics = renamed()[:3]
    await create_or_verify(kafka_bootstrap, topics=topics[1:2])
    found = await create_or_verify(kafka_bootstrap, topics=topics)
    assert [finding.verdict for finding in found] == [Verdict.CREATED, Verdict.OK, Verdict.CREATED]


async def test_a_wrong_setting_is_named_and_left_alone(kafka_bootstrap: str) -> None:
    """Verifying is reading."""
    (topic,) = renamed()[:1]
    await create_or_verify(kafka_bootstrap, topics=[topic])
    await alter(kafka_bootstrap, topic.name, topic.config | {"retention.ms": "1000"})
    wrong = Difference("retention.ms", "1000", topic.config["retention.ms"])
    for _ in range(2):
        (found,) = await create_or_verify(kafka_bootstrap, topics=[topic])
        assert found == Finding(topic=topic.name, verdict=Verdict.WRONG, differences=(wrong,))
    assert str(found) == f"{topic.name}: wrong (retention.ms is 1000, should be 604800000)"


async def test_apply_puts_settings_right_and_keeps_those_that_are_not_ours(kafka_bootstrap: str) -> None:
    """AlterConfigs replaces all: what an operator set beside ours must survive."""
    (topic,) = renamed()[:1]
    await create_or_verify(kafka_bootstrap, topics=[topic])
    await alter(kafka_bootstrap, topic.name, topic.config | {"retention.ms": "1000", "flush.messages": "7"})
    (found,) = await create_or_verify(kafka_bootstrap, topics=[topic], apply=True)
    assert found.verdict is Verdict.APPLIED
    (after,) = await create_or_verify(kafka_bootstrap, topics=[topic])
    assert after.verdict is Verdict.OK
    assert (await config_of(kafka_bootstrap, topic.name))["flush.messages"] == "7"


async def test_a_wrong_number_of_partitions_stays_wrong(kafka_bootstrap: str) -> None:
    """Every callee's owner hangs on that number."""
    (topic,) = renamed()[:1]
    await create_or_verify(kafka_bootstrap, topics=[replace(topic, partitions=7)])
    (found,) = await create_or_verify(kafka_bootstrap, topics=[topic], apply=True)
    wrong = (Difference("partitions", "7", str(topic.partitions)),)
    assert found == Finding(topic=topic.name, verdict=Verdict.WRONG, differences=wrong)


async def test_no_broker_is_one_line_that_says_so() -> None:
    """An operator sees what to look at."""
    with pytest.raises(SetupFailed, match=r"is Kafka at 127\.0\.0\.1:\d+ up\?"):
        await create_or_verify(f"127.0.0.1:{free_port()}")
