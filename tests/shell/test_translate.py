"""Bad input has one place: every row of "Bad input" (S1) at the translator, and every refusal a verdict can say.

`conflict` and `too_many` are the core's (tests/callee/test_memory.py); expired, suppressed and cancelled before it came
are judged by the core from what the translator hands it.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from dialer.callee import inputs as i
from dialer.callee.state import Callee
from dialer.callee.step import step
from dialer.prepare import open_message, open_number, open_variables
from dialer.records import forwarded
from dialer.translate import Forward, Given, Ignored, Joined, Renewed
from schemas import facts as f
from schemas import topics
from schemas.commands import RECORD_BYTES_MAX
from schemas.envelope import FIRST_TIME, FORWARDED, decode, header
from schemas.events import CallRefused
from schemas.outcomes import Refusal
from tests.doubles.clock import START
from tests.shell.desk import (
    CALL,
    CANCEL,
    DATA,
    KEY,
    MEMORY,
    NOW_MS,
    NUMBER,
    PARTITION,
    PLACE,
    SUPPRESS,
    Desk,
    command,
    event,
    observed,
    open_desk,
    raw,
    stop,
)


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    """A directory of campaigns, published and at hand."""
    return await open_desk(tmp_path)


async def test_a_good_command_becomes_an_input_without_the_number(desk: Desk) -> None:
    """Sealed under the callee's own key; call and callee are named by pseudonym; the message is ready."""
    given = desk.place()
    key = desk.keys.find(KEY)
    assert (given.call_id, given.region, given.id) == (CALL, "US", "b7c1")
    assert given.not_after == START + timedelta(hours=24)
    assert given.remember_until == START + MEMORY
    assert NUMBER[1:] not in repr(given)
    assert "Ann" not in repr(given)
    assert open_number(key, KEY, given.to) == NUMBER
    assert open_variables(key, KEY, given.variables) == {"first_name": "Ann"}
    assert isinstance(given.verdict, i.Prepared)
    assert open_message(key, KEY, given.verdict.message) == "Hello Ann."


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (b"hello", ("value", "not_json")),
        (b"", ("value", "not_json")),
        (None, ("value", "null")),
        (b"[]", ("envelope", "not_an_envelope")),
        (orjson.dumps(DATA), ("envelope", "not_an_envelope")),
        (b'"' + b"x" * RECORD_BYTES_MAX + b'"', ("value", "too_large")),
        (event("dialer.command.dance.v1", DATA), ("type", "unknown_type")),
        (event("dialer.command.place_call.v2", DATA), ("type", "unknown_version")),
        (event(PLACE, DATA, specversion="0.3"), ("specversion", "unknown_version")),
        (event(PLACE, DATA, id=NUMBER), ("id", "pattern")),
        (event(PLACE, DATA, id="12125550123"), ("id", "phone_number")),
        (event(PLACE, DATA, id="with space"), ("id", "pattern")),
        (event(PLACE, [DATA]), ("data", "wrong_type")),
        (event(PLACE, {"campaign_id": "rx-refill", "to": NUMBER}), ("request_id", "missing")),
        (event(PLACE, DATA | {"not_aftr": None}), ("not_aftr", "unknown_field")),
        (event(PLACE, DATA | {"priority": "high"}), ("priority", "wrong_type")),
        (event(PLACE, DATA | {"request_id": "2125550123"}), ("request_id", "phone_number")),
        (event(PLACE, DATA | {"campaign_id": "2125550123"}), ("campaign_id", "phone_number")),
        (event("dialer.command.erase_callee.v1", {"callee_key": KEY}), ("type", "not_built")),
    ],
)
async def test_a_command_that_breaks_the_contract_is_rejected(
    desk: Desk, value: bytes | None, refused: tuple[str, str]
) -> None:
    """By field and rule; nothing of it comes through."""
    assert desk.refusal(raw(value)) == refused
    assert desk.keys.records() == []


