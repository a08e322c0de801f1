"""Relay-only transport: which relays may be used, how long credentials are good for, and that nothing is tried without."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from livekit import rtc

from agent.turn import MARGIN_S, TTL_S, Relay, may_use, relay_only
from agent.twilio import IceEntry, TurnFailed, token_of
from rehearsal import faults, serving
from rehearsal.twilio_tokens import Tokens, TurnServer, base62
from rehearsal.vault import Vault as VaultStandIn
from runtime.clock import SystemClock
from runtime.secrets import FileStore, Kept, SecretStore, StoreFailed, VaultStore
from runtime.settings import Secret, Settings, read_settings
from runtime.vault import Vault
from schemas import values
from schemas.brief import Brief

SID, AUTH = "AC0123456789abcdef", "an-auth-token"
HOST = "global.turn.example.com"


class Clock(SystemClock):
    """The real one, put forward by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime(2026, 11, 27, 12, tzinfo=UTC) + self.ahead


@dataclass
class Bed:
    """A token API that counts, settings that point to it, and a store."""

    settings: Settings
    store: SecretStore
    tokens: Tokens
    clock: Clock = field(default_factory=Clock)

    def job(self, **changes: Any) -> Relay:
        """Return the relay of a new job: it knows nothing but what is in the store."""
        return Relay(replace(self.settings, **changes), self.clock, self.store)

    async def credentials(self, call: Brief, **changes: Any) -> tuple[str, str]:
        config = await self.job(**changes).configuration(call)
        return config.ice_servers[0].username, config.ice_servers[0].password


@asynccontextmanager
async def token_api(*rules: dict[str, Any]) -> AsyncIterator[tuple[Settings, Tokens]]:
    script = faults.Script(rules=tuple(faults.Rule.of({"at": "twilio.tokens"} | rule) for rule in rules))
    tokens = Tokens(SID, AUTH, TurnServer(HOST), script)
    runner, port = await serving.start(tokens.app(), 0)
    settings = read_settings(
        {
            "DIALER_ICE_TRANSPORT": "relay",
            "DIALER_TWILIO_URL": f"http://127.0.0.1:{port}",
            "TWILIO_ACCOUNT_SID": SID,
            "TWILIO_AUTH_TOKEN": AUTH,
        }
    )
    try:
        yield settings, tokens
    finally:
        await runner.cleanup()


@pytest.fixture(params=["file", "vault"])
async def bed(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Bed]:
    """On both stores."""
    async with token_api() as (settings, tokens):
        if request.param == "file":
            yield Bed(settings, FileStore(tmp_path / "secrets"), tokens)
            return
        runner, port = await serving.start(VaultStandIn("t", faults.Script()).app(), 0)
        yield Bed(settings, VaultStore(Vault(f"http://127.0.0.1:{port}", "t", "secret"), "p"), tokens)
        await runner.cleanup()


def brief(max_call_duration_s: int = 600, ring_timeout_s: int = 30) -> Brief:
    call = values.call_id(values.callee_key("+12125550123", b"p"), values.request_hash("rx", "1"))
    return Brief(
        call_id=call,
        attempt=1,
        campaign_id="rx",
        campaign_hash="h",
        type="one_way",
        language="en-US",
        message="Hello",
        callee_identity=values.callee_identity(call, 1),
        ring_timeout_s=ring_timeout_s,
        max_call_duration_s=max_call_duration_s,
        data_key_id="d",
        data_key="",
    )


