"""A record of `dialer.events` as the folds read it: envelope, place on the log, place in its callee's history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from schemas.envelope import Envelope, decode
from schemas.values import CALLEE_KEY_LENGTH, REQUEST_HASH_LENGTH, Invalid

_CALL_ID_LENGTH: Final = CALLEE_KEY_LENGTH + 1 + REQUEST_HASH_LENGTH


class Raw(Protocol):
    """What is needed of a consumer's record (aiokafka's `ConsumerRecord` has it)."""

    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102


@dataclass(slots=True)
class Logged:
    """One record of the log, decoded as far as its envelope. Not frozen for speed alone: nobody changes one."""

    partition: int
    offset: int
    key: str
    """The callee's."""
    envelope: Envelope
    at: datetime
    sequence: int
    """Place in the callee's history: one counter per callee, so that it grows along each of the callee's calls."""
    call_id: str | None
    """None for what concerns the callee and no single call (a suppression)."""


def call_of(subject: str | None) -> str | None:
    """Return the call that a subject names, or None where it names none."""
    if subject is None or len(subject) != _CALL_ID_LENGTH or subject[CALLEE_KEY_LENGTH] != "-":
        return None
    return subject


def read(record: Raw) -> Logged:
    """Decode a record of the log; where the envelope has no time, broker time stands in.

    Raises: Invalid for a record that is none of ours.
    """
    if record.key is None:
        raise Invalid("key", "missing")
    envelope = decode(record.value, record.headers)
    sequence = envelope.sequence
    if sequence is None or not sequence.isdecimal():
        raise Invalid("sequence", "missing")
    at = envelope.time or datetime.fromtimestamp(record.timestamp / 1000, UTC)
    key = record.key.decode("ascii", "replace")
    return Logged(record.partition, record.offset, key, envelope, at, int(sequence), call_of(envelope.subject))
