"""Golden records: what once stood on a log decodes for ever, to what it said then.

When one of these fails, the reader is wrong, never the file: add an upcaster (`schemas/codec.py`) or a default.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from dialer.callee.evolve import Copied, Recorded
from dialer.callee.state import Callee
from dialer.records import (
    RawRecord,
    decode_offsets,
    decode_snapshot,
    encode_snapshot,
    event_record,
    has_open_calls,
    rejection,
)
from runtime.seal import BriefBox, MasterKey, aad, data_key, open_value
from schemas import generate
from schemas.codec import LOGGED, OBSERVED, Unknown, decode_command, decode_payload
from schemas.commands import COMMANDS
from schemas.envelope import decode
from schemas.facts import FACTS
from schemas.rejected import Rejected
from schemas.values import Sealed
from tests.contracts import golden_payloads as g

GOLDEN = Path(__file__).parent / "golden"
OTHERS = {
    "snapshot.v1",
    "snapshot.v1+2",
    "snapshot.v1+3",
    "offsets.v1",
    "sealed.v1",
    "data_key.v1",
    "brief.v1",
    "brief.v1+2",
}
RECORDS = sorted(path.stem for path in GOLDEN.glob("*.json") if path.stem not in OTHERS)


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes()


def test_every_type_ever_shipped_has_a_golden_record() -> None:
    """A new type comes with its record: `python -m tests.contracts.write_golden`."""
    assert set(RECORDS) == set(generate.ALL) | set(g.SECOND)
    assert {path.stem for path in GOLDEN.glob("*")} == set(RECORDS) | OTHERS


@pytest.mark.parametrize("name", RECORDS)
def test_a_golden_record_decodes_to_what_it_said(name: str) -> None:
    """Envelope and payload, by the decoders that the readers use."""
    envelope = decode(golden(name))
    assert (envelope.type, envelope.time, envelope.subject) == (name.partition("+")[0], g.AT, g.CALL)
    if name in COMMANDS:
        payload: Any = decode_command(envelope.type, envelope.data)
    else:
        payload = decode_payload(generate.ALL, envelope.type, envelope.data)
    assert payload == (g.PAYLOADS | g.SECOND)[name]


@pytest.mark.parametrize("name", RECORDS)
def test_a_golden_record_fits_its_published_schema(name: str) -> None:
    """What we write is what we publish."""
    schema = json.loads((generate.HERE / "json" / f"{name.partition('+')[0]}.json").read_text())
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    document = json.loads(golden(name))
    validator.validate(document)
    del document["data"]
    assert not validator.is_valid(document)


@pytest.mark.parametrize("name", sorted(LOGGED))
def test_what_the_owner_writes_today_fits_the_published_schema(name: str) -> None:
    """Not only the golden copies."""
    payload = g.PAYLOADS[name]
    body = Copied(payload, "/agent/2/AJ_abc", f"{g.CALL}-2/AJ_abc/4") if name in FACTS else payload
    record = event_record(3, g.CALLEE, Recorded(41, g.AT, g.CALL, body, "dialer.commands/3/17"), None)
    assert record.value is not None
    jsonschema.validate(json.loads(record.value), generate.json_schema(name))
    assert decode_payload(LOGGED, name, decode(record.value, record.headers).data) == payload


def test_a_rejection_of_today_fits_the_published_schema() -> None:
    """It holds no bytes of what it rejects."""
    raw = RawRecord(
        topic="dialer.commands", partition=3, offset=17, timestamp_ms=0, key=b"+12125550123", value=b"secret"
    )
    record = rejection(raw, 3, "to", "premium", g.SECRET, g.AT)
    assert record.value is not None
    jsonschema.validate(json.loads(record.value), generate.json_schema(Rejected.TYPE))
    assert b"secret" not in record.value
    assert b"2125550123" not in record.value + record.key


def test_a_golden_snapshot_decodes_for_ever() -> None:
    """A take-over from any version before this one."""
    assert decode_snapshot(golden("snapshot.v1")) == g.SNAPSHOT
    assert decode_snapshot(golden("snapshot.v1+2")) == g.SNAPSHOT_2
    assert decode_snapshot(golden("snapshot.v1+3")) == g.SNAPSHOT_2  # what stands at its default is left out


def test_what_stands_at_its_default_is_not_in_a_snapshot_and_comes_back() -> None:
    """The version is written always, and what a campaign's definition says whole: its defaults may change."""
    written = orjson.loads(encode_snapshot(g.SNAPSHOT_2))
    assert decode_snapshot(encode_snapshot(g.SNAPSHOT_2)) == g.SNAPSHOT_2
    call = g.SNAPSHOT_2.calls[g.CALL]
    at_default = {f.name for f in fields(call) if f.default is not MISSING and getattr(call, f.name) == f.default}
    assert written["v"] == 1 and at_default and not at_default & set(written["calls"][g.CALL])
    assert (
        "max_call_duration_s" in written["calls"][g.CALL]["rules"] and "language" in written["calls"][g.CALL]["rules"]
    )
    nobody = Callee(callee_key=g.CALLEE)
    assert orjson.loads(encode_snapshot(nobody)) == {"callee_key": g.CALLEE, "v": 1}
    assert decode_snapshot(encode_snapshot(nobody)) == nobody
    assert not has_open_calls(encode_snapshot(nobody)) and has_open_calls(encode_snapshot(g.SNAPSHOT_2))
    assert not has_open_calls(b'{"callee_key":"x","v":1,"calls":{}}'), "as earlier versions wrote it"