@pytest.mark.parametrize(
    ("to", "rule"),
    [
        ("+1212555CALL", "letters"),
        ("+1212555", "too_short"),
        ("+10005550123", "impossible"),
        ("911", "emergency"),
        ("+19005550123", "premium"),
        ("72345", "short_code"),
        ("2125550123", "not_international"),
        ("++12125550123", "not_a_number"),
    ],
)
async def test_a_number_that_must_never_be_rung_is_rejected(desk: Desk, to: str, rule: str) -> None:
    """In a call and in a stop."""
    assert desk.refusal(command(DATA | {"to": to})) == ("to", rule)
    assert desk.refusal(command({"to": to}, SUPPRESS)) == ("to", rule)
    assert desk.refusal(command({k: DATA[k] for k in ("request_id", "campaign_id")} | {"to": to}, CANCEL)) == (
        "to",
        rule,
    )
    assert desk.keys.records() == []


async def test_a_command_older_than_the_memory_is_rejected(desk: Desk) -> None:
    """By broker time against the envelope's; exactly the horizon still passes, and no `time` counts as broker time."""
    too_old = (START - MEMORY - timedelta(seconds=1)).isoformat()
    assert desk.refusal(command(DATA, time=too_old)) == ("time", "too_old")
    assert isinstance(desk.read(command(DATA, time=(START - MEMORY).isoformat())), Given)
    assert isinstance(desk.read(command(DATA)), Given)


async def test_a_forwarded_command_is_as_old_as_it_was_at_its_first_appearance(desk: Desk) -> None:
    """Its second broker time says when it was moved, not when it was asked."""
    marks = ((FORWARDED, b"1"), (FIRST_TIME, str(NOW_MS - 86_400_000).encode()))
    value = event(PLACE, DATA, time=(START - MEMORY - timedelta(hours=1)).isoformat())
    read = desk.read(raw(value, headers=marks))
    assert isinstance(read, Given)
    assert isinstance(read.given, i.PlaceCall)
    assert read.given.remember_until == START - timedelta(days=1) + MEMORY


@pytest.mark.parametrize("mark", [b"9" * 30, b"-5", b"", b"x", str(NOW_MS + 10**9).encode()])
async def test_a_first_time_nobody_can_believe_is_passed_over(desk: Desk, mark: bytes) -> None:
    """Headers come from outside: neither a crash nor a longer memory."""
    read = desk.read(raw(event(PLACE, DATA), headers=((FORWARDED, b"1"), (FIRST_TIME, mark))))
    assert read.given.remember_until == START + MEMORY


@pytest.mark.parametrize(("key", "partition"), [(None, PARTITION), ("other", PARTITION), (KEY, (PARTITION + 1) % 24)])
async def test_a_stray_is_forwarded_once_and_then_rejected(desk: Desk, key: str | None, partition: int) -> None:
    """Pipelines key as they like; what is marked and still astray says that the layout is broken."""
    stray = raw(event(PLACE, DATA), key=key, partition=partition)
    if partition != PARTITION:
        desk = Desk(desk.translator._campaigns, desk.clock)
        desk.translator._partition = partition
    read = desk.read(stray)
    assert read == Forward(topics.COMMANDS.name, KEY, PARTITION, stray.value)
    moved = forwarded(stray, read.topic, read.key, read.partition, read.value, stray.headers)
    assert header(moved.headers, FIRST_TIME) == str(NOW_MS).encode()
    again = raw(moved.value, key=key, partition=partition, headers=moved.headers)
    assert desk.refusal(again) == ("key", "layout")
    assert desk.keys.records() == []


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (CANCEL, {"call_id": CALL}),
        (CANCEL, {k: DATA[k] for k in ("request_id", "campaign_id", "to")}),
        (SUPPRESS, {"to": NUMBER}),
        (SUPPRESS, {"callee_key": KEY}),
        ("dialer.command.lift_suppression.v1", {"to": NUMBER, "callee_key": KEY}),
    ],
)
async def test_a_stop_on_the_commands_topic_goes_to_the_stops_by_pseudonym(desk: Desk, kind: str, data: Any) -> None:
    """Wherever it came from, the number stays behind."""
    read = desk.read(command(data, kind))
    assert isinstance(read, Forward)
    assert (read.topic, read.key, read.partition) == (topics.STOPS.name, KEY, PARTITION)
    assert read.value is not None
    assert NUMBER[1:] not in read.value.decode()
    assert isinstance(desk.read(raw(read.value, topics.STOPS.name)), Given)


