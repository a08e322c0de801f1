"""What the LiveKit adapter makes of answers, refusals and broken lines: over real sockets, against a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from livekit.protocol.sip import CreateSIPParticipantRequest

import dialer.livekit
from dialer.livekit import LiveKitTelephony
from dialer.telephony import DialAnswer, DialRequest, TelephonyUnavailable, Trunk
from rehearsal.ports import free_ports
from runtime.clock import SystemClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REQUEST = DialRequest(
    room="call-x-1",
    identity="callee-x-1",
    attempt_id="x-1",
    to="+12125550123",
    trunk_id="ST_1",
    caller_id="+12125550100",
    ring_timeout_s=30,
    max_call_duration_s=600,
)
TRUNK = Trunk(name="t", address="sip.example", numbers=("+12125550100",))


@asynccontextmanager
async def livekit_that(handler: Handler) -> AsyncIterator[LiveKitTelephony]:
    """A telephony in front of a server that does only this."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    telephony = LiveKitTelephony(f"ws://127.0.0.1:{runner.addresses[0][1]}", "key", "s" * 32, SystemClock())
    try:
        yield telephony
    finally:
        await telephony.close()
        await runner.cleanup()


def says(status: int, body: object) -> Handler:
    """Answer JSON."""

    async def handler(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return handler


def page(status: int, text: str) -> Handler:
    """Answer what is not Twirp."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type="text/html")

    return handler


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Read the request and cut the line."""
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def keep_silent(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


def sip(status: object, phrase: str) -> dict[str, str]:
    return {"sip_status_code": str(status), "sip_status": phrase}


ANSWERS = [
    (
        "a SIP status is decisive, whatever the code",
        says(408, {"code": "deadline_exceeded", "msg": "x", "meta": sip(408, "Request Timeout")}),
        DialAnswer(result="failed", sip_status=408, code="deadline_exceeded", phrase="Request Timeout"),
    ),
    (
        "a number in a phrase is blotted out",
        says(403, {"code": "permission_denied", "msg": "x", "meta": sip(603, "Decline +12125550123")}),
        DialAnswer(result="failed", sip_status=603, code="permission_denied", phrase="Decline #"),
    ),
    (
        "a Twirp `unavailable` is LiveKit's own word",
        says(503, {"code": "unavailable", "msg": "no response from servers"}),
        DialAnswer(result="failed", code="unavailable", phrase="no response from servers"),
    ),
    (
        "a proxy's 503 page says nothing",
        page(503, "<html>unavailable</html>"),
        DialAnswer(result="unclear", code="unknown"),
    ),
    ("a proxy's 404 page says nothing", page(404, "not found"), DialAnswer(result="unclear", code="unknown")),
    (
        "JSON that is not Twirp says nothing",
        says(503, {"error": "unavailable"}),
        DialAnswer(result="unclear", code="unknown"),
    ),
    ("a JSON list says nothing", says(500, ["oops"]), DialAnswer(result="unclear", code="malformed_answer")),
    (
        "a code that Twirp does not have says nothing",
        says(500, {"code": 7}),
        DialAnswer(result="unclear", code="unknown"),
    ),
    (
        "a deadline without a SIP status leaves it open whether it rang",
        says(408, {"code": "deadline_exceeded", "msg": "request timed out"}),
        DialAnswer(result="unclear", code="deadline_exceeded", phrase="request timed out"),
    ),
    (
        "a SIP status that is no number is none",
        says(412, {"code": "failed_precondition", "msg": "m", "meta": sip("4x6", "")}),
        DialAnswer(result="failed", code="failed_precondition", phrase="m"),
    ),
    ("a line cut after the request is unclear", hang_up, DialAnswer(result="unclear", code="transport")),
    (
        "an answer that is no message is unclear",
        page(200, "\x00\x01 ok"),
        DialAnswer(result="unclear", code="malformed_answer"),
    ),
]


@pytest.mark.parametrize(("handler", "answer"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
async def test_a_dial_is_failed_only_where_livekit_said_so(handler: Handler, answer: DialAnswer) -> None:
    """Row by row."""
    async with livekit_that(handler) as telephony:
        assert await telephony.dial(REQUEST) == answer


async def test_a_refused_connection_is_known_as_not_sent() -> None:
    """Nothing left this process, so nothing rang."""
    telephony = LiveKitTelephony(f"http://127.0.0.1:{free_ports(1)[0]}", "key", "s" * 32, SystemClock())
    try:
        assert await telephony.dial(REQUEST) == DialAnswer(result="failed", code="not_sent")
        assert await telephony.legs("room") is None
        assert await telephony.delete_room("room") == "failed"
        with pytest.raises(TelephonyUnavailable, match="transport"):
            await telephony.auto_create_is_off()
    finally:
        await telephony.close()


async def test_a_connection_that_is_not_made_in_time_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A door that takes no more connections: the dial gives up before its gate's word grows old."""
    monkeypatch.setattr(dialer.livekit, "CONNECT_TIMEOUT_S", 0.2)
    async with livekit_that(keep_silent) as telephony:

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(telephony._dial_session.connector, "_create_connection", never)
        assert await telephony.dial(REQUEST) == DialAnswer(result="failed", code="not_sent")


async def test_no_answer_in_time_is_unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ring timeout and margin have passed: the phone may have rung."""
    monkeypatch.setattr(dialer.livekit, "DIAL_MARGIN_S", -29.7)
    async with livekit_that(keep_silent) as telephony:
        assert await telephony.dial(REQUEST) == DialAnswer(result="unclear", code="timeout")


async def test_a_dial_is_sent_once_with_what_the_carrier_needs() -> None:
    """One request, never repeated, on a 5xx either; number hidden from the room, attempt id in the INVITE."""
    seen: list[CreateSIPParticipantRequest] = []

    async def fail(request: web.Request) -> web.Response:
        seen.append(CreateSIPParticipantRequest.FromString(await request.read()))
        return web.json_response({"code": "internal", "msg": "x"}, status=500)

    async with livekit_that(fail) as telephony:
        await telephony.dial(REQUEST)
    (sent,) = seen
    assert dict(sent.headers) == {"X-Dial-Attempt-Id": "x-1"}
    assert sent.hide_phone_number and sent.wait_until_answered
    assert (sent.sip_call_to, sent.sip_number, sent.sip_trunk_id) == ("+12125550123", "+12125550100", "ST_1")
    assert (sent.room_name, sent.participant_identity, sent.participant_name) == ("call-x-1", "callee-x-1", "")
    assert (sent.ringing_timeout.seconds, sent.max_call_duration.seconds) == (30, 600)


async def test_more_dials_ring_at_once_than_a_pool_holds() -> None:
    """No dial queues for a connection behind others that ring: aiohttp's own pool holds 100."""
    ringing, all_in = 0, asyncio.Event()

    async def ring(_: web.Request) -> web.Response:
        nonlocal ringing
        ringing += 1
        if ringing == 110:
            all_in.set()
        await all_in.wait()
        return web.json_response({"code": "canceled", "msg": "x"}, status=408)

    async with livekit_that(ring) as telephony, asyncio.timeout(20):
        answers = await asyncio.gather(*(telephony.dial(REQUEST) for _ in range(110)))
    assert {a.code for a in answers} == {"canceled"}


async def test_a_page_that_says_404_is_not_a_fence() -> None:
    """Only LiveKit's own `not_found` says that a room is gone."""
    async with livekit_that(page(404, "no such host here")) as telephony:
        assert await telephony.delete_room("r") == "failed"
        assert await telephony.legs("r") is None
    async with livekit_that(says(404, {"code": "not_found", "msg": "x"})) as telephony:
        assert await telephony.delete_room("r") == "not_found"


async def test_the_probe_tells_on_from_off_from_neither() -> None:
    """200: rooms are made by joining; 404 in LiveKit's words: they are not; else nobody knows."""
    async with livekit_that(page(200, "success")) as telephony:
        assert not await telephony.auto_create_is_off()
    async with livekit_that(page(404, "requested room does not exist")) as telephony:
        assert await telephony.auto_create_is_off()
    async with livekit_that(page(404, "<html>nginx</html>")) as telephony:
        with pytest.raises(TelephonyUnavailable, match="404"):
            await telephony.auto_create_is_off()


async def test_a_trunk_that_is_refused_says_why_without_numbers() -> None:
    """One line for the operator."""
    async with livekit_that(says(400, {"code": "invalid_argument", "msg": "bad +12125550100"})) as telephony:
        with pytest.raises(TelephonyUnavailable, match="invalid_argument, HTTP 400: bad #"):
            await telephony.ensure_trunk(TRUNK)
