"""A campaign pipeline: a plain Kafka producer that writes CloudEvents, as any program in any language would.

It keys as pipelines do, with keys of its own or none, never with the dialer's. What it sent is its own list,
`<run_dir>/producer.jsonl`, one half of the accounts.

PERSONAL DATA: the list holds numbers in the clear, as a campaign's own records do.
"""

from __future__ import annotations

import enum
import hmac
import itertools
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer

from rehearsal.scenario import Request
from schemas.values import call_id, callee_key, request_hash

TOPIC: Final = "dialer.commands"
PLACE_CALL: Final = "dialer.command.place_call.v1"
CANCEL_CALL: Final = "dialer.command.cancel_call.v1"
SUPPRESS_CALLEE: Final = "dialer.command.suppress_callee.v1"


class Kind(enum.StrEnum):
    """What a sent record is to the accounts."""

    COMMAND = "command"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    BROKEN = "broken"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One record that the broker acknowledged; `fingerprint` is what `dialer.rejected` would call its bytes."""

    kind: Kind
    name: str
    call_id: str | None
    number: str | None
    at: str
    fingerprint: str


def call_id_of(data: dict[str, Any], pepper: bytes) -> str:
    """Name the call that a `place_call` asks for."""
    return call_id(callee_key(data["to"], pepper), request_hash(data["campaign_id"], data["request_id"]))


class Pipeline:
    """Sends requests and writes down what it sent; use it as an async context manager."""

    def __init__(self, bootstrap: str, pepper: bytes, list_file: Path) -> None:
        self.sent: list[Sent] = []
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", client_id="campaign-pipeline")
        self._pepper = pepper
        self._number = itertools.count(1)
        self._file = os.open(list_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()
        os.close(self._file)

    async def place(self, request: Request) -> None:
        """Ask for a call."""
        await self._place(Kind.COMMAND, request, request.data)

    async def repeat(self, request: Request) -> None:
        """Ask for the same call again, in another envelope and under another key."""
        await self._place(Kind.REPEATED, request, request.data)

    async def contradict(self, request: Request) -> None:
        """Ask for the same call with another body."""
        variables = {**request.data["variables"], "first_name": "Somebody else"}
        await self._place(Kind.CONFLICT, request, {**request.data, "variables": variables})

    async def cancel(self, request: Request) -> None:
        """Take a call back, by the three parts of its idempotency key."""
        asked = {name: request.data[name] for name in ("campaign_id", "request_id", "to")}
        await self._send(Kind.STOP, f"cancel {request.name}", self._event(CANCEL_CALL, asked))

    async def suppress(self, request: Request) -> None:
        """Ask that this person be rung no more."""
        asked = {"to": request.data["to"], "reason": "opted_out"}
        await self._send(Kind.STOP, f"suppress {request.name}", self._event(SUPPRESS_CALLEE, asked))

    async def send_broken(self, why: str, value: bytes) -> None:
        """Send what must be rejected."""
        await self._send(Kind.BROKEN, why, value)

    async def _place(self, kind: Kind, request: Request, data: dict[str, Any]) -> None:
        if request.waits_s:
            # One instant for all times it is sent: another one would be another body.
            due = self._first_sent(request) + timedelta(seconds=request.waits_s)
            data = {**data, "not_before": due.isoformat()}
        wanted = call_id_of(data, self._pepper)
        await self._send(kind, request.name, self._event(PLACE_CALL, data), call_id=wanted, number=data["to"])

    def _first_sent(self, request: Request) -> datetime:
        wanted = call_id_of(request.data, self._pepper)
        return next((datetime.fromisoformat(s.at) for s in self.sent if s.call_id == wanted), datetime.now(UTC))

    def _event(self, type_name: str, data: dict[str, Any]) -> bytes:
        envelope = {
            "specversion": "1.0",
            "type": type_name,
            "source": "/campaigns/rehearsal",
            "id": f"r-{next(self._number)}",
            "time": datetime.now(UTC).isoformat(),
        }
        return json.dumps({**envelope, "data": data}).encode()

    async def _send(
        self, kind: Kind, name: str, value: bytes, *, call_id: str | None = None, number: str | None = None
    ) -> None:
        number_sent = len(self.sent)
        key = f"pipeline-{number_sent % 7}".encode() if number_sent % 3 else None
        headers = [("content-type", b"application/cloudevents+json")]
        at = datetime.now(UTC).isoformat()
        await self._producer.send_and_wait(TOPIC, value, key=key, headers=headers)
        fingerprint = hmac.digest(self._pepper, value, "sha256").hex()
        sent = Sent(kind=kind, name=name, call_id=call_id, number=number, at=at, fingerprint=fingerprint)
        self.sent.append(sent)
        os.write(self._file, (json.dumps(asdict(sent)) + "\n").encode())


def sent_of(list_file: Path) -> list[Sent]:
    """Read a pipeline's list back."""
    rows = (json.loads(line) for line in list_file.read_text(encoding="utf-8").splitlines())
    return [Sent(**{**row, "kind": Kind(row["kind"])}) for row in rows]