@pytest.mark.parametrize(
    ("kind", "data", "refused"),
    [
        (PLACE, DATA, ("type", "not_on_stops")),
        (SUPPRESS, {"to": NUMBER}, ("to", "not_on_stops")),
        (SUPPRESS, {}, ("callee_key", "missing")),
        (CANCEL, {"request_id": "refill-1"}, ("call_id", "missing")),
        (CANCEL, {"call_id": "x"}, ("call_id", "pattern")),
        (SUPPRESS, {"callee_key": KEY, "reason": "He said so"}, ("reason", "pattern")),
    ],
)
async def test_a_stop_that_does_not_say_whom_is_rejected(
    desk: Desk, kind: str, data: Any, refused: tuple[str, str]
) -> None:
    """By pseudonym only, on the topic of stops."""
    assert desk.refusal(stop(data, kind)) == refused


async def test_stops_become_inputs_of_their_callee(desk: Desk) -> None:
    """Cancel, suppress and lift, each with its id as cause."""
    cancel = desk.read(stop({"call_id": CALL}))
    assert (cancel.callee_key, type(cancel.given), cancel.given.remember_until) == (KEY, i.Cancel, START + MEMORY)
    assert type(desk.read(stop({"callee_key": KEY}, SUPPRESS)).given) is i.Suppress
    assert type(desk.read(stop({"callee_key": KEY}, "dialer.command.lift_suppression.v1")).given) is i.Lift


FACT = {"attempt": 1, "job_id": "AJ_1", "number": 2}


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (f.CalleeJoined.TYPE, FACT, i.FactSeen),
        (f.AgentReady.TYPE, FACT, i.FactSeen),
        ("dialer.observation.dial_outcome.v1", {"attempt": 1, "result": "answered"}, i.Dialled),
        ("livekit.observation.room_finished.v1", {"attempt": 1}, i.LegGone),
        ("livekit.observation.participant_left.v1", {"attempt": 1, "kind": "sip", "reason": "X"}, i.LegGone),
    ],
)
async def test_what_was_seen_becomes_an_input(desk: Desk, kind: str, data: Any, expected: type) -> None:
    """Facts, outcomes whose owner is gone, legs that went."""
    read = desk.read(observed(kind, data))
    assert isinstance(read, Given)
    assert isinstance(read.given, expected)
    assert (read.callee_key, read.given.call_id, read.given.attempt) == (KEY, CALL, 1)


async def test_a_renewed_readiness_is_for_the_gate_only(desk: Desk) -> None:
    """It costs no event."""
    assert desk.read(observed(f.AgentReady.TYPE, FACT | {"renewal": 3})) == Renewed(CALL, 1)


async def test_a_leg_that_joins_is_for_the_effects_only(desk: Desk) -> None:
    """The leg of an attempt that is over is hung up; any other is no news."""
    joined = observed("livekit.observation.participant_joined.v1", {"attempt": 2, "kind": "sip"})
    assert desk.read(joined) == Joined(CALL, 2)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("agent.fact.danced.v1", FACT),
        (f.CalleeStatus.TYPE, FACT | {"status": "levitating"}),
        (f.CalleeJoined.TYPE, {"attempt": 0, "job_id": "x", "number": 1}),
        ("livekit.observation.participant_left.v1", {"attempt": 1, "kind": "agent", "reason": "X"}),
        ("livekit.observation.participant_joined.v1", {"attempt": 1, "kind": "agent"}),
    ],
)
async def test_what_means_nothing_to_this_version_is_ignored(desk: Desk, kind: str, data: Any) -> None:
    """A later version's word, or a hint that nothing follows from."""
    assert isinstance(desk.read(observed(kind, data)), Ignored)


