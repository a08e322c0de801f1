"""From the log of one partition to its audit records: pure, and the same records from the same log, always.

Every audit record names campaign and request, which only `CallRequested` carries: the trail remembers them for the
calls that are open and for the last `ENDED_MAX` that ended (an agent's last facts come after the end). What is
remembered hangs on the order of the log alone, never on a clock, so it can be had again: each record carries the
offset of the oldest remembered request (`memory_from`), and a trail that starts there with nothing remembers, at the
record's own place, exactly what this one does. A call is open for its `not_after` at most, so the way back is bounded
by that, not by the length of the log.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from projections.audit_names import LINES, Line
from projections.logged import Logged, Raw, read
from schemas.audit import AuditRecord, audit_type
from schemas.codec import LOGGED, UPCASTERS, Unknown, decode_payload
from schemas.envelope import Envelope, encode, header, headers_of, sequence_text
from schemas.events import TERMINAL, CallRequested
from schemas.values import Invalid

ENDED_MAX: Final = 1024
"""Ended calls a partition remembers; a fact that comes after 1,024 later ends has no campaign and no request."""
SOURCE: Final = "/audit"
SOURCE_OFFSET: Final = "source_offset"
"""Header: offset, in the same partition of `dialer.events`, of the event that the record was made from."""
SOURCE_INDEX: Final = "source_index"
"""Header: number of the record among those of its event, from 0."""
MEMORY_FROM: Final = "memory_from"
"""Header: offset of `dialer.events` from which a new trail must read to make the next record."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partition's audit stands: the last event it has records of, and where a new trail must start reading."""

    published: int
    memory_from: int


START: Final = Place(-1, 0)


@dataclass(frozen=True, slots=True)
class AuditOut:
    """One record for `dialer.audit`, for the partition that its event has on the log."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class _Ids:
    offset: int
    campaign_id: str
    request_id: str


class Trail:
    """One partition's, from one start on; feed it every record in order."""

    def __init__(self, ended_max: int = ENDED_MAX) -> None:
        self._ended_max = ended_max
        self._ids: OrderedDict[str, _Ids] = OrderedDict()
        self._ended: deque[str] = deque()

    def take(self, record: Raw) -> list[AuditOut]:
        """Return the audit records of one event; an event gives all of its records at once.

        Raises: Invalid for a record that is none of ours, or whose content a later version wrote.
        """
        named = header(record.headers, "ce_type")
        if named is not None and named.decode() not in _OF_INTEREST:
            return []
        logged = read(record)
        payload = decode_payload(LOGGED, logged.type, logged.data)
        if isinstance(payload, Unknown):
            if payload.type in _OF_INTEREST:
                raise Invalid("data", "unknown_value")
            return []
        self._learn(logged, payload)
        outs = [
            self._out(logged, index, self._said(line, logged, payload))
            for index, line in enumerate(LINES.get(payload.TYPE, ()))
            if line.told(payload)
        ]
        self._forget()
        return outs

    def _learn(self, logged: Logged, payload: Any) -> None:
        if logged.call_id is None:
            return
        if isinstance(payload, CallRequested):
            self._ids[logged.call_id] = _Ids(logged.offset, payload.campaign_id, payload.request_id)
        elif isinstance(payload, TERMINAL) and logged.call_id in self._ids:
            self._ended.append(logged.call_id)

    def _forget(self) -> None:
        while len(self._ended) > self._ended_max:
            self._ids.pop(self._ended.popleft(), None)

    def _memory_from(self, after: int) -> int:
        return next(iter(self._ids.values())).offset if self._ids else after

    def _said(self, line: Line, logged: Logged, payload: Any) -> AuditRecord:
        ids = self._ids.get(logged.call_id) if logged.call_id else None
        return AuditRecord(
            name=line.name,
            callee_key=logged.key,
            call_id=logged.call_id,
            campaign_id=ids.campaign_id if ids else None,
            request_id=ids.request_id if ids else None,
            attempt=getattr(payload, "attempt", None),
            detail=line.detail(payload),
        )

    def _out(self, logged: Logged, index: int, said: AuditRecord) -> AuditOut:
        envelope = Envelope(
            type=audit_type(said.name),
            source=SOURCE,
            id=f"{logged.id}/{said.name}",
            time=logged.at,
            subject=logged.subject,
            sequence=sequence_text(logged.sequence),
            causationid=logged.id,
            correlationid=logged.correlation,
            traceparent=logged.traceparent,
            data=said,
        )
        headers = [
            *headers_of(envelope),
            (SOURCE_OFFSET, b"%d" % logged.offset),
            (SOURCE_INDEX, b"%d" % index),
            (MEMORY_FROM, b"%d" % self._memory_from(logged.offset + 1)),
        ]
        return AuditOut(logged.key.encode(), encode(envelope), headers)


def place_of(headers: Iterable[tuple[str, bytes]]) -> Place | None:
    """Read a partition's place off its last audit record; None for a record that carries none."""
    held = tuple(headers)
    published, memory_from = header(held, SOURCE_OFFSET), header(held, MEMORY_FROM)
    return Place(int(published), int(memory_from)) if published and memory_from else None


_LEARNT: Final[tuple[type[Any], ...]] = (CallRequested, *TERMINAL)
_OF_INTEREST: Final = frozenset(LINES) | {cls.TYPE for cls in _LEARNT} | frozenset(UPCASTERS)
