"""The LiveKit adapter of the telephony port, on livekit-api: one attempt a request, each under its own time limit.

1. `dial` builds everything before its first await; nothing stands between the caller's gate and the request.
2. Dials have connections of their own, a new one each: one that cannot be made is known as `not_sent`, and a kept
   connection that died unnoticed cannot make a dial unclear.
3. The SDK's own limits are not relied on (it has none, and a second attempt elsewhere is switched off).
Source: design §5; reference/livekit.md §4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Final, TypeVar

import aiohttp
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from livekit.api import AccessToken, LiveKitAPI, VideoGrants
from livekit.api.sip_service import SipService
from livekit.api.twirp_client import ServerError
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import CreateRoomRequest, DeleteRoomRequest, ListParticipantsRequest
from livekit.protocol.sip import (
    CreateSIPOutboundTrunkRequest,
    CreateSIPParticipantRequest,
    ListSIPOutboundTrunkRequest,
    SIPHeaderOptions,
    SIPMediaEncryption,
    SIPOutboundTrunkInfo,
    SIPTransport,
)

from dialer.livekit_answers import (
    MALFORMED,
    NOT_FOUND,
    NOT_SENT,
    TIMEOUT,
    TRANSPORT,
    Failure,
    dial_answer,
    failure_of,
    leg_of,
)
from dialer.telephony import (
    DIAL_MARGIN_S,
    ROOM_TIMEOUT_S,
    Deletion,
    DialAnswer,
    DialRequest,
    Leg,
    RoomAnswer,
    RoomRequest,
    TelephonyUnavailable,
    Trunk,
)
from runtime.clock import Clock
from runtime.metrics import LIVEKIT_SECONDS
from schemas.steps import Step
from schemas.values import scrub

ATTEMPT_HEADER: Final = "X-Dial-Attempt-Id"
CONNECT_TIMEOUT_S: Final = 2.0
"""How long a dial may take to reach LiveKit's door: what the gate saw must not grow old on the way."""
CONNECTIONS_MAX: Final = 100
"""Kept connections for everything but dials (those are bounded by `DIALER_DIALS_MAX`)."""
_TRANSPORTS: Final = {
    "auto": SIPTransport.SIP_TRANSPORT_AUTO,
    "udp": SIPTransport.SIP_TRANSPORT_UDP,
    "tcp": SIPTransport.SIP_TRANSPORT_TCP,
    "tls": SIPTransport.SIP_TRANSPORT_TLS,
}
_ENCRYPTIONS: Final = {
    "disable": SIPMediaEncryption.SIP_MEDIA_ENCRYPT_DISABLE,
    "allow": SIPMediaEncryption.SIP_MEDIA_ENCRYPT_ALLOW,
    "require": SIPMediaEncryption.SIP_MEDIA_ENCRYPT_REQUIRE,
}

T = TypeVar("T")


class _Line:
    """One dial's way to LiveKit: whether its connection stands, and the limit that grows once it does."""

    __slots__ = ("_clock", "answer_timeout_s", "connected", "limit")

    def __init__(self, limit: asyncio.Timeout, answer_timeout_s: float, clock: Clock) -> None:
        self.limit, self.answer_timeout_s, self._clock = limit, answer_timeout_s, clock
        self.connected = False

    def sent(self) -> None:
        """Pass the point behind which the request has left this process."""
        self._clock.passing(Step.DIAL_SENT)

    def made(self) -> None:
        """Note that from here on the request may have left, and give the answer its time."""
        self.connected = True
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + self.answer_timeout_s)


_LINE: ContextVar[_Line] = ContextVar("dial_line")


async def _connection_made(_: aiohttp.ClientSession, __: SimpleNamespace, ___: object) -> None:
    _LINE.get().made()


async def _request_sent(_: aiohttp.ClientSession, __: SimpleNamespace, ___: object) -> None:
    # aiohttp tells of a chunk before it writes it, in one go: the loop's next round is after that
    asyncio.get_running_loop().call_soon(_LINE.get().sent)


