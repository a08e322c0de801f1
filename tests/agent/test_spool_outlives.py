"""What is in the spool outlives the job, its worker and the broker's absence, and reaches the owner's log once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.lane import SPOOL_AFTER_S
from agent.reporter import Reporter
from agent.shipper import Sweeper
from agent.sink import Record
from agent.spool import Entry
from agent.wire import Hello, told
from dialer.callee import inputs as i
from runtime.clock import SystemClock
from schemas import facts
from schemas.codec import OBSERVED, decode_payload
from schemas.events import CalleeSuppressed
from tests import histories as h
from tests.agent.dying import started
from tests.agent.line import HELLO, Kafka, Line, left_in, listening, spool_in
from tests.doubles.waiting import until
from tests.spec import given

CLOCK = SystemClock()


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    async with listening(tmp_path) as made:
        yield made


def types(entries: list[Entry]) -> list[str]:
    return [entry.fact.type.split(".")[2] for entry in entries]


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def swept(directory: Path) -> Kafka:
    """Let a new worker find the spool, with Kafka back."""
    kafka = Kafka()
    kafka.here.set()
    await Sweeper(kafka, spool_in(directory), CLOCK).sweep()
    return kafka


async def test_a_job_may_end_while_kafka_is_away_and_its_facts_are_shipped_once(line: Line) -> None:
    """Acknowledged from disk, sealed; when Kafka is back everything goes there in order, and the file goes."""
    line.kafka.here.clear()
    job = await line.job()
    job.ready()
    job.say(facts.OptOutHeard, evidence="stop")
    job.last_word(facts.ConversationEnded, reason="callee_left", callee_seen=True, gap=False)
    assert await job.settled(SPOOL_AFTER_S + 5)
    assert line.kafka.records == [] and len(line.files) == 1
    await job.goodbye()
    line.kafka.here.set()
    await until(lambda: not line.files)
    assert line.kafka.names == ["agent_ready", "opt_out_heard", "conversation_ended"]


async def test_an_opt_out_does_not_wait_for_kafka_to_be_slow(line: Line) -> None:
    """It is on disk at once, with what was said before it; and gone from there as soon as Kafka has it."""
    line.kafka.here.clear()
    job = await line.job()
    job.say(facts.CalleeJoined)
    job.say(facts.OptOutHeard, evidence="stop")
    assert await job.settled(SPOOL_AFTER_S / 2)
    line.kafka.here.set()
    await until(lambda: not line.files)
    assert line.kafka.names == ["callee_joined", "opt_out_heard"]
    await job.goodbye()


async def test_facts_that_follow_a_spooled_one_go_to_the_same_file(line: Line) -> None:
    """Once Kafka is slow for a job, nothing of it waits in memory alone."""
    line.kafka.here.clear()
    job = await line.job()
    job.say(facts.CalleeJoined)
    assert await job.settled(SPOOL_AFTER_S + 5)
    job.say(facts.OptOutHeard, evidence="stop")
    assert await job.settled(SPOOL_AFTER_S / 2), "no second wait for Kafka"
    job._writer.transport.abort()
    await until(lambda: not line.shipper._lanes or all(lane._last_number == 2 for lane in line.shipper._lanes))
    assert await line.shipper.close(SPOOL_AFTER_S) == 0
    assert types(left_in(line.spool)) == ["callee_joined", "opt_out_heard", "agent_crashed"]


async def test_a_full_spool_keeps_an_opt_out_and_acknowledges_nothing_that_it_drops(tmp_path: Path) -> None:
    """What is on neither disk nor topic is not called safe; it is shipped if this worker lives to do so."""
    async with listening(tmp_path, files_max=1) as line:
        blocker = line.spool.begin()
        fact = facts.CalleeJoined(attempt=2, job_id="AJ_0", number=1)
        blocker.append([Entry(hello=HELLO, fact=told(facts.CalleeJoined.TYPE, fact, CLOCK.now()))])
        line.kafka.here.clear()
        job = await line.job()
        job.say(facts.CalleeJoined)
        job.say(facts.OptOutHeard, evidence="stop")
        assert not await job.settled(SPOOL_AFTER_S + 1)
        assert list(job._unacknowledged) == [1]
        assert types(left_in(line.spool)) == [], "both files are held"
        line.kafka.here.set()
        assert await job.settled(5)
        assert line.kafka.names == ["callee_joined", "opt_out_heard"]
        await job.goodbye()
        blocker.delete()


async def test_a_killed_workers_spool_is_shipped_by_the_next(tmp_path: Path) -> None:
    """SIGKILL of the parent after it acknowledged: another process finds what it had promised."""
    async with started("parent", tmp_path) as parent:
        job = await Reporter.connect(str(tmp_path / "facts"), HELLO, spool_in(tmp_path / "spool"), CLOCK)
        job.say(facts.OptOutHeard, evidence="stop")
        assert await job.settled(30)
        assert (await swept(tmp_path / "spool")).names == [], "its writer lives"
        parent.kill()
        await parent.wait()
    kafka = await swept(tmp_path / "spool")
    assert kafka.names == ["opt_out_heard"]
    assert files_in(tmp_path / "spool") == []
    await job.goodbye()


async def test_a_job_whose_worker_died_writes_to_the_spool_itself(tmp_path: Path) -> None:
    """SIGKILL of a parent that hung and acknowledged nothing: the job has every word still, and those to come."""
    async with started("parent", tmp_path) as parent:
        job = await Reporter.connect(str(tmp_path / "facts"), HELLO, spool_in(tmp_path / "spool"), CLOCK)
        parent.send_signal(signal.SIGSTOP)
        job.say(facts.CalleeJoined)
        job.say(facts.OptOutHeard, evidence="stop")
        assert not await job.settled(0.1)
        parent.kill()
        await parent.wait()
    assert await job.settled(5)
    job.last_word(facts.ConversationEnded, reason="failed", callee_seen=True, gap=True)
    assert await job.settled(0.1)
    await job.goodbye()
    kafka = await swept(tmp_path / "spool")
    assert kafka.names == ["callee_joined", "opt_out_heard", "conversation_ended"]


async def test_a_killed_jobs_words_and_its_crash_are_spooled_by_its_worker(line: Line, tmp_path: Path) -> None:
    """SIGKILL of the job with Kafka away: all that it had said, and that it is gone."""
    line.kafka.here.clear()
    async with started("job", tmp_path) as job:
        job.kill()
        await job.wait()
    await until(lambda: len(line.files) == 1)
    assert await line.shipper.close(SPOOL_AFTER_S) == 0
    assert types(left_in(line.spool)) == ["callee_joined", "opt_out_heard", "agent_crashed"]


async def test_two_workers_in_one_directory_ship_each_file_once(tmp_path: Path) -> None:
    """The lock decides; both are at it at the same time."""
    spool = spool_in(tmp_path)
    for number in range(1, 31):
        fact = facts.OptOutHeard(attempt=1, job_id=f"AJ_{number}", number=1, evidence="stop")
        hello = replace(HELLO, attempt=1, job_id=f"AJ_{number}")
        file = spool.begin()
        file.append([Entry(hello=hello, fact=told(facts.OptOutHeard.TYPE, fact, CLOCK.now()))])
        file.close()
    kafka = Kafka()
    kafka.here.set()
    await asyncio.gather(*(Sweeper(kafka, spool_in(tmp_path), CLOCK).sweep() for _ in range(2)))
    assert Counter(record.source for record in kafka.seen) == {f"/agent/1/AJ_{number}": 1 for number in range(1, 31)}
    assert files_in(tmp_path) == []


class Halting(Kafka):
    """Takes one record and answers no more."""

    async def send(self, record: Record) -> None:
        if self.records:
            self.here.clear()
        await super().send(record)


async def test_a_sweep_that_is_cut_off_ships_again_and_the_owner_counts_once(tmp_path: Path) -> None:
    """Half of a file shipped, then a death: the rest comes, the first half twice, under the same ids, to no effect."""
    hello = Hello(call_id=h.call(1), attempt=1, job_id="AJ_1")
    said: list[facts.FactBody] = [
        facts.CalleeLeft(attempt=1, job_id="AJ_1", number=11, reason="CLIENT_INITIATED"),
        facts.OptOutHeard(attempt=1, job_id="AJ_1", number=20, evidence="stop"),
    ]
    spool = spool_in(tmp_path)
    file = spool.begin()
    file.append([Entry(hello=hello, fact=told(fact.TYPE, fact, h.at(20))) for fact in said])
    file.close()
    kafka = Halting()
    kafka.here.set()
    sweeping = asyncio.create_task(Sweeper(kafka, spool_in(tmp_path, age_max_h=10**6), CLOCK).sweep())
    await until(lambda: not kafka.here.is_set())
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    first = kafka.seen
    again = Kafka()
    again.here.set()
    await Sweeper(again, spool_in(tmp_path, age_max_h=10**6), CLOCK).sweep()
    assert again.names == ["callee_left", "opt_out_heard"] and first[0].id == again.seen[0].id
    inputs = [
        i.FactSeen(
            id=seen.id,
            at=h.at(3600),
            call_id=seen.subject or "",
            attempt=1,
            fact=decode_payload(OBSERVED, seen.type, seen.data),
            source=seen.source,
        )
        for seen in (*first, *again.seen)
    ]
    spec = given(*h.fencing(), h.fenced(15)).when(*inputs)
    spec.then(facts.CalleeLeft, facts.OptOutHeard, CalleeSuppressed)


async def test_what_nobody_would_take_any_more_is_left_out_but_never_an_opt_out(tmp_path: Path) -> None:
    """After two days on disk only what is never dropped is shipped; the file goes."""
    spool = spool_in(tmp_path)
    left = facts.CalleeLeft(attempt=2, job_id="AJ_1", number=1, reason="CLIENT_INITIATED")
    heard = facts.OptOutHeard(attempt=2, job_id="AJ_1", number=2, evidence="stop")
    file = spool.begin()
    file.append([Entry(hello=HELLO, fact=told(fact.TYPE, fact, h.at(-(10**7)))) for fact in (left, heard)])
    file.close()
    kafka = await swept(tmp_path)
    assert kafka.names == ["opt_out_heard"] and files_in(tmp_path) == []


async def test_a_file_that_does_not_open_whole_is_shipped_as_far_as_it_does_and_stays(tmp_path: Path) -> None:
    """The disk, or another key of the same name: only a person can tell."""
    spool = spool_in(tmp_path)
    file = spool.begin()
    for number in (1, 2):
        fact = facts.OptOutHeard(attempt=2, job_id="AJ_1", number=number, evidence="stop")
        file.append([Entry(hello=HELLO, fact=told(facts.OptOutHeard.TYPE, fact, CLOCK.now()))])
    file.close()
    [path] = files_in(tmp_path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][::-1], *lines[2:]]))
    kafka = await swept(tmp_path)
    assert [record.data["number"] for record in kafka.seen] == [2]
    assert files_in(tmp_path) == [path]
