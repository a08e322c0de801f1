"""A participant without media: LiveKit's signal connection alone, so that two cores hold hundreds of calls at once.

It joins, is seen with its attributes, sees the others, and leaves or is thrown out, exactly as any client is by
livekit-server; no PeerConnection is made, so it stays in the state `JOINED` and no `participant_joined` webhook is sent.
Source: livekit-server v1.13.5 pkg/service/rtcservice.go, pkg/rtc/room.go; livekit/protocol livekit_rtc.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode

import aiohttp
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

PROTOCOL: Final = 2
"""The last protocol in which the server does not offer a PeerConnection by itself (`SubscriberAsPrimary` from 3 on)."""
PING_EVERY_S: Final = 5.0
JOIN_TIMEOUT_S: Final = 10.0
MESSAGE_BYTES_MAX: Final = 4 * 2**20

LIFE_MAX_S: Final = 60.0
"""livekit-server throws out who has no PeerConnection by then (JOIN_TIMEOUT): calls held this way must be shorter."""
UNKNOWN_REASON: Final = int(models.DisconnectReason.UNKNOWN_REASON)
CLIENT_INITIATED: Final = int(models.DisconnectReason.CLIENT_INITIATED)
_LEFT: Final = models.ParticipantInfo.State.DISCONNECTED

Changed = Callable[[models.ParticipantInfo], None]
"""Told of every other participant that came or whose attributes changed."""
Gone = Callable[[models.ParticipantInfo], None]
Closed = Callable[[int], None]


class JoinRefusedError(Exception):
    """The server does not let us in: no such room, or it cannot be reached."""


class SignalledRoom:
    """One participant's signal connection; handlers are called in the event loop and must not wait."""

    def __init__(self, http: aiohttp.ClientSession, changed: Changed, gone: Gone, closed: Closed) -> None:
        self._http, self._changed, self._gone, self._closed = http, changed, gone, closed
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._following: asyncio.Task[None] | None = None
        self._over = False
        self.sid = ""

    @property
    def connected(self) -> bool:
        """Tell whether we are in the room."""
        return self._socket is not None and not self._over

    async def join(self, url: str, token: str) -> None:
        """Join with a token; who is there already is told at once. Raises: JoinRefusedError."""
        asked = urlencode({"access_token": token, "protocol": PROTOCOL, "auto_subscribe": 0, "sdk": "python"})
        base = url.replace("http", "ws", 1) if url.startswith("http") else url
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                self._socket = await self._http.ws_connect(
                    f"{base.rstrip('/')}/rtc?{asked}", max_msg_size=MESSAGE_BYTES_MAX
                )
                first = await self._receive()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self._close()
            raise JoinRefusedError(type(error).__name__) from None
        if first is None or not first.HasField("join"):
            await self._close()
            raise JoinRefusedError("no join response")
        self.sid = first.join.participant.sid
        # Of who publishes nothing others hear only every 3 s (room.go, subscriberUpdateInterval): a data track needs no media.
        announced = rtc.SignalRequest()
        announced.publish_data_track_request.pub_handle = 1
        announced.publish_data_track_request.name = "signalling"
        await self._send(announced)
        for other in first.join.other_participants:
            self._changed(other)
        self._following = asyncio.create_task(self._follow(), name="signal")

    async def set_attributes(self, attributes: Mapping[str, str]) -> None:
        """Change our own attributes."""
        request = rtc.SignalRequest()
        request.update_metadata.attributes.update(attributes)
        await self._send(request)

    async def leave(self, reason: int = CLIENT_INITIATED) -> None:
        """Leave the room, with a reason that the others are told where livekit-server passes it on."""
        if self._over:
            return
        self._over = True
        request = rtc.SignalRequest()
        request.leave.reason = reason  # type: ignore[assignment]
        await self._send(request)
        await self._close()
        if self._following is not None and self._following is not asyncio.current_task():
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        pinging = asyncio.create_task(self._ping(), name="ping")
        reason = UNKNOWN_REASON
        try:
            while (response := await self._receive()) is not None:
                if response.HasField("update"):
                    self._tell(response.update)
                elif response.HasField("leave"):
                    reason = response.leave.reason
                    break
        finally:
            pinging.cancel()
        if not self._over:
            self._over = True
            await self._close()
            self._closed(reason)

    def _tell(self, update: rtc.ParticipantUpdate) -> None:
        for participant in update.participants:
            if participant.sid == self.sid:
                continue
            tell = self._gone if participant.state == _LEFT else self._changed
            tell(participant)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            request = rtc.SignalRequest()
            request.ping_req.timestamp = int(time.time() * 1000)
            await self._send(request)

    async def _receive(self) -> rtc.SignalResponse | None:
        """Return the next message; None at the end of the connection."""
        assert self._socket is not None
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                response = rtc.SignalResponse()
                with contextlib.suppress(DecodeError):
                    response.ParseFromString(message.data)
                    return response
            elif message.type is not aiohttp.WSMsgType.TEXT:
                return None

    async def _send(self, request: rtc.SignalRequest) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await self._socket.send_bytes(request.SerializeToString())

    async def _close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(JOIN_TIMEOUT_S):
                    await self._socket.close()
