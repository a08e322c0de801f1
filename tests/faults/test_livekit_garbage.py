"""LiveKit down, slow, or answering garbage, over real sockets: every request ends in time, and claims only what is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from aiohttp import web

import dialer.livekit
from dialer.livekit import LiveKitTelephony
from dialer.telephony import DialAnswer, RoomAnswer, RoomRequest, TelephonyUnavailable
from rehearsal.ports import free_port
from runtime.clock import SystemClock
from tests.shell.test_livekit import REQUEST, TRUNK, Handler, hang_up, keep_silent, livekit_that, page, says

ROOM: Final = RoomRequest(
    name="call-x-1",
    agent_name="a",
    agent_metadata="m",
    room_metadata="{}",
    empty_timeout_s=300,
    departure_timeout_s=20,
)
TIMEOUT_S: Final = 0.5
BOUND_S: Final = 3.0


async def trickle(request: web.Request) -> web.StreamResponse:
    """Send a byte now and then, for ever."""
    answer = web.StreamResponse(headers={"content-type": "application/protobuf", "content-length": "1000000"})
    await answer.prepare(request)
    while True:
        await answer.write(b"\x0a")
        await asyncio.sleep(0.05)


def raw(status: int, body: bytes, content_type: str = "application/protobuf") -> Handler:
    """Answer these bytes."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=content_type)

    return handler


GARBAGE: Final[dict[str, Handler]] = {
    "a page, 200": page(200, "<html>welcome</html>"),
    "a page, 502": page(502, "<html>bad gateway</html>"),
    "half a message": raw(200, b"\x0a\xff\xff"),
    "bytes": raw(200, bytes(range(256))),
    "a list, 500": says(500, ["what"]),
    "a word, 503": says(503, "no"),
    "not JSON, 500": raw(500, b"{", "application/json"),
    "another code": says(418, {"code": 7, "msg": None}),
    "rate limited": says(429, {"code": "resource_exhausted", "msg": "slow down"}),
    "refused": says(401, {"code": "unauthenticated", "msg": "who"}),
    "a cut line": hang_up,
    "silence": keep_silent,
    "a trickle": trickle,
}


async def raises_unavailable(asked: Awaitable[object]) -> bool:
    try:
        await asked
    except TelephonyUnavailable:
        return True
    return False


@pytest.mark.parametrize("how", GARBAGE)
async def test_garbage_claims_nothing(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room stands, none is gone, nobody is known to have been absent, and a dial may have rung."""
    monkeypatch.setattr(dialer.livekit, "ROOM_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(dialer.livekit, "DIAL_MARGIN_S", TIMEOUT_S - REQUEST.ring_timeout_s)
    async with livekit_that(GARBAGE[how]) as telephony, asyncio.timeout(5 * BOUND_S):
        room = await telephony.create_room(ROOM)
        assert (room.ok, room.sid) == (False, "")
        assert await telephony.delete_room("r") == "failed"
        assert await telephony.legs("r") is None
        assert await raises_unavailable(telephony.ensure_trunk(TRUNK))
        dialed = await telephony.dial(REQUEST)
        assert dialed.result in {"unclear", "failed"}
        if dialed.result == "failed":
            assert how in {"rate limited", "refused", "another code"}, "only LiveKit's own words say how it failed"
        assert dialed.code != "not_sent", "it was sent"


async def test_a_livekit_that_is_down_is_known_as_not_sent() -> None:
    """The one failure that proves that nobody was rung."""
    telephony = LiveKitTelephony(f"ws://127.0.0.1:{free_port()}", "key", "s" * 32, SystemClock())
    try:
        assert await telephony.dial(REQUEST) == DialAnswer(result="failed", code="not_sent")
        assert await telephony.create_room(ROOM) == RoomAnswer(ok=False, code="transport")
        assert await telephony.delete_room("r") == "failed"
        assert await telephony.legs("r") is None
    finally:
        await telephony.close()


@pytest.mark.parametrize("ask", [lambda t: t.delete_room("r"), lambda t: t.legs("r"), lambda t: t.create_room(ROOM)])
async def test_a_slow_livekit_holds_up_each_request_by_its_own_limit_only(
    ask: Callable[[LiveKitTelephony], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty at once take as long as one."""
    monkeypatch.setattr(dialer.livekit, "ROOM_TIMEOUT_S", TIMEOUT_S)
    async with livekit_that(keep_silent) as telephony, asyncio.timeout(BOUND_S):
        answers = await asyncio.gather(*(ask(telephony) for _ in range(50)))
    assert all(a in {"failed", None} or isinstance(a, RoomAnswer) for a in answers)
