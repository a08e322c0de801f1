"""LiveKit's webhooks: verified, translated into observations, repeated ones left out. Hints only; nothing waits for one.

A webhook is believed when its token is signed with our key and carries the hash of exactly these bytes. What it says is
kept as ids, kinds and reasons: names, attributes and passwords in it go nowhere. Source: reference/livekit.md 4.8.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import jwt
from google.protobuf import json_format
from livekit.api import TokenVerifier
from livekit.protocol.models import DisconnectReason
from livekit.protocol.webhook import WebhookEvent

from dialer.livekit_answers import kind_of
from runtime.metrics import WEBHOOKS
from schemas.envelope import Envelope
from schemas.observations import ParticipantJoined, ParticipantLeft, RoomFinished
from schemas.values import attempt_of_room

SOURCE: Final = "/livekit/webhook"
BODY_BYTES_MAX: Final = 256 * 1024
SEEN_MAX: Final = 10_000
"""Ids of webhooks that are remembered: LiveKit repeats one within seconds, or never."""
_ID_LENGTH_MAX: Final = 128
Payload = RoomFinished | ParticipantJoined | ParticipantLeft


class Forged(Exception):
    """A webhook that is not LiveKit's, or not as LiveKit sent it: says which check failed."""


class Webhooks:
    """Verifies and translates; `produced` marks a webhook as dealt with, so that a repetition is left out."""

    def __init__(self, key: str, secret: str, seen_max: int = SEEN_MAX) -> None:
        self._verifier = TokenVerifier(key, secret)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._seen_max = seen_max

    def translate(self, body: bytes, authorization: str) -> Envelope | None:
        """Return the observation to produce; None for what is not about a call of ours, or was produced before.

        Raises: Forged.
        """
        try:
            event = self._verified(body, authorization)
        except Forged:
            WEBHOOKS.labels("forged").inc()
            raise
        if event.id in self._seen:
            WEBHOOKS.labels("repeated").inc()
            return None
        envelope = _observation(event)
        WEBHOOKS.labels("ignored" if envelope is None else "translated").inc()
        return envelope

    def produced(self, envelope: Envelope) -> None:
        """Remember that this one is in `dialer.observations`; before that LiveKit's repetition is still needed."""
        self._seen[envelope.id] = None
        while len(self._seen) > self._seen_max:
            self._seen.popitem(last=False)

    def _verified(self, body: bytes, authorization: str) -> WebhookEvent:
        # livekit.api.WebhookReceiver does the same, but compares decoded text and raises a bare Exception.
        if len(body) > BODY_BYTES_MAX:
            raise Forged("too_large")
        try:
            claims = self._verifier.verify(authorization.removeprefix("Bearer ").strip())
        except (jwt.PyJWTError, TypeError, ValueError):
            raise Forged("token") from None
        try:
            claimed = base64.b64decode(claims.sha256 or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise Forged("hash") from None
        if not hmac.compare_digest(claimed, hashlib.sha256(body).digest()):
            raise Forged("hash")
        try:
            return json_format.Parse(body, WebhookEvent(), ignore_unknown_fields=True)
        except (json_format.ParseError, UnicodeDecodeError):
            raise Forged("body") from None


def _observation(event: WebhookEvent) -> Envelope | None:
    told = _TRANSLATIONS.get(event.event)
    place = attempt_of_room(event.room.name)
    if told is None or place is None or not 0 < len(event.id) <= _ID_LENGTH_MAX:
        return None
    call_id, attempt = place
    payload = told(event, attempt)
    if payload is None:
        return None
    time = datetime.fromtimestamp(event.created_at, UTC) if event.created_at > 0 else None
    return Envelope(type=payload.TYPE, source=SOURCE, id=event.id, subject=call_id, time=time, data=payload)


def _room_finished(_: WebhookEvent, attempt: int) -> Payload | None:
    return RoomFinished(attempt=attempt)


def _joined(event: WebhookEvent, attempt: int) -> Payload | None:
    kind = kind_of(event.participant)
    return None if kind == "other" else ParticipantJoined(attempt=attempt, kind=kind)


def _left(event: WebhookEvent, attempt: int) -> Payload | None:
    kind = kind_of(event.participant)
    if kind == "other":
        return None
    reasons = DisconnectReason.DESCRIPTOR.values_by_number
    value = reasons.get(event.participant.disconnect_reason)
    return ParticipantLeft(attempt=attempt, kind=kind, reason=value.name if value else "UNKNOWN_REASON")


_TRANSLATIONS: Final[dict[str, Callable[[WebhookEvent, int], Payload | None]]] = {
    "room_finished": _room_finished,
    "participant_joined": _joined,
    "participant_left": _left,
}