@pytest.mark.parametrize(
    ("url", "tcp_443", "any_relay"),
    [
        ("turn:global.turn.twilio.com:443?transport=tcp", True, True),
        ("turns:global.turn.twilio.com:443?transport=tcp", True, True),
        ("turns:global.turn.twilio.com:443", True, True),  # TLS is over TCP unless it says UDP
        ("TURN:192.0.2.1:443?transport=TCP", True, True),
        ("turn:[2001:db8::1]:443?transport=tcp", True, True),
        ("turn:global.turn.twilio.com:443?transport=udp", False, True),
        ("turn:global.turn.twilio.com:443", False, True),  # UDP is what a bare URL means
        ("turn:global.turn.twilio.com:3478?transport=udp", False, True),
        ("turn:global.turn.twilio.com:3478?transport=tcp", False, True),
        ("turn:global.turn.twilio.com", False, True),
        ("turns:global.turn.twilio.com", False, True),  # port 5349
        ("turns:global.turn.twilio.com:443?transport=udp", False, True),  # DTLS
        ("turn:global.turn.twilio.com:4430?transport=tcp", False, True),
        ("stun:global.stun.twilio.com:3478", False, False),
        ("stuns:global.stun.twilio.com:443?transport=tcp", False, False),
        ("turn:", False, False),
        ("turn:host:443?transport=tcp&x=1", False, False),
        ("turn:user@host:443?transport=tcp", False, False),
        ("https://host:443", False, False),
        ("", False, False),
    ],
)
def test_a_url_is_used_by_scheme_port_and_transport(url: str, tcp_443: bool, any_relay: bool) -> None:
    """By RFC 7065's defaults, not by how it looks."""
    assert may_use(url, tcp_443_only=True) is tcp_443
    assert may_use(url, tcp_443_only=False) is any_relay


async def test_udp_entries_are_dropped_by_default(bed: Bed) -> None:
    """Of Twilio's four entries one is over TCP to port 443; the rest never reaches libwebrtc."""
    config = await bed.job().configuration(brief())
    assert config.ice_transport_type == rtc.IceTransportType.TRANSPORT_RELAY
    assert [server.urls for server in config.ice_servers] == [[f"turn:{HOST}:443?transport=tcp"]]


async def test_other_relays_are_used_where_they_are_allowed(bed: Bed) -> None:
    """`DIALER_TURN_URLS=any`: all of TURN, and STUN still not."""
    config = await bed.job(turn_urls="any").configuration(brief())
    assert [url for server in config.ice_servers for url in server.urls] == [
        f"turn:{HOST}:3478?transport=udp",
        f"turn:{HOST}:3478?transport=tcp",
        f"turn:{HOST}:443?transport=tcp",
    ]


async def test_the_credential_becomes_the_password(bed: Bed) -> None:
    """What Twilio calls `credential` is what libwebrtc calls a password; both are what the API made."""
    username, password = await bed.credentials(brief())
    kept = await bed.store.get(f"twilio-turn-{SID.lower()}", bed.clock.now())
    assert kept is not None
    entry = json.loads(kept.value.reveal())[1]
    assert (entry["username"], entry["credential"]) == (username, password)
    assert username != password


async def test_one_token_serves_all_calls_of_a_day(bed: Bed) -> None:
    """Until what is left of it would not outlast the call: then, and only then, another is asked for."""
    first = await bed.credentials(brief())
    needed = timedelta(seconds=MARGIN_S + 30 + 600)
    bed.clock.ahead = timedelta(seconds=TTL_S) - needed - timedelta(seconds=1)
    assert await bed.credentials(brief()) == first
    bed.clock.ahead += timedelta(seconds=1)
    second = await bed.credentials(brief())
    assert second != first
    assert await bed.credentials(brief()) == second
    assert list(bed.tokens.ttls) == [TTL_S, TTL_S]


async def test_a_longer_call_gets_credentials_that_outlast_it(bed: Bed) -> None:
    """A call of a day asks for more than a day, and a token that is too short for it is left for the others."""
    await bed.credentials(brief())
    await bed.credentials(brief(max_call_duration_s=86_400))
    assert list(bed.tokens.ttls) == [TTL_S, 86_400 + 30 + MARGIN_S]


