"""Relay-only transport: where `DIALER_ICE_TRANSPORT=relay`, sound goes through TURN or nowhere.

Credentials come from Twilio's token API and are kept in the secret store for as long as they are good for a whole call:
there is no refresh in mid-call, a call whose credentials run out is cut off. Nothing is tried without them: a room that
cannot be joined through the relay is not joined, and since readiness is said after the join, nobody is rung.
Source: reference/livekit.md §6; RFC 7065 (TURN URIs), RFC 8656.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from livekit import rtc

from agent.twilio import IceEntry, Token, TurnFailed, new_token
from runtime.clock import Clock
from runtime.logs import Log
from runtime.secrets import Kept, SecretStore, StoreFailed, store_of
from runtime.settings import Secret, Settings
from schemas.brief import Brief

RELAY: Final = "relay"
TCP_443: Final = "tcp443"
TTL_S: Final = 24 * 3600
"""Asked for, unless a call may last longer."""
MARGIN_S: Final = 600
"""Joining, waiting for the trunk's turn (330 s at most) and for a late answer (60 s), hanging up."""
_TURN_URL: Final = re.compile(
    r"(?P<scheme>turns?):(?P<host>\[[0-9a-f:.]+\]|[^\s:?/@\[\]]+)(:(?P<port>[0-9]{1,5}))?(\?transport=(?P<transport>[a-z]+))?",
    re.IGNORECASE,
)
_DEFAULTS: Final = {"turn": ("3478", "udp"), "turns": ("5349", "tcp")}

log = Log("agent.turn")


class Relay:
    """One job's way to its relay."""

    def __init__(self, settings: Settings, clock: Clock, store: SecretStore) -> None:
        self._settings, self._clock, self._store = settings, clock, store
        self._used: Kept | None = None

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Relay | None:
        """Return it where a relay is wanted; None where sound may go directly."""
        return cls(settings, clock, store_of(settings)) if settings.ice_transport == RELAY else None

    @property
    def _name(self) -> str:
        account = re.sub(r"[^a-z0-9]", "", self._settings.twilio_account_sid.lower())[:40]
        return f"twilio-turn-{account}"

    async def configuration(self, brief: Brief) -> rtc.RtcConfiguration:
        """Return how the room is joined: relay only, with credentials that outlast the call. Raises: TurnFailed."""
        needed_s = MARGIN_S + brief.ring_timeout_s + brief.max_call_duration_s
        kept = await self._kept(until=self._clock.now() + timedelta(seconds=needed_s))
        if kept is None:
            kept = await self._new(needed_s)
        self._used = kept
        return relay_only(_entries(kept), tcp_443_only=self._settings.turn_urls == TCP_443)

    async def distrust(self) -> None:
        """Forget the credentials that did not lead into a room, unless another job has put others in their place."""
        if self._used is None:
            return
        now = self._clock.now()
        try:
            kept = await self._store.get(self._name, now)
            if kept is not None and kept.value.reveal() == self._used.value.reveal():
                await self._store.put(self._name, Kept(value=Secret(""), expires_at=now))
        except StoreFailed as failure:
            log.warning("the secret store is away", code=failure.code)

    async def _kept(self, until: datetime) -> Kept | None:
        try:
            kept = await self._store.get(self._name, until)
        except StoreFailed as failure:
            log.warning("the secret store is away", code=failure.code)
            return None
        return kept if kept is not None and _entries(kept) else None

    async def _new(self, needed_s: int) -> Kept:
        asked_at = self._clock.now()
        token = await new_token(self._settings, max(TTL_S, needed_s))
        if token.ttl_s < needed_s:
            raise TurnFailed("short_lived")
        kept = _kept_of(token, asked_at)
        try:
            await self._store.put(self._name, kept)
        except StoreFailed as failure:
            log.warning("the secret store is away", code=failure.code)
        return kept


def relay_only(entries: tuple[IceEntry, ...], *, tcp_443_only: bool) -> rtc.RtcConfiguration:
    """Return libwebrtc's configuration of these relays. Raises: TurnFailed where none is left.

    An empty list must never get through: with one, the client takes the server's own relays instead.
    """
    servers = []
    for entry in entries:
        urls = [url for url in entry.urls if may_use(url, tcp_443_only=tcp_443_only)]
        if urls and entry.username and entry.credential:
            servers.append(rtc.IceServer(urls=urls, username=entry.username, password=entry.credential))
    if not servers:
        raise TurnFailed("no_url_left")
    return rtc.RtcConfiguration(ice_transport_type=rtc.IceTransportType.TRANSPORT_RELAY, ice_servers=servers)


def may_use(url: str, *, tcp_443_only: bool) -> bool:
    """Tell whether a URL is a relay's, and where so wanted one that is reached over TCP at port 443."""
    found = _TURN_URL.fullmatch(url)
    if found is None:
        return False
    port, transport = _DEFAULTS[found["scheme"].lower()]
    at = (found["port"] or port, (found["transport"] or transport).lower())
    return at == ("443", "tcp") or not tcp_443_only


def _kept_of(token: Token, asked_at: datetime) -> Kept:
    value = orjson.dumps([asdict(entry) for entry in token.entries]).decode()
    return Kept(value=Secret(value), expires_at=asked_at + timedelta(seconds=token.ttl_s))


def _entries(kept: Kept) -> tuple[IceEntry, ...]:
    """Read what was kept; nothing where another version wrote something else."""
    try:
        rows: list[dict[str, Any]] = orjson.loads(kept.value.reveal())
        return tuple(IceEntry(tuple(row["urls"]), row["username"], row["credential"]) for row in rows)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ()
