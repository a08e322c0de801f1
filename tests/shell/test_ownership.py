"""One ownership: each kind of bad input has one record in `dialer.rejected` and the partition goes on; outputs fit."""

from __future__ import annotations

import hmac
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from dialer.callee.state import CALLS_OPEN_MAX, CALLS_REMEMBERED_MAX, Call, Callee, Closed, Phase
from dialer.records import encode_snapshot
from dialer.turn import FACTS_SIZE_MAX
from schemas import facts as f
from schemas.commands import RECORD_BYTES_MAX, VARIABLE_LENGTH_MAX, VARIABLES_MAX
from schemas.envelope import FIRST_TIME, FORWARDED
from schemas.topics import BATCH_BYTES_MAX, CALLEES, COMMANDS, OBSERVATIONS, REJECTED, STOPS, Topic
from schemas.values import partition_of
from tests.contracts.owner_beds import command, place
from tests.doubles.clock import START
from tests.doubles.telephony import Phone
from tests.doubles.world import ANN, BOB, PEPPER, World, id_of, key_of, short


def data(**over: Any) -> dict[str, Any]:
    whole = {
        "request_id": "r-1",
        "campaign_id": "rx-refill",
        "to": ANN,
        "variables": {"first_name": "Ann", "store": "M"},
    }
    return {k: v for k, v in (whole | over).items() if v is not ...}


def call(**over: Any) -> bytes:
    return command("place_call", "c-1", data(**over))


BAD: list[tuple[str, bytes | None, str, str]] = [
    ("not JSON", b"{", "value", "not_json"),
    ("not UTF-8", b'{"a":"\xff"}', "value", "not_json"),
    ("not an envelope", b'{"a":1}', "envelope", "not_an_envelope"),
    ("a list", b"[1]", "envelope", "not_an_envelope"),
    ("a later CloudEvents", command("place_call", "c-1", data(), specversion="2.0"), "specversion", "unknown_version"),
    ("no type", command("place_call", "c-1", data(), type=...), "type", "missing"),
    ("no id", command("place_call", "c-1", data(), id=...), "id", "missing"),
    ("no data", command("place_call", "c-1", ...), "data", "missing"),
    ("data is a list", command("place_call", "c-1", [1]), "data", "wrong_type"),
    ("an id with spaces", command("place_call", "a b", data()), "id", "pattern"),
    ("an id that is a number", command("place_call", "212-555-0123", data()), "id", "phone_number"),
    ("a time without zone", command("place_call", "c-1", data(), time="2026-11-22T15:00:00"), "time", "no_time_zone"),
    ("a time that is none", command("place_call", "c-1", data(), time="soon"), "time", "wrong_type"),
    ("an unknown type", command("ring_bell", "c-1", data()), "type", "unknown_type"),
    ("a foreign type", command("com.example.thing", "c-1", data()), "type", "unknown_type"),
    ("an unknown version", command("dialer.command.place_call.v2", "c-1", data()), "type", "unknown_version"),
    ("not built", command("erase_callee", "c-1", {"callee_key": key_of(ANN)}), "type", "not_built"),
    ("a missing field", call(to=...), "to", "missing"),
    ("an unknown field", call(not_afer="2026-11-22T23:00:00Z"), "not_afer", "unknown_field"),
    ("a wrong type", call(priority="high"), "priority", "wrong_type"),
    ("a number as text", call(priority="5"), "priority", "wrong_type"),
    ("a priority above 9", call(priority=10), "priority", "less_than_equal"),
    ("letters", call(to="+1212CALLNOW"), "to", "letters"),
    ("too short", call(to="+1212555"), "to", "too_short"),
    ("too long", call(to="+1212555012345678"), "to", "too_long"),
    ("impossible", call(to="+12121234567"), "to", "impossible"),
    ("an emergency number", call(to="911"), "to", "emergency"),
    ("a premium number", call(to="+19005550123"), "to", "premium"),
    ("a short code", call(to="12345"), "to", "short_code"),
    ("not international", call(to="2125550123"), "to", "not_international"),
    ("a request id that is a number", call(request_id="2125550123"), "request_id", "phone_number"),
    ("a request id with a plus", call(request_id="+12125550123"), "request_id", "pattern"),
    ("a campaign id that is a number", call(campaign_id="2125550123"), "campaign_id", "phone_number"),
    ("a variable that is no string", call(variables={"first_name": 1}), "variables.first_name", "wrong_type"),
    ("too many variables", call(variables={f"v{n}": "" for n in range(51)}), "variables", "too_long"),
    ("a variable too long", call(variables={"first_name": "x" * 201}), "variables.first_name", "string_too_long"),
    ("an unknown zone", call(timezone="Mars/Base"), "timezone", "unknown_time_zone"),
    ("a null", None, "value", "null"),
    ("too large", call() + b" " * RECORD_BYTES_MAX, "value", "too_large"),
    ("too old", command("place_call", "c-1", data(), time="2026-10-17T14:00:00Z"), "time", "too_old"),
    ("a cancel of nothing", command("cancel_call", "s-1", {"reason": "asked"}), "call_id", "missing"),
    ("a suppression of nobody", command("suppress_callee", "s-1", {}), "callee_key", "missing"),
    (
        "free text as a reason",
        command("suppress_callee", "s-1", {"to": ANN, "reason": "Ann said so"}),
        "reason",
        "pattern",
    ),
]