async def test_a_token_that_does_not_outlast_the_call_is_refused(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account whose tokens are short-lived: better no call than one that is cut off."""
    answer = bed.tokens._answer
    monkeypatch.setattr(bed.tokens, "_answer", lambda ttl_s: answer(ttl_s) | {"ttl": "1229"})
    with pytest.raises(TurnFailed, match="short_lived"):
        await bed.job().configuration(brief())
    monkeypatch.setattr(bed.tokens, "_answer", lambda ttl_s: answer(ttl_s) | {"ttl": "1230"})
    assert await bed.job().configuration(brief())


async def test_credentials_that_led_nowhere_are_forgotten(bed: Bed) -> None:
    """Else one revoked token would fail every call of a day. Those of another job, put there since, stay."""
    job = bed.job()
    first = (await job.configuration(brief())).ice_servers[0].username
    await job.distrust()
    second, _ = await bed.credentials(brief())
    assert second != first
    await job.distrust()
    assert (await bed.credentials(brief()))[0] == second


async def test_a_job_without_credentials_forgets_nothing(bed: Bed) -> None:
    """It has nothing to distrust."""
    kept, _ = await bed.credentials(brief())
    await bed.job().distrust()
    assert (await bed.credentials(brief()))[0] == kept


@pytest.mark.parametrize("kept", ["", "[]", "{", '[{"urls": ["turn:x"]}]', '{"a": 1}', '["x"]'])
async def test_what_another_version_kept_is_asked_for_anew(bed: Bed, kept: str) -> None:
    """A cache is never a reason to fail."""
    name, until = f"twilio-turn-{SID.lower()}", bed.clock.now() + timedelta(days=2)
    await bed.store.put(name, Kept(value=Secret(kept), expires_at=until))
    assert await bed.credentials(brief())
    assert len(bed.tokens.ttls) == 1


@dataclass
class Away:
    """A store that is not there."""

    async def get(self, name: str, now: datetime) -> Kept | None:
        raise StoreFailed("unreachable")

    async def put(self, name: str, kept: Kept) -> None:
        raise StoreFailed("unreachable")


async def test_a_store_that_is_away_costs_a_request_and_no_call() -> None:
    """Each job asks Twilio itself then."""
    async with token_api() as (settings, tokens):
        bed = Bed(settings, Away(), tokens)
        assert await bed.credentials(brief()) != await bed.credentials(brief())
        job = bed.job()
        await job.configuration(brief())
        await job.distrust()
        assert len(tokens.ttls) == 3


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([{"fault": "fail", "status": 503, "nth": 1}], None),  # once is mended
        ([{"fault": "drop", "nth": 1}], None),
        ([{"fault": "lose_answer", "nth": 1}], None),
        ([{"fault": "fail", "status": 503, "nth": [1, 2]}], "unavailable"),
        ([{"fault": "fail", "status": 429, "nth": [1, 2]}], "unavailable"),
        ([{"fault": "drop", "nth": [1, 2]}], "unreachable"),
        ([{"fault": "fail", "status": 403, "nth": 1}], "denied"),  # another try mends none of these
        ([{"fault": "fail", "status": 400, "nth": 1}], "refused"),
    ],
)
async def test_a_token_api_that_fails_is_tried_again_once(
    rules: list[dict[str, Any]], code: str | None, tmp_path: Any
) -> None:
    """And then it is a closed word; nothing is put in its place."""
    async with token_api(*rules) as (settings, tokens):
        bed = Bed(settings, FileStore(tmp_path), tokens)
        if code is None:
            assert await bed.job().configuration(brief())
            return
        with pytest.raises(TurnFailed, match=rf"^{code}$"):
            await bed.job().configuration(brief())
        assert list(tmp_path.iterdir()) == []


async def test_a_token_api_that_hangs_is_left_in_bounded_time(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries of so long and the pause between them, not more."""
    monkeypatch.setattr("agent.twilio.TRY_TIMEOUT_S", 0.3)
    async with token_api({"fault": "delay", "delay_s": 20, "chance": 1.0}) as (settings, tokens):
        began = asyncio.get_running_loop().time()
        with pytest.raises(TurnFailed, match=r"^timeout$"):
            await Bed(settings, FileStore(tmp_path), tokens).job().configuration(brief())
        assert asyncio.get_running_loop().time() - began < 3


async def test_wrong_keys_of_the_account_are_denied(tmp_path: Any) -> None:
    """Basic authentication, by SID and token both."""
    async with token_api() as (settings, tokens):
        bed = Bed(settings, FileStore(tmp_path), tokens)
        for changes in ({"twilio_auth_token": Secret("other")}, {"twilio_account_sid": "AC2"}):
            with pytest.raises(TurnFailed, match=r"^denied$"):
                await bed.job(**changes).configuration(brief())
    with pytest.raises(TurnFailed, match=r"^unreachable$"):
        await bed.job().configuration(brief())


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"ttl": "86400"}', b'{"ttl": "soon", "ice_servers": []}',
     b'{"ttl": 1, "ice_servers": ["x"]}', b'{"ttl": 1, "ice_servers": [{}]}'],
)  # fmt: skip
def test_an_answer_that_is_none_is_garbage(body: bytes) -> None:
    """A closed word, and no trace of the answer."""
    with pytest.raises(TurnFailed, match=r"^garbage$") as refused:
        token_of(body)
    assert refused.value.__cause__ is None


