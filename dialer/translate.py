"""From a record's bytes to an input of the core, a rejection, a record to forward, or nothing.

Here the number is read, the callee named, the personal parts sealed. One table of topics; bad input has one place.
Source: design §3 (strays, stops), §4 (commands).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import orjson

from dialer.callee import inputs as i
from dialer.campaigns import Campaigns
from dialer.data_keys import DataKeys
from dialer.prepare import prepare, seal_number, seal_variables
from dialer.reading import NotPlaceCall, ReadAhead, Reading, open_envelope, read_command, read_place_call
from dialer.records import SOURCE, RawRecord
from runtime.clock import Clock
from schemas import commands as c
from schemas import topics
from schemas.codec import OBSERVED, Unknown, decode_payload
from schemas.envelope import FIRST_TIME, FORWARDED, Envelope, encode, header
from schemas.facts import AgentReady, Fact, FactBody
from schemas.observations import DialOutcome, ParticipantJoined, ParticipantLeft, RoomFinished
from schemas.values import (
    Invalid,
    call_id,
    callee_key,
    parse_number,
    partition_of,
    request_hash,
    split_call_id,
)

_MILLISECONDS_DIGITS_MAX: Final = 13


@dataclass(frozen=True, slots=True)
class Given:
    """An input for the core, about this callee; `number` is there for a `place_call` only."""

    callee_key: str
    given: i.AnyInput
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """A record that belongs elsewhere: written there once, marked."""

    topic: str
    key: str
    partition: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """An agent's readiness, renewed: for the gate, not for the core."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Joined:
    """LiveKit's word that a callee's leg came into an attempt's room: for the effects, not for the core."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record that means nothing to this version."""

    why: str


Translated = Given | Forward | Renewed | Joined | Ignored


class Translator:
    """Reads one partition's records; `translate` raises `Invalid` for what is rejected."""

    def __init__(
        self, partition: int, pepper: bytes, memory: timedelta, keys: DataKeys, campaigns: Campaigns, clock: Clock
    ) -> None:
        self._partition, self._pepper, self._memory = partition, pepper, memory
        self._keys, self._campaigns, self._clock = keys, campaigns, clock
        self._ahead = ReadAhead(pepper)

    def read_ahead(self, waiting: Sequence[RawRecord]) -> None:
        """Do the pure part for the next commands that wait, where it is not done."""
        self._ahead.read(waiting)

    def translate(self, raw: RawRecord, now: datetime) -> Translated:
        """Read one record. Raises: Invalid."""
        if raw.topic == topics.OBSERVATIONS.name:
            return self._observation(raw, open_envelope(raw), now)
        if raw.topic == topics.STOPS.name:
            envelope, stop = read_command(raw)
            if isinstance(stop, c.PlaceCall):
                raise Invalid("type", "not_on_stops")
            return self._stop(raw, envelope, _built(stop), now)
        try:
            return self._place(self._ahead.take(raw) or read_place_call(raw, self._pepper), now)
        except NotPlaceCall as read:
            canonical = canonical_stop(_built(read.command), self._pepper)
            key = stop_key(canonical)
            # Written anew: what else a pipeline put into its envelope stays on `dialer.commands`.
            asked = read.envelope
            written = Envelope(type=asked.type, source=SOURCE, id=asked.id, time=asked.time, data=_present(canonical))
            return Forward(topics.STOPS.name, key, partition_of(key), encode(written))

    def _place(self, reading: Reading, now: datetime) -> Translated:
        raw, envelope, command = reading.raw, reading.envelope, reading.command
        number, callee = reading.number, reading.callee
        stray = self._stray(raw, callee, reading.partition)
        if stray is not None:
            return stray
        broker_time = _first_time(raw)
        if envelope.time is not None and broker_time - envelope.time > self._memory:
            raise Invalid("time", "too_old")
        key = self._keys.find_or_make(callee)
        draw = self._clock.random_bytes
        definition = self._campaigns.cached(command.campaign_id)
        return Given(
            callee,
            i.PlaceCall(
                id=envelope.id,
                at=now,
                call_id=reading.call_id,
                request_id=command.request_id,
                campaign_id=command.campaign_id,
                to=seal_number(key, callee, number.e164, draw),
                variables=seal_variables(key, callee, command.variables, draw),
                body_hash=reading.body_hash,
                region=number.region,
                zones=reading.zones,
                priority=command.priority,
                not_before=command.not_before,
                not_after=command.not_after or broker_time + timedelta(hours=24),
                remember_until=broker_time + self._memory,
                consent=command.consent,
                verdict=None
                if definition is None
                else prepare(definition, command.variables, number.region, key, callee, draw),
            ),
            envelope.traceparent,
        )

    def _stop(self, raw: RawRecord, envelope: Envelope, stop: c.Stop, now: datetime) -> Translated:
        if getattr(stop, "to", None) is not None:
            raise Invalid("to", "not_on_stops")
        stop = canonical_stop(stop, self._pepper)
        callee = stop_key(stop)
        stray = self._stray(raw, callee, partition_of(callee))
        if stray is not None:
            return stray
        if isinstance(stop, c.CancelCall):
            assert stop.call_id is not None
            until = _first_time(raw) + self._memory
            cancel = i.Cancel(id=envelope.id, at=now, call_id=stop.call_id, reason=stop.reason, remember_until=until)
            return Given(callee, cancel, envelope.traceparent)
        kind = i.Suppress if isinstance(stop, c.SuppressCallee) else i.Lift
        given = kind(id=envelope.id, at=now, scope=stop.scope, reason=stop.reason)
        return Given(callee, given, envelope.traceparent)

    def _observation(self, raw: RawRecord, envelope: Envelope, now: datetime) -> Translated:
        if envelope.subject is None:
            raise Invalid("subject", "missing")
        callee = split_call_id(envelope.subject)[0]
        stray = self._stray(raw, callee, partition_of(callee))
        if stray is not None:
            return stray
        payload = decode_payload(OBSERVED, envelope.type, envelope.data)
        if isinstance(payload, Unknown):
            return Ignored("unknown_type")
        given = _observed(payload, envelope, now)
        return given if given is not None else Ignored("a hint that nothing follows from")

    def _stray(self, raw: RawRecord, callee: str, partition: int) -> Forward | None:
        if raw.key is not None and raw.key == callee.encode() and partition == self._partition:
            return None
        # Observations are written by our own processes, never in a transaction (design §3): a stray there is a bug of theirs.
        if raw.topic == topics.OBSERVATIONS.name or header(raw.headers, FORWARDED) is not None:
            raise Invalid("key", "layout")
        return Forward(raw.topic, callee, partition, raw.value)


