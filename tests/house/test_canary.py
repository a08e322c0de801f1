"""Promise 7: a number, a name and words go through a whole dialer and are found nowhere but where they belong.

They may stand on `dialer.commands`, in `DialRequest.to`, and sealed. Everything else that a run leaves behind is searched.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from dialer.telephony import DialRequest
from runtime import metrics
from runtime.logs import JsonLines
from schemas.envelope import FORWARDED
from schemas.topics import COMMANDS, EVENTS, REJECTED, STOPS, TOPICS
from schemas.values import Invalid, parse_number, partition_of
from tests.contracts.owner_beds import command, numbers_on
from tests.doubles.agents import Script
from tests.doubles.memory_feed import campaign
from tests.doubles.telephony import BUSY, Fault, Phone
from tests.doubles.world import World, key_of

NUMBER = "+12125550199"
CANARIES = ("2125550199", "212555019", "Canaryname", "Canarystore")
SAID = {"first_name": "Canaryname", "store": "Canarystore"}


class Lines(logging.Handler):
    """All logging output, as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonLines("dialer"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
async def run() -> AsyncIterator[tuple[World, list[str]]]:
    """A world in which everything happens to the canary that may happen to a callee."""
    lines = Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(lines)
    root.setLevel(logging.DEBUG)
    world = World()
    stray_home = next(numbers_on((partition_of(key_of(NUMBER)) + 1) % 24))
    try:
        await world.start(NUMBER, stray_home)
        await everything_happens(world)
        yield world, lines.lines
    finally:
        await world.close()
        root.removeHandler(lines)
        root.setLevel(level)


async def everything_happens(world: World) -> None:
    """Delivered, busy, taken over, crashed, refused, rejected, cancelled by number, talked with, suppressed, forwarded."""
    phones = [Phone(answer=BUSY, rings_for_s=1.0), Phone(rings_for_s=3.0), Phone(rings_for_s=20.0), Phone()]
    world.telephony.script(NUMBER, *phones)
    talks = {
        "id": "canary-talks",
        "answering_machine": {"policy": "leave_message", "message": "To {first_name}: {store}"},
    }
    world.shelf.campaigns["canary-talks"] = campaign(**talks, introduction="{store}, for {first_name}.")
    world.telephony.fault("legs", Fault(kind="fail"))
    world.agents.scripts.extend([Script(), Script(), Script(crashes_on="ringing")])
    call = world.place(NUMBER, variables=SAID)
    await world.clock.advance(305)
    world.lose(NUMBER)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    world.place(NUMBER, "r-2", variables=SAID, consent=None)
    await world.clock.advance(30)
    world.place(NUMBER, variables=SAID, priority=9)  # a conflict
    for bad in bad_commands():
        world.broker.send(COMMANDS, key_of(NUMBER), bad, [("note", NUMBER.encode())], partition_of(key_of(NUMBER)))
        world.broker.send(STOPS, key_of(NUMBER), bad)
    stop = command(
        "cancel_call", "s-1", {"campaign_id": "rx-refill", "request_id": "r-9", "to": NUMBER}, subject=NUMBER
    )
    world.broker.send(COMMANDS, NUMBER, stop, [("ce_subject", NUMBER.encode())], partition_of(key_of(NUMBER)))
    stray = command(
        "place_call", "c-3", {"request_id": "r-3", "campaign_id": "rx-refill", "to": NUMBER, "variables": SAID}
    )
    world.broker.send(COMMANDS, NUMBER, stray, (), (partition_of(key_of(NUMBER)) + 1) % 24)
    await world.clock.advance(120)
    world.telephony.script(NUMBER, Phone())
    world.agents.scripts.append(Script(talk="converses"))
    talked = world.place(NUMBER, "r-5", variables=SAID, campaign_id="canary-talks")
    await world.clock.advance(200)
    assert world.last(talked, "call_ended")["outcome"] == "conversed"
    world.stop("suppress_callee", "s-2", callee_key=key_of(NUMBER))
    traced = {"request_id": "r-4", "campaign_id": "rx-refill", "to": NUMBER, "variables": SAID}
    world.broker.send(COMMANDS, key_of(NUMBER), command("place_call", "c-4", traced, traceparent=NUMBER))
    await world.clock.advance(60)


def bad_commands() -> list[bytes]:
    good: dict[str, Any] = {"request_id": "r-8", "campaign_id": "rx-refill", "to": NUMBER, "variables": SAID}
    return [
        NUMBER.encode(),
        orjson.dumps({"to": NUMBER, "name": "Canaryname"}),
        command("place_call", NUMBER, good),
        command("place_call", "2125550199", good),
        command("place_call", "c", good | {"to": NUMBER + "CALL"}),
        command("place_call", "c", good | {"request_id": "2125550199"}),
        command("place_call", "c", good | {"not_afer": "Canaryname"}),
        command("place_call", "c", good | {"timezone": "Canaryname"}),
        command("suppress_callee", "c", {"to": NUMBER, "reason": "Canaryname asked"}),
    ]


def found(text: str | bytes) -> list[str]:
    plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return [canary for canary in CANARIES if canary in plain]


async def test_everything_that_can_happen_happened(run: tuple[World, list[str]]) -> None:
    """Else the search below would prove little."""
    world, lines = run
    told = {name for e in world.log() for name in [e["type"].split(".")[2]]}
    assert {"call_ended", "agent_lost", "dial_failed", "callee_suppressed", "call_cancelled", "retry_scheduled"} <= told
    assert len(world.rejected()) >= 2 * len(bad_commands())
    assert len(world.telephony.invites) >= 4
    assert len(lines) >= 3
    assert {i.to for i in world.telephony.invites} == {NUMBER}


async def test_topics_hold_it_nowhere_but_on_commands(run: tuple[World, list[str]]) -> None:
    """Keys, values, headers, of every partition; open and aborted records included."""
    world, _ = run
    for topic in TOPICS:
        for partition in range(topic.partitions):
            for stored in world.broker.raw(topic.name, partition):
                headers = b" ".join(k.encode() + b"=" + v for k, v in stored.headers)
                if topic is COMMANDS or (topic is STOPS and FORWARDED not in dict(stored.headers)):
                    continue  # what the pipelines of this test wrote themselves
                assert found(stored.key) == [], (topic.name, "key")
                assert found(stored.value or b"") == [], (topic.name, "value")
                assert found(headers) == [], (topic.name, "headers")


async def test_a_forwarded_stop_carries_no_foreign_attribute() -> None:
    """Whatever a pipeline writes into its envelope stays on `dialer.commands`."""
    world = World()
    await world.start(NUMBER)
    foreign = dict.fromkeys(("subject", "correlationid", "causationid", "traceparent", "source"), NUMBER)
    stop = command("suppress_callee", "s-1", {"to": NUMBER}, **foreign)
    world.broker.send(COMMANDS, key_of(NUMBER), stop)
    await world.clock.advance(1)
    (forwarded,) = world.broker.committed(STOPS.name, partition_of(key_of(NUMBER)))
    await world.close()
    assert found(forwarded.value or b"") == []


@pytest.mark.parametrize("bad", [{NUMBER: 1}, {"variables": {"call 2125550199": "x"}}])
async def test_a_foreign_key_is_named_only_where_it_could_be_a_fields_name(bad: dict[str, Any]) -> None:
    """`field` in `dialer.rejected` is text from outside when the field is unknown."""
    world = World()
    await world.start(NUMBER)
    good: dict[str, Any] = {"request_id": "r-8", "campaign_id": "rx-refill", "to": NUMBER}
    world.broker.send(COMMANDS, key_of(NUMBER), command("place_call", "c", good | bad))
    await world.clock.advance(1)
    (rejected,) = world.rejected()
    await world.close()
    assert found(rejected["field"]) == []


async def test_sealed_fields_are_the_only_ones_that_could_hold_it(run: tuple[World, list[str]]) -> None:
    """In events, number, variables, message, and all that is said beyond it or heard, are boxes."""
    world, _ = run
    for event in world.log():
        for name in ("to", "variables", "message", "words", "text", "digit"):
            if event["data"].get(name) is not None:
                assert set(event["data"][name]) == {"key", "box"}
    assert world.broker.committed(EVENTS.name, partition_of(key_of(NUMBER)))
    assert world.broker.committed(REJECTED.name, partition_of(key_of(NUMBER)))


async def test_livekit_is_told_it_in_the_dials_number_only(run: tuple[World, list[str]]) -> None:
    """Room names, identities, metadata; the brief is sealed."""
    world, _ = run
    assert found(repr(world.telephony.requests)) == []
    assert found(repr(world.telephony.dispatches)) == []
    for invite in world.telephony.invites:
        assert found(invite.room + invite.identity + invite.attempt_id) == []


async def test_logs_and_metrics_hold_it_nowhere(run: tuple[World, list[str]]) -> None:
    """At level debug."""
    _, lines = run
    assert [line for line in lines if found(line)] == []
    assert found(metrics.exposition()) == []


def test_errors_and_requests_do_not_print_it() -> None:
    """Neither the refusal of a number, nor the one value that holds it in the clear."""
    request = DialRequest(
        room="r", identity="i", attempt_id="a-1", to=NUMBER, trunk_id="t", caller_id="c", ring_timeout_s=30,
        max_call_duration_s=60,
    )  # fmt: skip
    assert found(f"{request!r} {request}") == []
    for text in (NUMBER + "CALL", NUMBER[1:], NUMBER[:9], NUMBER * 2):
        with pytest.raises(Invalid) as refused:
            parse_number(text)
        assert found(str(refused.value)) == []