def _dial_session() -> aiohttp.ClientSession:
    """Return the session of dials: a new connection each, no queue for one, and word of when it stands."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_connection_made)
    trace.on_connection_reuseconn.append(_connection_made)
    trace.on_request_chunk_sent.append(_request_sent)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, trace_configs=[trace])


class LiveKitTelephony:
    """`dialer.telephony.Telephony` on a LiveKit server; made inside a running loop, closed by `close`."""

    def __init__(self, api_url: str, key: str, secret: str, clock: Clock) -> None:
        self._url = api_url.replace("ws", "http", 1).rstrip("/") if api_url.startswith("ws") else api_url.rstrip("/")
        self._key, self._secret, self._clock = key, secret, clock
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX))
        self._dial_session = _dial_session()
        self._api = LiveKitAPI(self._url, key, secret, session=self._session, failover=False)
        self._dials = SipService(self._dial_session, self._url, key, secret, failover=False)

    async def create_room(self, request: RoomRequest) -> RoomAnswer:
        """Make the room with its dispatch; the same name again answers the same room and dispatches nobody."""
        dispatch = RoomAgentDispatch(agent_name=request.agent_name, metadata=request.agent_metadata)
        create = CreateRoomRequest(
            name=request.name,
            empty_timeout=request.empty_timeout_s,
            departure_timeout=request.departure_timeout_s,
            metadata=request.room_metadata,
            agents=[dispatch],
        )
        room = await self._ask("create_room", self._api.room.create_room(create))
        if isinstance(room, Failure):
            return RoomAnswer(ok=False, code=room.code)
        return RoomAnswer(ok=True, sid=room.sid)

    async def dial(self, request: DialRequest) -> DialAnswer:
        """Send one INVITE and wait for its answer: the only function that can ring a phone."""
        participant = _participant(request)
        answer_timeout_s = request.ring_timeout_s + DIAL_MARGIN_S
        started, failure = self._clock.monotonic(), None
        # The outer limit counts: the SDK's is set above it, so that only one of the two ever speaks.
        sending = self._dials.create_sip_participant(participant, timeout=answer_timeout_s + CONNECT_TIMEOUT_S)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S) as limit:
                line = _Line(limit, answer_timeout_s, self._clock)
                _LINE.set(line)
                failure = await _attempted(sending)
        except TimeoutError:
            failure = Failure(code=TIMEOUT)
        if isinstance(failure, Failure) and not line.connected:
            failure = Failure(code=NOT_SENT)
        answer = dial_answer(failure) if isinstance(failure, Failure) else DialAnswer(result="answered")
        self._observe("dial", answer.code or answer.result, started)
        return answer

    async def delete_room(self, name: str) -> Deletion:
        """Take the room down: hang-up, and fence."""
        deleted = await self._ask("delete_room", self._api.room.delete_room(DeleteRoomRequest(room=name)))
        if not isinstance(deleted, Failure):
            return "deleted"
        return "not_found" if deleted.code == NOT_FOUND else "failed"

    async def legs(self, name: str) -> tuple[Leg, ...] | None:
        """List who is in the room; None where LiveKit cannot say."""
        listing = self._api.room.list_participants(ListParticipantsRequest(room=name))
        listed = await self._ask("list_participants", listing)
        return None if isinstance(listed, Failure) else tuple(leg_of(p) for p in listed.participants)

    async def ensure_trunk(self, trunk: Trunk) -> str:
        """Make or update the trunk of that name and return its id. Raises: TelephonyUnavailable."""
        sip, info = self._api.sip, _trunk_info(trunk)
        listed = _granted(await self._ask("list_trunks", sip.list_outbound_trunk(ListSIPOutboundTrunkRequest())))
        known = sorted(t.sip_trunk_id for t in listed.items if t.name == trunk.name)
        if known:
            changed = await self._ask("update_trunk", sip.update_outbound_trunk(known[0], info))
            return _granted(changed).sip_trunk_id
        creating = sip.create_outbound_trunk(CreateSIPOutboundTrunkRequest(trunk=info))
        return _granted(await self._ask("create_trunk", creating)).sip_trunk_id

    async def auto_create_is_off(self) -> bool:
        """Probe that a room nobody made cannot be joined. Raises: TelephonyUnavailable.

        `/rtc/validate` answers as a join would and makes nothing: 404 "requested room does not exist" where
        `room.auto_create` is false, 200 where it is true (tried on livekit-server 1.13.5).
        """
        room = f"probe-{self._clock.random_bytes(8).hex()}"
        grants = VideoGrants(room_join=True, room=room)
        token = AccessToken(self._key, self._secret).with_identity("probe").with_grants(grants).to_jwt()
        status, text = _granted(await self._ask("validate", self._validate(token)))
        if status == 200:
            return False
        if status == 404 and "room" in text:
            return True
        raise TelephonyUnavailable(f"LiveKit answered {status} to the probe of room.auto_create")

    async def close(self) -> None:
        """Let go of the connections; a dial that is in flight becomes unclear."""
        await self._session.close()
        await self._dial_session.close()

    async def _validate(self, token: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.get(f"{self._url}/rtc/validate", headers=headers) as answer:
            return answer.status, await answer.text(errors="replace")

    async def _ask(self, method: str, sending: Awaitable[T]) -> T | Failure:
        """Send one request under `ROOM_TIMEOUT_S` and measure it."""
        started = self._clock.monotonic()
        answer: T | Failure
        try:
            async with asyncio.timeout(ROOM_TIMEOUT_S):
                answer = await _attempted(sending)
        except TimeoutError:
            answer = Failure(code=TIMEOUT)
        self._observe(method, answer.code if isinstance(answer, Failure) else "ok", started)
        return answer

    def _observe(self, method: str, result: str, started: float) -> None:
        LIVEKIT_SECONDS.labels(method, result).observe(self._clock.monotonic() - started)


async def _attempted(sending: Awaitable[T]) -> T | Failure:
    """Await a request of the SDK and turn every outside failure into a value. Raises: TimeoutError."""
    try:
        return await sending
    except ServerError as error:
        return failure_of(error)
    except TimeoutError:  # aiohttp's ServerTimeoutError is one, and a ClientError too
        raise
    except aiohttp.ClientError:
        return Failure(code=TRANSPORT)
    except DecodeError:
        return Failure(code=MALFORMED)
    except AttributeError:
        # livekit-api reads every error body as a JSON object; a list or a string from a proxy ends here.
        return Failure(code=MALFORMED)


def _granted(answer: T | Failure) -> T:
    """Return the answer. Raises: TelephonyUnavailable with the code and LiveKit's words, scrubbed."""
    if isinstance(answer, Failure):
        http = f", HTTP {answer.http_status}" if answer.http_status is not None else ""
        raise TelephonyUnavailable(f"{answer.code}{http}: {scrub(answer.message)}".rstrip(": "))
    return answer


def _participant(request: DialRequest) -> CreateSIPParticipantRequest:
    return CreateSIPParticipantRequest(
        sip_trunk_id=request.trunk_id,
        sip_call_to=request.to,
        sip_number=request.caller_id,
        room_name=request.room,
        participant_identity=request.identity,
        participant_name="",
        hide_phone_number=True,
        headers={ATTEMPT_HEADER: request.attempt_id},
        include_headers=SIPHeaderOptions.SIP_NO_HEADERS,
        ringing_timeout=Duration(seconds=request.ring_timeout_s),
        max_call_duration=Duration(seconds=request.max_call_duration_s),
        wait_until_answered=True,
    )


def _trunk_info(trunk: Trunk) -> SIPOutboundTrunkInfo:
    return SIPOutboundTrunkInfo(
        name=trunk.name,
        address=trunk.address,
        numbers=list(trunk.numbers),
        transport=_TRANSPORTS[trunk.transport],
        media_encryption=_ENCRYPTIONS[trunk.media_encryption],
        auth_username=trunk.auth_username,
        auth_password=trunk.auth_password,
    )