def _observed(payload: object, envelope: Envelope, now: datetime) -> Translated | None:
    assert envelope.subject is not None
    callee, call = split_call_id(envelope.subject)[0], envelope.subject
    if isinstance(payload, AgentReady) and payload.renewal > 0:
        return Renewed(call, payload.attempt)
    if isinstance(payload, Fact):
        attempt = payload.attempt
        body = cast("FactBody", payload)
        fact = i.FactSeen(id=envelope.id, at=now, call_id=call, attempt=attempt, fact=body, source=envelope.source)
        return Given(callee, fact, envelope.traceparent)
    if isinstance(payload, DialOutcome):
        dialled = i.Dialled(id=envelope.id, at=now, call_id=call, attempt=payload.attempt, outcome=payload)
        return Given(callee, dialled, envelope.traceparent)
    if isinstance(payload, ParticipantJoined) and payload.kind == "sip":
        return Joined(call, payload.attempt)
    if isinstance(payload, RoomFinished) or (isinstance(payload, ParticipantLeft) and payload.kind == "sip"):
        gone = i.LegGone(id=envelope.id, at=now, call_id=call, attempt=payload.attempt)
        return Given(callee, gone, envelope.traceparent)
    return None


def _first_time(raw: RawRecord) -> datetime:
    """Return the broker's time of a record's first appearance."""
    first = header(raw.headers, FIRST_TIME)
    known = first is not None and first.isdigit() and len(first) <= _MILLISECONDS_DIGITS_MAX
    milliseconds = min(int(first), raw.timestamp_ms) if first is not None and known else raw.timestamp_ms
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _built(command: c.Stop | c.EraseCallee) -> c.Stop:
    if isinstance(command, c.EraseCallee):
        raise Invalid("type", "not_built")
    return command


def canonical_stop(stop: c.Stop, pepper: bytes) -> c.Stop:
    """Name the call, or the callee, by pseudonym only. Raises: Invalid where the stop does not say which."""
    if isinstance(stop, c.CancelCall):
        if stop.call_id is None:
            if stop.campaign_id is None or stop.request_id is None or stop.to is None:
                raise Invalid("call_id", "missing")
            callee = callee_key(parse_number(stop.to).e164, pepper)
            named = call_id(callee, request_hash(stop.campaign_id, stop.request_id))
            return c.CancelCall(call_id=named, reason=stop.reason)
        return c.CancelCall(call_id=stop.call_id, reason=stop.reason)
    if stop.callee_key is None:
        if stop.to is None:
            raise Invalid("callee_key", "missing")
        return replace(stop, callee_key=callee_key(parse_number(stop.to).e164, pepper), to=None)
    return replace(stop, to=None)


def stop_key(stop: c.Stop) -> str:
    """Return the callee_key of a canonical stop."""
    if isinstance(stop, c.CancelCall):
        assert stop.call_id is not None
        return split_call_id(stop.call_id)[0]
    assert stop.callee_key is not None
    return stop.callee_key


def _present(stop: c.Stop) -> dict[str, str]:
    document: dict[str, str | None] = orjson.loads(orjson.dumps(stop))
    return {k: v for k, v in document.items() if v is not None}
