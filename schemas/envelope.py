"""The envelope of every record: CloudEvents 1.0, Kafka protocol binding, structured mode; binary mode is read too.

Source: CloudEvents 1.0 and its Kafka binding; design §3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from schemas.values import Invalid

CONTENT_TYPE: Final = "application/cloudevents+json"
FORWARDED: Final = "dialer_forwarded"
"""Header of a record that was moved to its canonical key and partition once; a second time it is rejected."""
FIRST_TIME: Final = "dialer_first_time_ms"
"""Header of a forwarded record: broker time of its first appearance, in milliseconds."""

Headers = tuple[tuple[str, bytes], ...]
_HEADER_CONTENT_TYPE: Final = ("content-type", CONTENT_TYPE.encode())
_KNOWN: Final = frozenset(
    {
        "specversion",
        "type",
        "source",
        "id",
        "time",
        "subject",
        "sequence",
        "datacontenttype",
        "dataschema",
        "causationid",
        "correlationid",
        "traceparent",
        "data",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One CloudEvent; `data` is plain JSON when read, and a payload dataclass or plain JSON when written."""

    type: str
    source: str
    id: str
    data: Any
    time: datetime | None = None
    subject: str | None = None
    sequence: str | None = None
    causationid: str | None = None
    correlationid: str | None = None
    traceparent: str | None = None


def sequence_text(sequence: int) -> str:
    """Write a callee's counter as CloudEvents' `sequence`: 12 digits, so that text order is number order."""
    return f"{sequence:012d}"


def schema_urn(type_name: str) -> str:
    """Return the `dataschema` of a type: a urn, since a schema is known by name and not fetched."""
    return f"urn:outbound-dialer:{type_name}"


def encode(envelope: Envelope) -> bytes:
    """Write the structured form; absent attributes are left out, as CloudEvents asks."""
    record: dict[str, Any] = {
        "specversion": "1.0",
        "type": envelope.type,
        "source": envelope.source,
        "id": envelope.id,
        "dataschema": "urn:outbound-dialer:" + envelope.type,
    }
    if envelope.time is not None:
        record["time"] = envelope.time
    if envelope.subject is not None:
        record["subject"] = envelope.subject
        record["correlationid"] = envelope.correlationid or envelope.subject
    elif envelope.correlationid is not None:
        record["correlationid"] = envelope.correlationid
    if envelope.sequence is not None:
        record["sequence"] = envelope.sequence
    if envelope.causationid is not None:
        record["causationid"] = envelope.causationid
    if envelope.traceparent is not None:
        record["traceparent"] = envelope.traceparent
    record["data"] = envelope.data
    return orjson.dumps(record, option=orjson.OPT_UTC_Z)


def headers_of(envelope: Envelope) -> list[tuple[str, bytes]]:
    """Return the Kafka headers a reader needs to skip a record without decoding it."""
    return [_HEADER_CONTENT_TYPE, ("ce_type", envelope.type.encode()), ("ce_id", envelope.id.encode())]


def header(headers: Iterable[tuple[str, bytes]], name: str) -> bytes | None:
    """Return the last header of that name, or None."""
    value = None
    for key, content in headers:
        if key == name:
            value = content
    return value


def decode(value: bytes | None, headers: Iterable[tuple[str, bytes]] = ()) -> Envelope:
    """Read a record in structured or binary mode, leniently: attributes that are not known are passed over.

    Raises: Invalid for `value: null`, `value: not_json`, `envelope: not_an_envelope`, or an attribute that is missing
    or of the wrong type, by name.
    """
    if value is None:
        raise Invalid("value", "null")
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise Invalid("value", "not_json") from None
    binary = {k: v for k, v in headers if k.startswith("ce_")}
    if isinstance(document, dict) and "specversion" in document:
        attributes: Mapping[str, Any] = document
    elif "ce_specversion" in binary and "ce_source" in binary:
        attributes = {k[3:]: v.decode("utf-8", "replace") for k, v in binary.items()} | {"data": document}
    else:
        raise Invalid("envelope", "not_an_envelope")
    if attributes["specversion"] != "1.0":
        raise Invalid("specversion", "unknown_version")
    texts = {name: _text(attributes, name) for name in ("type", "source", "id")}
    if "data" not in attributes:
        raise Invalid("data", "missing")
    return Envelope(
        type=texts["type"],
        source=texts["source"],
        id=texts["id"],
        data=attributes["data"],
        time=_time(attributes.get("time")),
        subject=_optional(attributes, "subject"),
        sequence=_optional(attributes, "sequence"),
        causationid=_optional(attributes, "causationid"),
        correlationid=_optional(attributes, "correlationid"),
        traceparent=_optional(attributes, "traceparent"),
    )


def _text(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name)
    if value is None:
        raise Invalid(name, "missing")
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise Invalid(name, "wrong_type")
    return value


def _optional(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 256:
        raise Invalid(name, "wrong_type")
    return value


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Invalid("time", "wrong_type") from None
    if time.tzinfo is None:
        raise Invalid("time", "no_time_zone")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise Invalid("time", "out_of_range") from None
