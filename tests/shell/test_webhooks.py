"""Webhooks: only LiveKit's own are believed; ours become observations without a name or a number in them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from google.protobuf import json_format
from livekit import api
from livekit.protocol.models import DisconnectReason, ParticipantInfo, Room
from livekit.protocol.webhook import WebhookEvent

from dialer.livekit import LiveKitTelephony
from dialer.telephony import RoomRequest
from dialer.webhooks import BODY_BYTES_MAX, SOURCE, Forged, Webhooks
from runtime.clock import SystemClock
from schemas.codec import OBSERVED, decode_payload
from schemas.envelope import decode, encode
from schemas.observations import ParticipantJoined, ParticipantLeft, RoomFinished
from schemas.values import room_name
from tests.platform_fixtures import WEBHOOK_PATH, livekit, provisions  # noqa: F401 (fixtures)

KEY, SECRET = "devkey", "s" * 40
CALL = f"{'a' * 26}-{'b' * 16}"
ROOM = room_name(CALL, 2)


def token(body: bytes, *, secret: str = SECRET, ttl_s: int = 300, digest: bytes | None = None) -> str:
    digest = hashlib.sha256(body).digest() if digest is None else digest
    made = api.AccessToken(KEY, secret).with_ttl(timedelta(seconds=ttl_s))
    return made.with_sha256(base64.b64encode(digest).decode()).to_jwt()


def event(name: str, room: str = ROOM, participant: ParticipantInfo | None = None, event_id: str = "EV_1") -> bytes:
    made = WebhookEvent(
        event=name,
        id=event_id,
        created_at=1_795_000_000,
        room=Room(name=room, turn_password="hush"),
        participant=participant,
    )
    return json_format.MessageToJson(made).encode()


def callee(
    reason: str = "UNKNOWN_REASON", kind: ParticipantInfo.Kind.ValueType = ParticipantInfo.Kind.SIP
) -> ParticipantInfo:
    return ParticipantInfo(
        identity="callee-x",
        name="Ann +12125550123",
        kind=kind,
        attributes={"sip.phoneNumber": "+12125550123"},
        disconnect_reason=DisconnectReason.Value(reason),
    )


AGENT = callee(kind=ParticipantInfo.Kind.AGENT)
TRANSLATED = [
    (event("room_finished"), RoomFinished(attempt=2)),
    (event("participant_joined", participant=callee()), ParticipantJoined(attempt=2, kind="sip")),
    (event("participant_joined", participant=AGENT), ParticipantJoined(attempt=2, kind="agent")),
    (
        event("participant_left", participant=callee("USER_REJECTED")),
        ParticipantLeft(attempt=2, kind="sip", reason="USER_REJECTED"),
    ),
    (event("participant_left", participant=AGENT), ParticipantLeft(attempt=2, kind="agent", reason="UNKNOWN_REASON")),
]


@pytest.mark.parametrize(("body", "payload"), TRANSLATED)
def test_what_is_about_a_call_becomes_an_observation(body, payload):
    """Under LiveKit's own id, of the call its room names; it passes the wire; nothing personal is in it."""
    envelope = Webhooks(KEY, SECRET).translate(body, token(body))
    assert envelope is not None
    assert (envelope.id, envelope.source, envelope.subject, envelope.type) == ("EV_1", SOURCE, CALL, payload.TYPE)
    assert envelope.time == datetime.fromtimestamp(1_795_000_000, UTC)
    wire = encode(envelope)
    assert b"2125550123" not in wire and b"Ann" not in wire and b"hush" not in wire
    assert decode_payload(OBSERVED, envelope.type, decode(wire).data) == payload


@pytest.mark.parametrize(
    "body",
    [
        event("room_started"),
        event("track_published", participant=callee()),
        event("room_finished", room="somebody-elses"),
        event("participant_joined", participant=callee(kind=ParticipantInfo.Kind.STANDARD)),
        event("participant_left", participant=callee(kind=ParticipantInfo.Kind.EGRESS)),
        event("room_finished", event_id=""),
    ],
)
def test_what_is_not_about_a_call_is_passed_over(body):
    """Other events, other rooms, other participants."""
    assert Webhooks(KEY, SECRET).translate(body, token(body)) is None


BODY = event("room_finished")
FORGED = [
    ("no token", BODY, ""),
    ("nonsense", BODY, "nonsense"),
    ("another key", BODY, token(BODY, secret="t" * 40)),
    ("stale", BODY, token(BODY, ttl_s=-3600)),
    ("another body", BODY + b" ", token(BODY)),
    ("no hash", BODY, token(BODY, digest=b"")),
    ("not JSON", b"{", token(b"{")),
    ("not text", b"\xff\xfe", token(b"\xff\xfe")),
    ("wrong types", b'{"event": 5}', token(b'{"event": 5}')),
    ("too large", b" " * (BODY_BYTES_MAX + 1), token(b" " * (BODY_BYTES_MAX + 1))),
]


@pytest.mark.parametrize(("body", "authorization"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_what_livekit_did_not_send_is_refused(body, authorization):
    """By token, by hash, by form."""
    with pytest.raises(Forged):
        Webhooks(KEY, SECRET).translate(body, authorization)


def test_a_repeated_webhook_is_left_out_only_after_it_was_produced():
    """LiveKit repeats what we did not take; memory is bounded."""
    webhooks = Webhooks(KEY, SECRET, seen_max=2)
    first = webhooks.translate(BODY, token(BODY))
    assert first is not None and webhooks.translate(BODY, token(BODY)) == first
    webhooks.produced(first)
    assert webhooks.translate(BODY, token(BODY)) is None
    for number in (2, 3):
        other = event("room_finished", event_id=f"EV_{number}")
        envelope = webhooks.translate(other, token(other))
        assert envelope is not None
        webhooks.produced(envelope)
    assert webhooks.translate(BODY, token(BODY)) == first


@pytest.mark.livekit
async def test_a_real_servers_webhook_is_believed(livekit):  # noqa: F811
    """What livekit-server itself sends when a room goes."""
    webhooks = Webhooks(livekit.key, livekit.secret)
    seen: asyncio.Queue = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        seen.put_nowait(webhooks.translate(body, request.headers["Authorization"]))
        return web.Response()

    app = web.Application()
    app.router.add_post(WEBHOOK_PATH, receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", livekit.webhook_port).start()
    telephony = LiveKitTelephony(livekit.http_url, livekit.key, livekit.secret, SystemClock())
    try:
        opening = RoomRequest(
            name=ROOM,
            agent_name="nobody",
            agent_metadata="",
            room_metadata="",
            empty_timeout_s=60,
            departure_timeout_s=20,
        )
        assert (await telephony.create_room(opening)).ok
        assert await telephony.delete_room(ROOM) == "deleted"
        async with asyncio.timeout(15):
            while (envelope := await seen.get()) is None:
                pass
        assert (envelope.subject, envelope.data) == (CALL, RoomFinished(attempt=2))
    finally:
        await telephony.close()
        await runner.cleanup()
