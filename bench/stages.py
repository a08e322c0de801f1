"""What a command costs, stage by stage, in microseconds of processor time: the write path's own functions, one by one.

Each stage runs over all commands before the next begins, on new keys and new numbers each time; the best of three
passes is kept, since what is asked here is the cost of the code, not of its neighbours on the machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import orjson
from aiokafka import AIOKafkaProducer

from bench.child import answer, lines
from bench.requests import CAMPAIGN, MASTER, PEPPER, Command, place_calls
from dialer.callee import inputs as i
from dialer.callee.owed import deadline, owed
from dialer.callee.state import Callee
from dialer.callee.step import Step, step
from dialer.campaigns import EMBEDDED, Directory, define
from dialer.data_keys import DataKeys
from dialer.kafka_log import _batches
from dialer.log import Record
from dialer.prepare import prepare, seal_number, seal_variables
from dialer.reading import body_hash
from dialer.records import RawRecord, encode_snapshot, event_record
from runtime.clock import SystemClock
from runtime.kafka import transactional_producer
from runtime.seal import DataKey, MasterKey
from schemas import commands as c
from schemas import topics
from schemas.campaign import Campaign
from schemas.codec import decode_command
from schemas.envelope import Envelope, decode
from schemas.values import call_id, callee_key, is_phone_number_like, parse_number, partition_of, request_hash, zones_of

PASSES: Final = 3
STAGES: Final = ("decode", "validate", "seal", "step", "encode", "send")
A = TypeVar("A")
B = TypeVar("B")
Read = tuple[Envelope, c.PlaceCall, dict[str, Any]]
Sealing = tuple[Read, DataKey, dict[str, Any]]


def _raw(command: Command, offset: int) -> RawRecord:
    return RawRecord(
        topic=topics.COMMANDS.name,
        partition=command.partition,
        offset=offset,
        timestamp_ms=int(time.time() * 1000),
        key=command.key,
        value=command.value,
    )


def _validate(envelope: Envelope) -> Read:
    is_phone_number_like(envelope.id)
    command = decode_command(envelope.type, envelope.data)
    assert isinstance(command, c.PlaceCall)
    number = parse_number(command.to)
    callee = callee_key(number.e164, PEPPER)
    partition_of(callee)
    found = {
        "number": number,
        "callee": callee,
        "call_id": call_id(callee, request_hash(command.campaign_id, command.request_id)),
        "body_hash": body_hash(command, number.e164, PEPPER),
        "zones": (command.timezone,) if command.timezone else zones_of(number),
    }
    return envelope, command, found


class _Stages:
    """The stages of one pass, each a function of the one before."""

    def __init__(self, campaign: Campaign, producer: AIOKafkaProducer) -> None:
        self._clock = SystemClock()
        self._keys = DataKeys(0, MasterKey(MASTER), self._clock)
        self._definition = define(campaign)
        self._producer = producer
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, work: Callable[[A], B], given: Sequence[A]) -> list[B]:
        """Run a stage over everything."""
        gc.collect()
        began = time.process_time()
        found = [work(one) for one in given]
        self.seconds[name] = time.process_time() - began
        return found

    def seal(self, read: Read) -> Sealing:
        """Make the key, seal number, variables and message."""
        _, command, found = read
        draw, callee, number = self._clock.random_bytes, found["callee"], found["number"]
        key = self._keys.find_or_make(callee)
        sealed = {
            "to": seal_number(key, callee, number.e164, draw),
            "variables": seal_variables(key, callee, command.variables, draw),
            "verdict": prepare(self._definition, command.variables, number.region, key, callee, draw),
        }
        return read, key, sealed

    def step(self, sealing: Sealing) -> Step:
        """Decide, and read what is owed and due."""
        (envelope, command, found), _, sealed = sealing
        now = datetime.now(UTC)
        given = i.PlaceCall(
            id=envelope.id,
            at=now,
            call_id=found["call_id"],
            request_id=command.request_id,
            campaign_id=command.campaign_id,
            body_hash=found["body_hash"],
            region=found["number"].region,
            zones=found["zones"],
            priority=command.priority,
            not_before=command.not_before,
            not_after=command.not_after or now + timedelta(hours=24),
            remember_until=now + timedelta(days=35),
            consent=command.consent,
            **sealed,
        )
        done = step(Callee(callee_key=found["callee"]), given)
        owed(done.callee, now)
        deadline(done.callee, now)
        return done

    def encode(self, done: Step) -> list[Record]:
        """Write events and snapshot."""
        key = done.callee.callee_key
        records = [event_record(0, key, recorded, None) for recorded in done.events]
        return [*records, Record(topics.CALLEES.name, 0, key.encode(), encode_snapshot(done.callee))]

    def send(self, chunk: list[Record]) -> None:
        """Pack a transaction's records into batches; the broker's part is not in this."""
        for _, batch in _batches(self._producer, chunk):
            batch.close()


async def one_pass(commands: list[Command], producer: AIOKafkaProducer) -> dict[str, float]:
    """Return seconds by stage."""
    campaign = await Directory(EMBEDDED).get(CAMPAIGN)
    assert isinstance(campaign, Campaign)
    stages = _Stages(campaign, producer)
    raws = [_raw(command, offset) for offset, command in enumerate(commands)]
    envelopes = stages.timed("decode", lambda raw: decode(raw.value, raw.headers), raws)
    read = stages.timed("validate", _validate, envelopes)
    sealed = stages.timed("seal", stages.seal, read)
    done = stages.timed("step", stages.step, sealed)
    records = stages.timed("encode", stages.encode, done)
    flat = [record for chunk in records for record in chunk]
    stages.timed("send", stages.send, [flat])
    return stages.seconds


async def stages() -> None:
    """Answer one parent's question: microseconds a command by stage."""
    asked = orjson.loads(await (await lines()).readline())
    producer = transactional_producer(asked["bootstrap"], "bench-stages")
    await producer.start()
    best: dict[str, float] = {}
    for number in range(PASSES):
        found = await one_pass(place_calls(asked["commands"], number, f"s{number}"), producer)
        best = {name: min(seconds, best.get(name, seconds)) for name, seconds in found.items()}
    await producer.stop()
    answer(**{name: best[name] / asked["commands"] * 1e6 for name in STAGES})
