"""Twirp over aiohttp: requests and answers as protobuf or JSON, errors as JSON, and the token's grants.

Source: Twirp wire protocol v7 (twitchtv.github.io/twirp); livekit-server pkg/service/auth.go.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jwt
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from livekit import api
from livekit.api.access_token import Claims

from rehearsal.sip_outcomes import TWIRP_HTTP_STATUS

M = TypeVar("M", bound=Message)


class TwirpError(Exception):
    """An error as it goes to the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"code": code, "msg": message}

    def response(self) -> web.Response:
        """The error as an HTTP answer."""
        return web.json_response(self.body, status=TWIRP_HTTP_STATUS[self.body["code"]])


async def read(request: web.Request, kind: type[M]) -> M:
    """The request's message. Raises: TwirpError `malformed`."""
    message, body = kind(), await request.read()
    try:
        if request.content_type == "application/json":
            json_format.Parse(body, message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except (DecodeError, json_format.ParseError) as error:
        raise TwirpError("malformed", "the request body could not be decoded") from error
    return message


def answer(request: web.Request, message: Message) -> web.Response:
    """The answer in the format of the request."""
    if request.content_type == "application/json":
        text = json_format.MessageToJson(message, preserving_proto_field_name=True)
        return web.Response(text=text, content_type="application/json")
    return web.Response(body=message.SerializeToString(), content_type="application/protobuf")


def claims(request: web.Request, verifier: api.TokenVerifier) -> Claims:
    """The claims of the request's token. Raises: TwirpError `unauthenticated` for none, a bad or a stale one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        raise TwirpError("unauthenticated", "permissions denied")
    try:
        return verifier.verify(token)
    except jwt.InvalidTokenError as error:
        raise TwirpError("unauthenticated", "invalid token") from error


def grants(request: web.Request, verifier: api.TokenVerifier) -> api.SIPGrants:
    """The SIP grants of the request's token. Raises: TwirpError `unauthenticated` as `claims`."""
    return claims(request, verifier).sip or api.SIPGrants()


def may_record(request: web.Request, verifier: api.TokenVerifier) -> bool:
    """Tell whether the request's token has the grant of recording. Raises: TwirpError `unauthenticated` as `claims`."""
    video = claims(request, verifier).video
    return bool(video and video.room_record)


def is_room_admin(request: web.Request, verifier: api.TokenVerifier, room: str) -> bool:
    """Tell whether the request's token may administrate a room. Raises: TwirpError `unauthenticated` as `claims`."""
    video = claims(request, verifier).video
    return bool(video and video.room_admin and video.room == room)