async def test_an_observation_about_nobody_is_rejected(desk: Desk) -> None:
    """It cannot be routed."""
    assert desk.refusal(raw(event(f.CalleeJoined.TYPE, FACT), topics.OBSERVATIONS.name)) == ("subject", "missing")
    misnamed = raw(event(f.CalleeJoined.TYPE, FACT, subject="x"), topics.OBSERVATIONS.name)
    assert desk.refusal(misnamed) == ("call_id", "pattern")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"variables": {}}, Refusal.MISSING_VARIABLE),
        ({"campaign_id": "empty", "variables": {"first_name": "  "}}, Refusal.MESSAGE_EMPTY),
        ({"campaign_id": "long", "variables": {"first_name": "x" * 200}}, Refusal.MESSAGE_TOO_LONG),
        ({"campaign_id": "british"}, Refusal.COUNTRY_NOT_ALLOWED),
        ({"not_after": "2026-11-22T14:59:59Z"}, Refusal.EXPIRED),
    ],
)
async def test_a_valid_request_that_cannot_be_made_is_refused_as_a_call(
    desk: Desk, more: dict[str, Any], reason: Refusal
) -> None:
    """One call, ended at once; not a rejection."""
    done = step(Callee(callee_key=KEY), desk.place(**more))
    assert done.events[-1].body == CallRefused(reason=reason)


async def test_a_campaign_nobody_knows_refuses_the_call_once_it_was_asked_for(desk: Desk) -> None:
    """It is not at hand, so it is looked up: `tests/callee/test_requesting.py` has what follows."""
    given = desk.place(campaign_id="nobody")
    assert given.verdict is None
    asked = step(Callee(callee_key=KEY), given).callee
    answer = i.Defined(id="d", at=START, call_id=given.call_id, verdict=Refusal.UNKNOWN_CAMPAIGN)
    assert step(asked, answer).events[-1].body == CallRefused(reason=Refusal.UNKNOWN_CAMPAIGN)


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [(SUPPRESS, {"callee_key": KEY}, Refusal.SUPPRESSED), (CANCEL, {"call_id": CALL}, Refusal.CANCELLED)],
)
async def test_a_call_that_was_stopped_before_it_came_is_refused(
    desk: Desk, kind: str, data: Any, reason: Refusal
) -> None:
    """In whatever order they meet (promise 6)."""
    stopped = step(Callee(callee_key=KEY), desk.read(stop(data, kind)).given).callee
    assert step(stopped, desk.place()).events[-1].body == CallRefused(reason=reason)


async def test_the_same_request_has_the_same_body_hash_however_it_is_written(desk: Desk) -> None:
    """Defaults filled, the number normalised, the envelope left out; any other difference shows, and nothing leaks."""
    first = desk.place()
    same = desk.place(to="+1 (212) 555-0123", priority=5, timezone=None)
    assert same.body_hash == first.body_hash
    assert len(base64.b64decode(first.body_hash)) == 8
    others = [
        desk.place(variables={"first_name": "Bob"}),
        desk.place(priority=6),
        desk.place(not_after="2026-11-23T00:00:00Z"),
    ]
    assert len({first.body_hash, *(o.body_hash for o in others)}) == 4


async def test_a_command_in_binary_mode_is_read_too(desk: Desk) -> None:
    """Attributes as headers."""
    attributes = {"specversion": "1.0", "type": PLACE, "source": "/p", "id": "b7c1"}
    headers = tuple((f"ce_{k}", x.encode()) for k, x in attributes.items())
    read = desk.read(raw(orjson.dumps(DATA), headers=headers))
    assert isinstance(read, Given)
    assert decode(orjson.dumps(DATA), headers).id == read.given.id


async def test_a_time_zone_of_the_request_replaces_those_of_its_number(desk: Desk) -> None:
    """The candidate zones are inputs of the permit."""
    assert desk.place(timezone="America/Denver").zones == ("America/Denver",)
    assert desk.place().zones == ("America/New_York",)