@pytest.mark.parametrize(("value", "field", "rule"), [pytest.param(*b[1:], id=b[0]) for b in BAD])
async def test_bad_input_is_rejected_once_and_the_partition_goes_on(
    world: World, value: bytes | None, field: str, rule: str
) -> None:
    """One record that says where it lay and what was wrong, with none of its bytes; the next request is taken."""
    offset = world.broker.send(COMMANDS, key_of(ANN), value)
    good = world.place(request="r-good")
    await world.clock.advance(60)
    (rejected,) = world.rejected()
    rejected["rule"] = rejected["rule"].replace("dict_too_long", "too_long")
    assert rejected == {
        "topic": COMMANDS.name,
        "partition": partition_of(key_of(ANN)),
        "offset": offset,
        "length": len(value or b""),
        "hmac": hmac.digest(PEPPER, value or b"", "sha256").hex(),
        "field": field,
        "rule": rule,
    }
    assert world.last(good, "call_ended")["outcome"] == "delivered"


@pytest.mark.parametrize(
    ("topic", "value", "field", "rule"),
    [
        (STOPS, command("suppress_callee", "s-1", {"to": ANN}), "to", "not_on_stops"),
        (STOPS, command("place_call", "s-1", data()), "type", "not_on_stops"),
        (STOPS, b"{", "value", "not_json"),
        (OBSERVATIONS, b"{", "value", "not_json"),
        (OBSERVATIONS, command(f.CalleeJoined.TYPE, "f-1", {}), "subject", "missing"),
        (OBSERVATIONS, command(f.CalleeJoined.TYPE, "f-1", {}, subject="call-1"), "call_id", "pattern"),
    ],
)
async def test_bad_input_of_the_other_topics_is_rejected_too(
    world: World, topic: Topic, value: bytes, field: str, rule: str
) -> None:
    """Stops by number above all: it must not stand there."""
    world.broker.send(topic, key_of(ANN), value)
    await world.clock.advance(1)
    (rejected,) = world.rejected()
    assert (rejected["topic"], rejected["field"], rejected["rule"]) == (topic.name, field, rule)
    assert world.log() == []


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (command("place_call", "c-1", data(), time="0001-01-01T00:00:00+23:59"), ()),
        (command("place_call", "c-1", data(), time="9999-12-31T23:59:59-23:59"), ()),
        (call(), [(FORWARDED, b"1"), (FIRST_TIME, b"9" * 18)]),
        (call(), [(FORWARDED, b"1"), (FIRST_TIME, b"9" * 5000)]),
        (call(not_before="9999-12-31T23:59:59-23:59", not_after="9999-12-31T23:59:59-23:59"), ()),
        (call(not_after="0001-01-01T00:00:00+23:59"), ()),
        (call(consent={"id": "c", "kind": "k", "obtained_at": "0001-01-01T00:00:00+23:59"}), ()),
    ],
)
async def test_an_instant_out_of_range_does_not_end_the_process(world: World, value: bytes, headers: Any) -> None:
    """One record must never stop a partition for ever; after a take-over neither."""
    world.broker.send(COMMANDS, key_of(ANN), value, headers)
    await world.clock.advance(1)
    world.lose()
    good = world.place(request="r-good")
    await world.clock.advance(120)
    assert world.last(good, "call_ended")["outcome"] == "delivered"