def test_an_entry_names_its_urls_in_any_of_three_ways() -> None:
    """`urls` as a text or a list, or the older `url`."""
    rows = [{"urls": "turn:a"}, {"urls": ["turn:b", "turn:c"]}, {"url": "turn:d", "username": "u", "credential": "p"}]
    entries = token_of(json.dumps({"ttl": 60, "ice_servers": rows}).encode()).entries
    assert [entry.urls for entry in entries] == [("turn:a",), ("turn:b", "turn:c"), ("turn:d",)]
    assert (entries[2].username, entries[2].credential) == ("u", "p")


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (IceEntry(("stun:a:3478",), "", ""),),
        (IceEntry(("turn:a:3478?transport=udp",), "u", "p"),),
        (IceEntry(("turn:a:443?transport=tcp",), "", ""),),
    ],
)
def test_no_relay_left_is_a_failure_and_never_an_empty_list(entries: tuple[IceEntry, ...]) -> None:
    """With an empty list the client would take the server's own relays."""
    with pytest.raises(TurnFailed, match=r"^no_url_left$"):
        relay_only(entries, tcp_443_only=True)


def test_where_no_relay_is_wanted_nothing_is_made() -> None:
    """`all`: the room is joined as it always was."""
    assert Relay.of(read_settings({}), Clock()) is None


async def test_no_log_or_print_holds_a_credential(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """At level debug, failures included."""
    with caplog.at_level(logging.DEBUG):
        config = await bed.job().configuration(brief())
        with pytest.raises(TurnFailed):
            await bed.job(twilio_account_sid="AC2").configuration(brief())
    secret = config.ice_servers[0].password
    said = caplog.text + repr(token_of(json.dumps(bed.tokens._answer(60)).encode())) + repr(bed.job())
    assert secret not in said and AUTH not in said
    assert config.ice_servers[0].username not in said


def test_the_stand_ins_credentials_are_written_as_livekit_writes_them() -> None:
    """base62 as github.com/jxskiss/base62 1.1.0 has it; these were made by it."""
    for data, text in (
        (
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "dA6rXYwoRUod4czsfpDIxjFFwbXzJqUOxUvZfPnLQjb",
        ),
        ("084fed08b978af4d7d196a7446a86b58009e636b611db16211b65a9aad", "tqpW2GhYx2RYrNmnAg1aoaEdqlRfa6V8yFh2fEC"),
        ("ffff1e3e00ff", "fHAf4xffP"),
    ):
        assert base62(bytes.fromhex(data)) == text
