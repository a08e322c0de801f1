"""The witness: every INVITE that left the carrier, written by the carrier itself, outside Kafka and outside the log.

The accounts of the promises (nobody is rung twice, nothing is lost) are made from this file and the producer's own list.
One JSON object a line, each written by a single `write` to a file opened for appending, so that lines stay whole whoever
else appends. It is not fsynced: it has to outlive processes, not the machine.

PERSONAL DATA: the number stands here in the clear, as it does in any carrier's own records. This file belongs to the
simulated carrier; nothing of the dialer reads or copies it.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ATTEMPT_HEADER = "X-Dial-Attempt-Id"


class Seen(enum.StrEnum):
    """What a line is about."""

    INVITE = "invite"
    RINGING = "ringing"
    ANSWERED = "answered"
    FIRST_AUDIO = "first_audio"
    ENDED = "ended"


class EndedBy(enum.StrEnum):
    """How a leg ended."""

    REFUSED = "refused"  # a final response that is not an answer
    RING_TIMEOUT = "ring_timeout"
    CANCELLED = "cancelled"  # room deleted or participant removed while it rang
    CALLEE_BYE = "callee_bye"
    CALLER_BYE = "caller_bye"  # room deleted or participant removed after the answer
    DUPLICATE_IDENTITY = "duplicate_identity"  # a second dial with the same identity pushed it out
    TRANSFERRED = "transferred"  # handed over to somebody else (SIP REFER)
    MEDIA_TIMEOUT = "media_timeout"
    MAX_DURATION = "max_duration"
    ROOM_LOST = "room_lost"  # the connection to LiveKit broke
    SHUTDOWN = "shutdown"  # the carrier was stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """One INVITE and what became of it; instants are aware UTC, None where it did not come to that."""

    dial_id: str
    attempt_id: str
    number: str
    room: str
    identity: str
    persona: str
    invite_at: datetime
    ringing_at: datetime | None = None
    answered_at: datetime | None = None
    first_audio_at: datetime | None = None
    answer_to_audio_ms: float | None = None
    ended_at: datetime | None = None
    ended_by: EndedBy | None = None
    sip_status: int | None = None


class Witness:
    """Appends what is seen to the file; a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def saw(self, seen: Seen, dial_id: str, at: datetime | None = None, **fields: Any) -> None:
        """Write one line."""
        line = {"at": (at or datetime.now(UTC)).isoformat(), "seen": seen, "dial_id": dial_id, **fields}
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fold(dials: dict[str, Dial], line: dict[str, Any]) -> None:
    at, dial_id = datetime.fromisoformat(line["at"]), line["dial_id"]
    match Seen(line["seen"]):
        case Seen.INVITE:
            told = {name: line[name] for name in ("attempt_id", "number", "room", "identity", "persona")}
            dials[dial_id] = Dial(dial_id=dial_id, invite_at=at, **told)
        case Seen.RINGING:
            dials[dial_id] = replace(dials[dial_id], ringing_at=at)
        case Seen.ANSWERED:
            dials[dial_id] = replace(dials[dial_id], answered_at=at)
        case Seen.FIRST_AUDIO:
            delay_ms = float(line["answer_to_audio_ms"])
            dials[dial_id] = replace(dials[dial_id], first_audio_at=at, answer_to_audio_ms=delay_ms)
        case Seen.ENDED:
            ended_by = EndedBy(line["ended_by"])
            dials[dial_id] = replace(dials[dial_id], ended_at=at, ended_by=ended_by, sip_status=line["sip_status"])


def fold(lines: Iterable[str]) -> list[Dial]:
    """The dials that the lines tell of, in the order of their INVITEs; a torn last line (no newline) is left out."""
    dials: dict[str, Dial] = {}
    for line in lines:
        if line.endswith("\n"):
            _fold(dials, json.loads(line))
    return sorted(dials.values(), key=lambda dial: dial.invite_at)


def dials_of(path: Path) -> list[Dial]:
    """Read the witness's file; no file = no dials."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return fold(lines)
