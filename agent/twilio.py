"""TURN credentials from Twilio's token API: one request, tried again once where that may help.

Source: Twilio's Network Traversal Service, `POST /2010-04-01/Accounts/{sid}/Tokens.json` (form field `Ttl`, HTTP Basic
by account SID and auth token; 201 with `ttl`, and `ice_servers` of `url`, `urls`, `username`, `credential`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from runtime.settings import Settings

TRY_TIMEOUT_S: Final = 4.0
TRIES: Final = 2
PAUSE_S: Final = 0.5
ANSWER_BYTES_MAX: Final = 64 * 1024
ENTRIES_MAX: Final = 32
_CREATED: Final = 201
_DENIED: Final = frozenset({401, 403})
_TOO_MANY: Final = 429


class TurnFailed(Exception):
    """There is no relay to talk through: `code` is a closed word without an address or a credential in it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Passing(Exception):
    """What another try may mend; the argument is the code."""


@dataclass(frozen=True, slots=True)
class IceEntry:
    """One entry of an answer: addresses, and what to say to them."""

    urls: tuple[str, ...]
    username: str
    credential: str

    def __repr__(self) -> str:
        return f"IceEntry({len(self.urls)} urls)"


@dataclass(frozen=True, slots=True)
class Token:
    """What Twilio gave, and for how long it is good."""

    entries: tuple[IceEntry, ...]
    ttl_s: int


async def new_token(settings: Settings, ttl_s: int) -> Token:
    """Ask for credentials that are good for so long. Raises: TurnFailed."""
    sid = settings.twilio_account_sid
    url = f"{settings.twilio_url.rstrip('/')}/2010-04-01/Accounts/{sid}/Tokens.json"
    headers = {"Authorization": aiohttp.encode_basic_auth(sid, settings.twilio_auth_token.reveal())}
    timeout = aiohttp.ClientTimeout(total=TRY_TIMEOUT_S)
    code = ""
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=True) as http:
        for number in range(TRIES):
            if number:
                await asyncio.sleep(PAUSE_S)
            try:
                return token_of(await _post(http, url, ttl_s))
            except TimeoutError:
                code = "timeout"
            except aiohttp.ClientError:
                code = "unreachable"
            except _Passing as failure:
                code = str(failure)
    raise TurnFailed(code)


async def _post(http: aiohttp.ClientSession, url: str, ttl_s: int) -> bytes:
    async with http.post(url, data={"Ttl": str(ttl_s)}, allow_redirects=False) as answer:
        if answer.status in _DENIED:
            raise TurnFailed("denied")
        if answer.status == _TOO_MANY or answer.status >= 500:
            raise _Passing("unavailable")
        if answer.status != _CREATED:
            raise TurnFailed("refused")
        body = await answer.content.read(ANSWER_BYTES_MAX + 1)
        while len(body) <= ANSWER_BYTES_MAX and (more := await answer.content.read(ANSWER_BYTES_MAX)):
            body += more
        if len(body) > ANSWER_BYTES_MAX:
            raise TurnFailed("garbage")
        return body


def token_of(body: bytes) -> Token:
    """Read an answer. Raises: TurnFailed."""
    try:
        document: Any = orjson.loads(body)
        return Token(entries=tuple(_entries(document["ice_servers"])), ttl_s=int(document["ttl"]))
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise TurnFailed("garbage") from None


def _entries(rows: list[dict[str, Any]]) -> Iterator[IceEntry]:
    for row in rows[:ENTRIES_MAX]:
        urls = row.get("urls") or row["url"]
        listed = [urls] if isinstance(urls, str) else list(urls)
        # What a browser calls `credential` libwebrtc calls a password. An entry for STUN has neither.
        yield IceEntry(tuple(map(str, listed)), str(row.get("username", "")), str(row.get("credential", "")))
