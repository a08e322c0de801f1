"""The pure part of reading a `place_call`: decoded, checked, its number read, callee and request named; in stages.

It is read ahead, many records stage by stage: one record's path runs through a dozen libraries, and in a loop of their
own these stages took 50 to 70 us a record in company and 100 to 125 alone (a busy machine; the whole ownership gained
about a tenth at best). Nothing here depends on any state but the record and the pepper, so reading early changes nothing.
Source: design §4.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from sys import intern
from typing import Final

import orjson

from dialer.records import RawRecord
from dialer.writing import AS_DICTS, plain
from schemas import commands as c
from schemas.codec import decode_command
from schemas.envelope import Envelope, decode
from schemas.values import (
    Invalid,
    Number,
    call_id,
    callee_key,
    is_phone_number_like,
    parse_number,
    partition_of,
    request_hash,
    zones_of,
)

AHEAD_MAX: Final = 32
"""Records read at once: some 2 ms of work."""
BODY_HASH_BYTES: Final = 8
_ID: Final = re.compile(r"[A-Za-z0-9._:/-]{1,128}")


class Reading:
    """One record as far as it has been read; each stage fills in what the next one needs."""

    __slots__ = (
        "body_hash",
        "call_id",
        "callee",
        "command",
        "envelope",
        "number",
        "partition",
        "pepper",
        "raw",
        "zones",
    )
    envelope: Envelope
    command: c.PlaceCall
    number: Number
    callee: str
    partition: int
    call_id: str
    body_hash: str
    zones: tuple[str, ...]

    def __init__(self, raw: RawRecord, pepper: bytes) -> None:
        self.raw, self.pepper = raw, pepper


class NotPlaceCall(Exception):
    """A command of another kind: there are few, and they are read one by one."""

    def __init__(self, envelope: Envelope, command: c.Stop | c.EraseCallee) -> None:
        super().__init__(type(command).__name__)
        self.envelope, self.command = envelope, command


def open_envelope(raw: RawRecord) -> Envelope:
    """Read the envelope of any record. Raises: Invalid."""
    if raw.value is not None and len(raw.value) > c.RECORD_BYTES_MAX:
        raise Invalid("value", "too_large")
    return decode(raw.value, raw.headers)


def read_command(raw: RawRecord) -> tuple[Envelope, c.Command]:
    """Read any command, as far as it goes without its meaning. Raises: Invalid."""
    envelope = open_envelope(raw)
    _check_id(envelope)
    return envelope, decode_command(envelope.type, envelope.data)


def _check_id(envelope: Envelope) -> None:
    """Refuse an id that is none of ours to keep."""
    if not _ID.fullmatch(envelope.id):
        raise Invalid("id", "pattern")
    if is_phone_number_like(envelope.id):
        raise Invalid("id", "phone_number")


def _envelope(reading: Reading) -> None:
    reading.envelope = open_envelope(reading.raw)


def _id(reading: Reading) -> None:
    _check_id(reading.envelope)


def _command(reading: Reading) -> None:
    command = decode_command(reading.envelope.type, reading.envelope.data)
    if not isinstance(command, c.PlaceCall):
        raise NotPlaceCall(reading.envelope, command)
    reading.command = command


def _number(reading: Reading) -> None:
    reading.number = parse_number(reading.command.to)


def _callee(reading: Reading) -> None:
    reading.callee = callee_key(reading.number.e164, reading.pepper)


def _partition(reading: Reading) -> None:
    reading.partition = partition_of(reading.callee)


def _call(reading: Reading) -> None:
    command = reading.command
    reading.call_id = call_id(reading.callee, request_hash(command.campaign_id, command.request_id))


def _body(reading: Reading) -> None:
    reading.body_hash = body_hash(reading.command, reading.number.e164, reading.pepper)


def _zones(reading: Reading) -> None:
    given = reading.command.timezone
    reading.zones = (intern(given),) if given else zones_of(reading.number)


STAGES: Final[tuple[Callable[[Reading], None], ...]] = (
    _envelope,
    _id,
    _command,
    _number,
    _callee,
    _partition,
    _call,
    _body,
    _zones,
)


def read_place_call(raw: RawRecord, pepper: bytes) -> Reading:
    """Read one record of `dialer.commands`. Raises: Invalid, NotPlaceCall."""
    reading = Reading(raw, pepper)
    for stage in STAGES:
        stage(reading)
    return reading


class ReadAhead:
    """What was read of records whose turn has not come; a record that cannot be read so is left to its turn."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._read: dict[int, Reading] = {}
        self._until = -1

    def read(self, waiting: Sequence[RawRecord]) -> None:
        """Read the next commands that wait, unless the first of them is read already."""
        if waiting[0].offset <= self._until:
            return
        ahead = list(islice(waiting, AHEAD_MAX))
        readings = [Reading(raw, self._pepper) for raw in ahead]
        for stage in STAGES:
            readings = _through(stage, readings)
        self._until = ahead[-1].offset
        self._read = {reading.raw.offset: reading for reading in readings}

    def take(self, raw: RawRecord) -> Reading | None:
        """Hand out what was read of this very record."""
        reading = self._read.pop(raw.offset, None) if self._read else None
        return reading if reading is not None and reading.raw is raw else None


def _through(stage: Callable[[Reading], None], readings: list[Reading]) -> list[Reading]:
    """Return the readings that come through a stage: nearly always all, so that each is asked alone only where one does not."""
    try:
        for reading in readings:
            stage(reading)
    except (Invalid, NotPlaceCall):
        return [reading for reading in readings if _holds(stage, reading)]
    return readings


def _holds(stage: Callable[[Reading], None], reading: Reading) -> bool:
    try:
        stage(reading)
    except (Invalid, NotPlaceCall):
        return False
    return True


def body_hash(command: c.PlaceCall, e164: str, pepper: bytes) -> str:
    """Hash a request's body under the pepper: 8 bytes, never a plain hash, for it outlives erasure."""
    normalised = command if command.to == e164 else replace(command, to=e164)
    canonical = orjson.dumps(normalised, default=plain, option=orjson.OPT_SORT_KEYS | AS_DICTS)
    return base64.b64encode(hmac.digest(pepper, canonical, "sha256")[:BODY_HASH_BYTES]).decode()