def test_golden_offsets_decode_for_ever() -> None:
    """`$offsets`: what the snapshots stand for."""
    assert decode_offsets(golden("offsets.v1")) == g.OFFSETS


def test_a_golden_sealed_value_opens_for_ever() -> None:
    """AES-256-GCM, bound to its callee, type and field."""
    document = orjson.loads(golden("sealed.v1"))
    place = aad(document["callee_key"], document["type"], document["field"])
    assert open_value(data_key("1", g.SECRET), Sealed(**document["sealed"]), place) == b"+12125550123"


def test_a_golden_data_key_unwraps_for_ever() -> None:
    """Under the master key it was wrapped with."""
    assert MasterKey(g.SECRET).unwrap(g.CALLEE, golden("data_key.v1")).secret == g.SECRET


def test_a_golden_brief_opens_for_ever() -> None:
    """An agent of the next version takes a job of this one."""
    box = BriefBox({"b2": bytes(32), "b1": g.SECRET})
    assert box.open(orjson.loads(golden("brief.v1"))) == g.BRIEF
    assert box.open(orjson.loads(golden("brief.v1+2"))) == g.BRIEF_2


def test_a_type_or_a_value_of_a_later_version_is_unknown_and_no_error() -> None:
    """It folds to nothing."""
    assert decode_payload(LOGGED, "dialer.event.call_teleported.v1", {}) == Unknown(
        type="dialer.event.call_teleported.v1"
    )
    later = {"reason": "a_reason_of_next_year"}
    assert decode_payload(LOGGED, "dialer.event.call_refused.v1", later) == Unknown(type="dialer.event.call_refused.v1")
    assert isinstance(decode_payload(OBSERVED, "livekit.observation.room_finished.v2", {"attempt": 1}), Unknown)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    """Fields may be added: an old reader goes on."""
    found = decode_payload(LOGGED, "dialer.event.attempt_opened.v1", {"attempt": 2, "added_later": True})
    assert found == g.PAYLOADS["dialer.event.attempt_opened.v1"]
    document = orjson.loads(golden("dialer.event.call_prepared.v1+2"))["data"]
    document["rules"]["conversation"] |= {"mood": "friendly"}
    document["rules"]["conversation"]["agent_api"] |= {"temperature": 0}
    assert (
        decode_payload(LOGGED, "dialer.event.call_prepared.v1", document) == g.SECOND["dialer.event.call_prepared.v1+2"]
    )
    snapshot = orjson.loads(golden("snapshot.v1+2"))
    snapshot["calls"][g.CALL]["rules"]["conversation"] |= {"mood": "friendly"}
    assert decode_snapshot(orjson.dumps(snapshot)) == g.SNAPSHOT_2
