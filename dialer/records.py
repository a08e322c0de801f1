"""How a decision becomes a record: events, snapshots, offsets, rejections, forwarded strays; and snapshots back.

All bytes the owner writes are made here. Source: design §3, §4.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from pydantic import ValidationError

from dialer.callee.evolve import Copied, Recorded
from dialer.callee.state import SNAPSHOT_VERSION, Callee
from dialer.log import Record
from dialer.writing import AS_DICTS, plain, sparse
from schemas import topics
from schemas.codec import adapter
from schemas.envelope import CONTENT_TYPE, FIRST_TIME, FORWARDED

SOURCE: Final = "/dialer"
REJECTED_TYPE: Final = "dialer.rejected.v1"
_CONTENT: Final = ("content-type", CONTENT_TYPE.encode())


class RawRecord(NamedTuple):
    """A record as it was fetched."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def event_record(partition: int, callee_key: str, recorded: Recorded, traceparent: str | None) -> Record:
    """Write one record of the log."""
    body = recorded.body
    sequence = f"{recorded.sequence:012d}"
    if isinstance(body, Copied):
        kind, source, event_id, data = body.fact.TYPE, body.source, body.id, body.fact
    else:
        kind, source, event_id, data = body.TYPE, SOURCE, f"{callee_key}-{sequence}", body  # type: ignore[assignment]
    document: dict[str, Any] = {
        "specversion": "1.0",
        "type": kind,
        "source": source,
        "id": event_id,
        "time": recorded.at,
        "sequence": sequence,
        "dataschema": "urn:outbound-dialer:" + kind,
        "causationid": recorded.cause,
        "data": data,
    }
    if recorded.call_id is not None:
        document["subject"] = document["correlationid"] = recorded.call_id
    if traceparent is not None:
        document["traceparent"] = traceparent
    return Record(
        topics.EVENTS.name,
        partition,
        callee_key.encode(),
        orjson.dumps(document, default=plain, option=AS_DICTS),
        (_CONTENT, ("ce_type", kind.encode()), ("ce_id", event_id.encode())),
    )


def encode_snapshot(callee: Callee) -> bytes:
    """Write a callee's snapshot: what stands at its default is left out."""
    return orjson.dumps(callee, default=sparse, option=AS_DICTS)


class UndecodableSnapshot(Exception):
    """A snapshot that this version cannot read: the callee is parked, never guessed at."""


def decode_snapshot(value: bytes) -> Callee:
    """Read a callee's snapshot. Raises: UndecodableSnapshot."""
    try:
        callee: Callee = adapter(Callee).validate_json(value)
    except ValidationError:
        raise UndecodableSnapshot from None
    if callee.v > SNAPSHOT_VERSION:
        raise UndecodableSnapshot
    return callee


def has_open_calls(snapshot: bytes) -> bool:
    """Tell from the bytes alone whether a snapshot has open calls, so that a take-over decodes only those."""
    return b'"calls":{"' in snapshot


def offsets_record(partition: int, offsets: Mapping[str, int]) -> Record:
    """Write the positions that the partition's snapshots stand for."""
    value = orjson.dumps({"v": 1, "next": dict(offsets)})
    return Record(topics.CALLEES.name, partition, topics.OFFSETS_KEY, value)


def decode_offsets(value: bytes) -> dict[str, int]:
    """Read `$offsets`. Raises: ValueError for bytes that are no offsets."""
    document = orjson.loads(value)
    if document.get("v") != 1:
        raise ValueError("$offsets of a later version")
    return {str(k): int(v) for k, v in document["next"].items()}


def rejection(raw: RawRecord, partition: int, field: str, rule: str, secret: bytes, at: datetime) -> Record:
    """Write one record of `dialer.rejected`: where it lay, how long it was, what was wrong; none of its bytes."""
    fingerprint = hmac.digest(secret, raw.value or b"", "sha256").hex()
    where = f"{raw.topic}/{raw.partition}/{raw.offset}"
    document = {
        "specversion": "1.0",
        "type": REJECTED_TYPE,
        "source": SOURCE,
        "id": where,
        "time": at,
        "dataschema": "urn:outbound-dialer:" + REJECTED_TYPE,
        "data": {
            "topic": raw.topic,
            "partition": raw.partition,
            "offset": raw.offset,
            "length": len(raw.value or b""),
            "hmac": fingerprint,
            "field": field,
            "rule": rule,
        },
    }
    return Record(
        topics.REJECTED.name,
        partition,
        fingerprint[:32].encode(),
        orjson.dumps(document, option=orjson.OPT_UTC_Z),
        (_CONTENT, ("ce_type", REJECTED_TYPE.encode()), ("ce_id", where.encode())),
    )


def forwarded(
    raw: RawRecord, topic: str, key: str, partition: int, value: bytes | None, headers: Iterable[tuple[str, bytes]]
) -> Record:
    """Write a stray to where it belongs, marked, with the broker time of its first appearance."""
    kept = [h for h in headers if h[0] not in {FORWARDED, FIRST_TIME}]
    marks = [(FORWARDED, b"1"), (FIRST_TIME, str(raw.timestamp_ms).encode())]
    return Record(topic, partition, key.encode(), value, (*kept, *marks))
