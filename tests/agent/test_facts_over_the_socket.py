"""Reporter and shipper over a real Unix socket: order, numbers, acknowledgements, crashes, and a Kafka that is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.wire import Hello
from schemas import facts, values
from schemas.codec import OBSERVED, decode_payload
from tests.agent.line import CALLEE, HELLO, Line, left_in, listening


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    async with listening(tmp_path) as made:
        yield made


async def test_facts_are_numbered_from_one_and_acknowledged(line: Line) -> None:
    """What the topic gets is what was said, in order, and the job knows when it is safe."""
    job = await line.job()
    job.ready()
    job.say(facts.CalleeJoined)
    job.say(facts.CalleeStatus, status="ringing")
    job.last_word(facts.ConversationEnded, reason="callee_left", callee_seen=True, gap=False)
    assert await job.settled(5)
    await job.goodbye()
    assert line.kafka.names == ["agent_ready", "callee_joined", "callee_status", "conversation_ended"]
    assert [record.data["number"] for record in line.kafka.seen] == [1, 2, 3, 4]


async def test_a_record_is_a_cloudevent_of_the_contract(line: Line) -> None:
    """Key, partition, source, id and payload are as design §3 and §4 say."""
    job = await line.job()
    job.say(facts.CalleeLeft, reason="CLIENT_INITIATED")
    assert await job.settled(5)
    await job.goodbye()
    record, seen = line.kafka.records[0], line.kafka.seen[0]
    assert (record.key, record.partition) == (CALLEE.encode(), values.partition_of(CALLEE))
    assert seen.source == "/agent/2/AJ_1" and seen.subject == HELLO.call_id and seen.time is not None
    assert seen.id == f"{HELLO.call_id}-2/AJ_1/1"
    payload = decode_payload(OBSERVED, seen.type, seen.data)
    assert payload == facts.CalleeLeft(attempt=2, job_id="AJ_1", number=1, reason="CLIENT_INITIATED")


async def test_a_renewal_repeats_the_number_of_the_first_readiness(line: Line) -> None:
    """Renewals refresh the gate under ids of their own and leave the numbering alone."""
    job = await line.job()
    job.ready()
    assert await job.settled(5)
    for _ in range(2):
        job.renew()
    await line.kafka.until(lambda: len(line.kafka.records) == 3)
    job.say(facts.CalleeJoined)
    assert await job.settled(5)
    await job.goodbye()
    first, *renewals, joined = line.kafka.seen
    assert [renewal.id for renewal in renewals] == [f"{first.id}/r1", f"{first.id}/r2"]
    assert [record.data["number"] for record in (first, *renewals, joined)] == [1, 1, 1, 2]


async def test_a_job_without_a_goodbye_has_crashed(line: Line) -> None:
    """The socket of a dead job closes: the parent says so, numbered one past the last fact it saw."""
    job = await line.job()
    job.ready()
    job.say(facts.CalleeJoined)
    assert await job.settled(5)
    job._writer.transport.abort()
    await line.kafka.until(lambda: len(line.kafka.records) == 3)
    crashed = line.kafka.seen[-1]
    assert crashed.type == facts.AgentCrashed.TYPE and crashed.data["number"] == 3
    assert crashed.id == f"{HELLO.call_id}-2/AJ_1/3"


async def test_a_job_that_died_before_its_first_fact_has_crashed_too(line: Line) -> None:
    """Hello is enough to know who is gone; the number is 1."""
    job = await line.job()
    await job._writer.drain()
    job._writer.transport.close()
    await line.kafka.until(lambda: bool(line.kafka.records))
    assert (line.kafka.names, line.kafka.seen[0].data["number"]) == (["agent_crashed"], 1)


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_job_that_said_its_last_word_did_not_crash(line: Line, goodbye: bool) -> None:
    """With the last word on its way, the end of the socket says nothing more."""
    job = await line.job()
    job.last_word(facts.ConversationEnded, reason="failed", callee_seen=False, gap=True)
    assert await job.settled(5)
    if goodbye:
        await job.goodbye()
    else:
        job._writer.transport.abort()
    assert await line.shipper.close(5) == 0
    assert line.kafka.names == ["conversation_ended"]


async def test_nothing_is_said_after_the_last_word(line: Line) -> None:
    """The callee who leaves a deleted room is no fact any more."""
    job = await line.job()
    job.last_word(facts.ConversationEnded, reason="delivered", callee_seen=True, gap=False)
    job.say(facts.CalleeLeft, reason="ROOM_DELETED")
    job.renew()
    assert await job.settled(5)
    await job.goodbye()
    assert await line.shipper.close(5) == 0
    assert line.kafka.names == ["conversation_ended"]


async def test_facts_wait_in_order_while_kafka_is_away_and_renewals_are_dropped(line: Line) -> None:
    """A long lane drops what would be stale, and nothing else; the job is not told that it is safe before it is."""
    line.kafka.here.clear()
    job = await line.job()
    job.ready()
    for status in ("dialing", "ringing", "active"):
        job.say(facts.CalleeStatus, status=status)
    for _ in range(20):
        job.renew()
    job.say(facts.NotificationDelivered, spoken_ms=100)
    assert not await job.settled(0.2)
    line.kafka.here.set()
    assert await job.settled(5)
    await job.goodbye()
    assert await line.shipper.close(5) == 0
    assert line.kafka.names == ["agent_ready", *["callee_status"] * 3, "notification_delivered"]


async def test_a_fact_is_sent_again_until_it_is_safe(line: Line) -> None:
    """An error of the producer delays a fact; the facts behind it keep their places."""
    line.kafka.failures = 2
    job = await line.job()
    job.ready()
    job.say(facts.CalleeJoined)
    assert await job.settled(5)
    await line.kafka.until(lambda: len(line.kafka.records) == 2)
    await job.goodbye()
    assert (line.kafka.names, line.kafka.tries) == (["agent_ready", "callee_joined"], 4)


async def test_a_slow_job_does_not_hold_up_another(line: Line) -> None:
    """Each job has a lane of its own."""
    other = Hello(call_id=values.call_id(values.callee_key("+12125550124", b"pepper"), "a" * 16), attempt=1, job_id="2")
    line.kafka.here.clear()
    line.kafka.held = {CALLEE.encode()}
    first, second = await line.job(), await line.job(other)
    first.ready()
    second.ready()
    assert await second.settled(5)
    assert not await first.settled(0.1)
    line.kafka.held.clear()
    line.kafka.here.set()
    assert await first.settled(5)
    await first.goodbye()
    await second.goodbye()


async def test_what_is_left_when_the_worker_must_go_is_on_disk(line: Line) -> None:
    """Closing is bounded; facts that Kafka did not take in time are in the spool, and none is lost."""
    line.kafka.here.clear()
    job = await line.job()
    job.ready()
    job.last_word(facts.ConversationEnded, reason="failed", callee_seen=False, gap=True)
    await job.goodbye()
    assert await line.shipper.close(0.1) == 0
    assert line.kafka.records == []
    left = [entry.fact.type for entry in left_in(line.spool)]
    assert left == [facts.AgentReady.TYPE, facts.ConversationEnded.TYPE]