async def test_an_unknown_observation_is_passed_over(world: World) -> None:
    """A later version's fact is no bad input."""
    world.broker.send(OBSERVATIONS, key_of(ANN), command("agent.fact.humming.v1", "f-1", {}, subject=id_of(ANN)))
    await world.clock.advance(10)
    assert (world.rejected(), world.log()) == ([], [])
    assert world.ownership().positions[OBSERVATIONS.name] == 1


async def test_too_many_open_calls_of_one_callee_are_rejected(world: World) -> None:
    """The 21st; the 20 go on."""
    for n in range(CALLS_OPEN_MAX + 1):
        world.place(request=f"r-{n}", not_before="2026-11-22T17:00:00Z")
    await world.clock.advance(1)
    (rejected,) = world.rejected()
    assert (rejected["field"], rejected["rule"], rejected["offset"]) == ("to", "too_many", CALLS_OPEN_MAX)
    assert len([e for e in world.log() if short(e) == "call_requested"]) == CALLS_OPEN_MAX


async def test_a_traceparent_is_kept_and_anything_else_in_its_place_dropped(world: World) -> None:
    """It goes to the log as it is: only what W3C's form can hold may."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for n, text in enumerate((trace, "call +12125550123")):
        world.broker.send(
            COMMANDS, key_of(ANN), command("place_call", f"c-{n}", data(request_id=f"r-{n}"), traceparent=text)
        )
    await world.clock.advance(1)
    requested = [e for e in world.log() if short(e) == "call_requested"]
    assert [e.get("traceparent") for e in requested] == [trace, None]


async def test_positions_alone_are_committed_now_and_then(world: World) -> None:
    """Renewals cost no transaction each."""
    world.broker.send(OBSERVATIONS, key_of(ANN), command("agent.fact.humming.v1", "f-1", {}, subject=id_of(ANN)))
    await world.clock.advance(0.1)
    first = world.broker.high_watermark(CALLEES.name, partition_of(key_of(ANN)))
    for n in range(20):
        world.broker.send(OBSERVATIONS, key_of(ANN), command("agent.fact.humming.v1", f"g-{n}", {}, subject=id_of(ANN)))
        await world.clock.advance(0.5)
    assert 1 <= world.broker.high_watermark(CALLEES.name, partition_of(key_of(ANN))) - first <= 2 * 3


async def test_a_callee_with_nothing_left_to_remember_becomes_a_tombstone(world: World) -> None:
    """Suppressed and lifted, no call: some quiet hours later nothing is kept, and its counter goes on all the same."""
    world.stop("suppress_callee", callee_key=key_of(ANN))
    await world.clock.advance(1)
    world.stop("lift_suppression", "stop-2", callee_key=key_of(ANN))
    await world.clock.advance(12 * 3600)
    written = [
        s for s in world.broker.committed(CALLEES.name, partition_of(key_of(ANN))) if s.key == key_of(ANN).encode()
    ]
    assert written[-1].value is None
    assert all(s.value is not None for s in written[:-1])
    assert key_of(ANN) not in world.ownership().callees
    world.place()
    await world.clock.advance(60)
    sequences = [int(e["sequence"]) for e in world.log()]
    assert sorted(set(sequences)) == sequences


async def test_a_full_inbox_holds_its_feed_back_and_loses_nothing() -> None:
    """Bounded: who feeds waits until there is space."""
    world = World()
    world.parts = replace(world.parts, inbox_max=10, batch_max=5)
    await world.start(ANN)
    for n in range(200):
        world.broker.send(
            COMMANDS, key_of(ANN), place(ANN, f"r-{n % 19}", command_id=f"c-{n}", not_before="2026-11-22T17:00:00Z")
        )
    await world.clock.advance(1)
    assert len([e for e in world.log() if short(e) == "call_requested"]) == 19
    assert world.ownership().positions[COMMANDS.name] == 200
    await world.close()


async def test_commands_wait_on_their_topic_while_too_many_calls_are_open_and_stops_do_not() -> None:
    """Memory is bounded, also over a take-over; a cancel meets a call that still waits on the topic; each end makes room."""
    world = World()
    world.parts = replace(world.parts, open_calls_max=3)
    await world.start(ANN)
    calls = [world.place(request=f"r-{n}", not_before="2026-11-22T17:00:00Z") for n in range(10)]
    await world.clock.advance(1)

    def requested() -> list[str]:
        return [e["subject"] for e in world.log() if short(e) == "call_requested"]

    assert requested() == calls[:3]
    assert world.ownership().positions[COMMANDS.name] == 3
    world.lose()
    await world.clock.advance(5)
    assert requested() == calls[:3]
    world.stop("cancel_call", "last", call_id=calls[9])
    await world.clock.advance(1)
    for n, call in enumerate(calls[:9]):
        assert requested() == calls[: min(n + 3, 10)]
        world.stop("cancel_call", f"stop-{n}", call_id=call)
        await world.clock.advance(1)
    assert requested() == calls
    refused = [e["subject"] for e in world.log() if short(e) == "call_refused"]
    assert sorted(refused) == sorted(calls)
    assert world.ownership().callees.open_calls == 0
    assert world.rejected() == []
    await world.close()


# ---- what is written fits ----------------------------------------------------------------------------------------


async def test_the_largest_request_makes_records_that_fit(world: World) -> None:
    """All variables, each as long as it may be, in characters that JSON writes sixfold; while it is looked up and after."""
    fields = {f"v{n:039d}": "\x01" * VARIABLE_LENGTH_MAX for n in range(VARIABLES_MAX - 1)}
    world.shelf.reachable = False
    for n in range(CALLS_OPEN_MAX):
        value = call(request_id=f"r-{n}" + "x" * 100, campaign_id="other", variables=fields)
        assert len(value) < RECORD_BYTES_MAX
        world.broker.send(COMMANDS, key_of(ANN), value)
    await world.clock.advance(1)
    assert world.rejected() == []
    callee = world.ownership().committed(key_of(ANN))
    assert callee is not None
    assert len(callee.calls) == CALLS_OPEN_MAX
    largest = max(len(s.value or b"") for s in world.broker.raw("dialer.events", partition_of(key_of(ANN))))
    assert largest < BATCH_BYTES_MAX / 8
    assert len(encode_snapshot(whole(callee))) < BATCH_BYTES_MAX * 0.75


def whole(callee: Callee) -> Callee:
    """The same callee with everything remembered that may be, and as many facts seen as are counted."""
    until = START + timedelta(days=35)
    closed = {f"{n:016d}": Closed(body_hash="A" * 12, until=until, ended_at=until) for n in range(CALLS_REMEMBERED_MAX)}
    first: Call = next(iter(callee.calls.values()))
    calls = callee.calls | {first.call_id: replace(first, facts={"1/AJ": "f" * FACTS_SIZE_MAX})}
    return replace(
        callee,
        calls=calls,
        closed=closed,
        cancels={f"{n:016d}": until for n in range(1000)},
        stops_seen=("s" * 128,) * 64,
    )


async def test_facts_that_would_make_a_snapshot_too_large_are_rejected(world: World) -> None:
    """Numbers without end, jobs without end: the call goes on, its record never grows beyond what the broker takes."""
    world.telephony.script(ANN, Phone(rings_for_s=20.0))
    made = world.place()
    await world.until_told(made, "callee_ringing")
    for n in range(40):
        job = world.agents.jobs[0]
        job.job_id, before = f"AJ_{n + 100}", job.job_id
        world.agents._say(job, f.CalleeJoined, number=1_000_000)
        job.job_id = before
    await world.clock.advance(1)
    assert {r["rule"] for r in world.rejected()} == {"too_many_facts"}
    snapshots = world.broker.committed(CALLEES.name, partition_of(key_of(ANN)))
    assert max(len(s.value or b"") for s in snapshots) < BATCH_BYTES_MAX / 4
    await world.clock.advance(60)
    assert "call_ended" in world.told(made)


async def test_each_phase_of_the_log_stands_in_the_snapshot(world: World) -> None:
    """What a take-over finds is what was decided last."""
    made = world.place()
    await world.until_told(made, "call_answered")
    callee = world.ownership().committed(key_of(ANN))
    assert callee is not None
    assert callee.calls[made].phase is Phase.ANSWERED
    stored = [
        s for s in world.broker.committed(CALLEES.name, partition_of(key_of(ANN))) if s.key == key_of(ANN).encode()
    ]
    assert orjson.loads(stored[-1].value or b"")["calls"][made]["phase"] == "answered"
    assert world.broker.committed(REJECTED.name, partition_of(key_of(BOB))) == []
