"""A stand-in for Twilio's token API: TURN credentials for whoever knows the account's SID and token.

    TWILIO_ACCOUNT_SID=AC… TWILIO_AUTH_TOKEN=… python -m rehearsal.twilio_tokens --port 8095 --turn HOST

It answers with the entries that Twilio answers with: STUN, TURN over UDP, over TCP, and over TCP to port 443. With the
key of a livekit-server (`LIVEKIT_API_KEY`, `LIVEKIT_API_SECRET`) the credentials are good for that server's own relay;
without, they are good for nothing. Place of faults: `twilio.tokens`.
Source: Twilio's Network Traversal Service; livekit-server 1.13.5 pkg/service/turn.go (`CreateUsername`, `CreatePassword`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import time
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from rehearsal import faults, serving

TTL_DEFAULT_S: Final = 86_400
REMEMBERED_MAX: Final = 1_000
_BASE62: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class TurnServer:
    """Where the relay is, and whose credentials it takes (a livekit-server's key and secret; empty: nobody's)."""

    host: str
    udp_port: int = 3478
    tcp_port: int = 443
    api_key: str = ""
    api_secret: str = ""

    def credentials(self, ttl_s: int) -> tuple[str, str]:
        """Make a username and its password, good for so long."""
        holder, until = f"PA_{secrets.token_hex(6)}", int(time.time()) + ttl_s
        username = base62(f"{self.api_key or 'nobody'}|{holder}|{until}".encode())
        secret = self.api_secret or secrets.token_hex(16)
        return username, base62(hashlib.sha256(f"{secret}|{holder}|{until}".encode()).digest())


class Tokens:
    """The API of one account."""

    def __init__(self, account_sid: str, auth_token: str, relay: TurnServer, script: faults.Script) -> None:
        self._sid, self._auth, self._script = account_sid, auth_token, script
        self.relay = relay
        """Whose credentials are given from now on."""
        self.ttls: deque[int] = deque(maxlen=REMEMBERED_MAX)
        """What was asked for, one a token."""
        self.given: deque[str] = deque(maxlen=REMEMBERED_MAX)
        """Passwords."""

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[faults.middleware(self._script, lambda _: "twilio.tokens")])
        app.add_routes([web.post("/2010-04-01/Accounts/{sid}/Tokens.json", self._token)])
        return app

    async def _token(self, request: web.Request) -> web.Response:
        if not self._knows(request.headers.get("Authorization", ""), request.match_info["sid"]):
            return _error(401, 20003, "Authenticate")
        form = await request.post()
        text = str(form.get("Ttl", TTL_DEFAULT_S))
        if not text.isdecimal() or not int(text):
            return _error(400, 20001, "Ttl must be a positive integer")
        self.ttls.append(int(text))
        return web.json_response(self._answer(int(text)), status=201)

    def _knows(self, authorization: str, sid: str) -> bool:
        return sid == self._sid and secrets.compare_digest(authorization, aiohttp.encode_basic_auth(sid, self._auth))

    def _answer(self, ttl_s: int) -> dict[str, Any]:
        username, password = self.relay.credentials(ttl_s)
        self.given.append(password)
        host, udp, tcp = self.relay.host, self.relay.udp_port, self.relay.tcp_port
        stun = f"stun:{host}:{udp}"
        relays = (
            f"turn:{host}:{udp}?transport=udp",
            f"turn:{host}:{udp}?transport=tcp",
            f"turn:{host}:{tcp}?transport=tcp",
        )
        entries = [{"url": url, "urls": url, "username": username, "credential": password} for url in relays]
        now = formatdate(usegmt=True)
        return {
            "username": username,
            "password": password,
            "account_sid": self._sid,
            "ttl": str(ttl_s),
            "date_created": now,
            "date_updated": now,
            "ice_servers": [{"url": stun, "urls": stun}, *entries],
        }


def base62(data: bytes) -> str:
    """Write bytes as github.com/jxskiss/base62 does, 6 bits a digit from the end, 5 where 6 would be too large."""
    mask, compact = 0x1F, 0x1E
    digits: list[str] = []
    value, bits = int.from_bytes(data, "big"), len(data) * 8
    while bits > 0:
        piece, took = value & 0x3F, 6
        if piece & compact == compact:
            if bits > 6 or piece > mask:
                took = 5
            piece &= mask
        digits.append(_BASE62[piece])
        value, bits = value >> took, bits - took
    return "".join(digits)


def _error(status: int, code: int, message: str) -> web.Response:
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return web.json_response(body, status=status)


def main() -> None:
    """Serve until a signal."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--port", type=int, default=8095)
    asked.add_argument("--turn", default="127.0.0.1", help="the relay's host")
    asked.add_argument("--faults", type=Path, help="a script of faults (rehearsal/faults.py)")
    given = asked.parse_args()
    env = os.environ
    relay = TurnServer(given.turn, api_key=env.get("LIVEKIT_API_KEY", ""), api_secret=env.get("LIVEKIT_API_SECRET", ""))
    script = faults.script_from(given.faults)
    tokens = Tokens(env["TWILIO_ACCOUNT_SID"], env["TWILIO_AUTH_TOKEN"], relay, script)
    serving.run(tokens.app(), given.port, "twilio_tokens")


if __name__ == "__main__":
    main()
