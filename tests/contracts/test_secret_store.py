"""One suite for every adapter of `runtime.secrets.SecretStore`. To add one: a factory in `ADAPTERS`.

`vault` is a real Vault, on loopback, where `VAULT_ADDR` and `VAULT_TOKEN` name one (`vault server -dev`); else that
half is skipped, and the stand-in, which must answer as the real one does, holds the protocol.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from rehearsal import faults, serving
from rehearsal.vault import Vault as StandIn
from runtime.secrets import FileStore, Kept, SecretStore, StoreFailed, VaultStore
from runtime.settings import Secret
from runtime.vault import Vault, VaultFailed

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
TOKEN = "a-token-of-the-rehearsal"
Open = Callable[[Path], AbstractAsyncContextManager[SecretStore]]


@asynccontextmanager
async def stand_in(script: faults.Script | None = None) -> AsyncIterator[str]:
    runner, port = await serving.start(StandIn(TOKEN, script or faults.Script()).app(), 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def real_vault() -> tuple[str, str]:
    """Return address and token of a real Vault; the test is skipped where there is none."""
    address, token = os.environ.get("VAULT_ADDR", ""), os.environ.get("VAULT_TOKEN", "")
    if not address or not token:
        pytest.skip("no Vault here: VAULT_ADDR and VAULT_TOKEN are not set (`vault server -dev` makes one)")
    if not ipaddress.ip_address(urlsplit(address).hostname or "").is_loopback:
        pytest.skip("VAULT_ADDR is not on 127.0.0.1: tests write to no Vault that others use")
    return address, token


@asynccontextmanager
async def in_files(path: Path) -> AsyncIterator[SecretStore]:
    yield FileStore(path / "deep" / "secrets")


@asynccontextmanager
async def in_the_stand_in(_: Path) -> AsyncIterator[SecretStore]:
    async with stand_in() as address:
        vault = Vault(address, TOKEN, "secret")
        yield VaultStore(vault, "/outbound-dialer/store/")
        vault.close()


@asynccontextmanager
async def in_vault(_: Path) -> AsyncIterator[SecretStore]:
    vault = Vault(*real_vault(), "secret")
    yield VaultStore(vault, f"outbound-dialer-tests/{secrets.token_hex(6)}")
    vault.close()


ADAPTERS: dict[str, Open] = {"file": in_files, "vault-stand-in": in_the_stand_in, "vault": in_vault}


@pytest.fixture(params=list(ADAPTERS))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SecretStore]:
    async with ADAPTERS[request.param](tmp_path) as opened:
        yield opened


def kept(value: str, lasts_s: float = 60) -> Kept:
    return Kept(value=Secret(value), expires_at=NOW + timedelta(seconds=lasts_s))


def shown(found: Kept | None) -> tuple[str, datetime] | None:
    return None if found is None else (found.value.reveal(), found.expires_at)


async def test_a_secret_that_nobody_put_is_none(store: SecretStore) -> None:
    """No failure: an empty store is how every store begins."""
    assert await store.get("turn-ac1", NOW) is None


async def test_a_secret_comes_back_as_it_was_put(store: SecretStore) -> None:
    """To the character, its expiry to the microsecond."""
    for value in ("", "plain", '{"ice": ["turn:a:443"]}', "line\nline", "ünïcode ✓", "x" * 20_000):
        put = Kept(value=Secret(value), expires_at=NOW + timedelta(days=1, microseconds=7))
        await store.put("turn-ac1", put)
        assert shown(await store.get("turn-ac1", NOW)) == (value, put.expires_at)


async def test_an_expiry_in_another_zone_is_the_same_moment(store: SecretStore) -> None:
    """It is compared as a moment, whoever wrote it."""
    tokyo = NOW.astimezone(tz=datetime.fromisoformat("2026-01-01T00:00:00+09:00").tzinfo)
    await store.put("zoned", Kept(value=Secret("v"), expires_at=tokyo + timedelta(seconds=2)))
    assert await store.get("zoned", NOW + timedelta(seconds=1)) is not None
    assert await store.get("zoned", NOW + timedelta(seconds=2)) is None


async def test_the_last_secret_put_is_the_one_got(store: SecretStore) -> None:
    """Also when the earlier one would have lasted longer."""
    await store.put("turn-ac1", kept("first", lasts_s=600))
    await store.put("turn-ac1", kept("second", lasts_s=60))
    assert shown(await store.get("turn-ac1", NOW)) == shown(kept("second"))


async def test_a_secret_past_its_expiry_is_none(store: SecretStore) -> None:
    """At its very moment already."""
    await store.put("turn-ac1", kept("short", lasts_s=1))
    assert await store.get("turn-ac1", NOW + timedelta(milliseconds=999)) is not None
    assert await store.get("turn-ac1", NOW + timedelta(seconds=1)) is None


async def test_secrets_of_different_names_are_different(store: SecretStore) -> None:
    """One does not touch the other."""
    await store.put("turn-ac1", kept("one"))
    await store.put("turn-ac2", kept("two"))
    assert shown(await store.get("turn-ac1", NOW)) == shown(kept("one"))
    assert shown(await store.get("turn-ac2", NOW)) == shown(kept("two"))


async def test_writers_at_once_leave_one_whole_secret(store: SecretStore) -> None:
    """Job processes of many workers write when a credential runs out; readers meanwhile see one or another, whole."""
    values = [f"{number}" * 4_000 for number in range(8)]
    await store.put("turn-ac1", kept(values[0]))
    puts = [store.put("turn-ac1", kept(value)) for value in values]
    gets = [store.get("turn-ac1", NOW) for _ in values]
    *_, last = await asyncio.gather(*puts, *gets)
    found = await store.get("turn-ac1", NOW)
    assert last is not None and last.value.reveal() in values
    assert found is not None and found.value.reveal() in values


@pytest.mark.parametrize("name", ["../other", "a/b", "", "UPPER", "a" * 64, ".hidden", "a b"])
async def test_a_name_cannot_lead_out_of_the_store(store: SecretStore, name: str) -> None:
    """Names are made by our own code: another one is a bug."""
    with pytest.raises(AssertionError):
        await store.get(name, NOW)
    with pytest.raises(AssertionError):
        await store.put(name, kept("v"))


async def test_what_a_store_says_and_shows_holds_no_secret(store: SecretStore) -> None:
    """Its values do not print."""
    await store.put("turn-ac1", kept("hush-hush"))
    assert "hush" not in repr(await store.get("turn-ac1", NOW)) + repr(store)


# What is particular to one of them.


async def test_a_file_is_its_owners_only_and_written_whole(tmp_path: Path) -> None:
    """Mode 0600 in a directory of mode 0700, and nothing half written beside it."""
    store = FileStore(tmp_path / "secrets")
    await store.put("turn-ac1", kept("v"))
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["turn-ac1"]
    assert (tmp_path / "secrets" / "turn-ac1").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


async def test_a_file_that_others_can_read_is_not_trusted(tmp_path: Path) -> None:
    """What others can read they may have, and what is garbage is nobody's."""
    store, path = FileStore(tmp_path), tmp_path / "turn-ac1"
    await store.put("turn-ac1", kept("v"))
    path.chmod(0o640)
    with pytest.raises(StoreFailed, match="readable_by_others"):
        await store.get("turn-ac1", NOW)
    for garbage in ("{", "[]", '{"value": "v"}', '{"value": "v", "expires_at": "soon"}'):
        path.write_text(garbage)
        path.chmod(0o600)
        with pytest.raises(StoreFailed, match="garbage"):
            await store.get("turn-ac1", NOW)
    await store.put("turn-ac1", kept("v"))
    assert await store.get("turn-ac1", NOW) is not None


async def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """As a code, without the path."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreFailed, match=r"^unwritable$"):
        await FileStore(tmp_path / "taken").put("turn-ac1", kept("v"))


@asynccontextmanager
async def either(kind: str) -> AsyncIterator[tuple[str, str]]:
    """A stand-in or a real Vault: address and token."""
    if kind == "vault":
        yield real_vault()
    else:
        async with stand_in() as address:
            yield address, TOKEN


@pytest.mark.parametrize("kind", ["vault-stand-in", "vault"])
async def test_what_vault_refuses_is_told_apart(kind: str) -> None:
    """Another token, another mount, no secret, a deleted secret: the same words from the stand-in and from Vault."""
    async with either(kind) as (address, token):
        path = f"outbound-dialer-tests/{secrets.token_hex(6)}"
        for vault, code in (
            (Vault(address, "wrong", "secret"), "denied"),
            (Vault(address, token, "x"), "no_such_mount"),
        ):
            with pytest.raises(VaultFailed, match=rf"^{code}$"):
                await asyncio.to_thread(vault.read, path)
            with pytest.raises(VaultFailed, match=rf"^{code}$"):
                await asyncio.to_thread(vault.write, path, {"value": "v"})
        vault = Vault(address, token, "secret")
        assert await asyncio.to_thread(vault.read, path) is None
        await asyncio.to_thread(vault.write, path, {"a": "1", "b": "2"})
        await asyncio.to_thread(vault.write, path, {"a": "3"})
        assert await asyncio.to_thread(vault.read, path) == {"a": "3"}
        kv = vault._client.secrets.kv.v2
        await asyncio.to_thread(kv.delete_latest_version_of_secret, path, mount_point="secret")
        assert await asyncio.to_thread(vault.read, path) is None
        await asyncio.to_thread(kv.delete_metadata_and_all_versions, path, mount_point="secret")
        assert await asyncio.to_thread(vault.read, path) is None


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"fault": "fail", "status": 503}, "sealed_or_down"),
        ({"fault": "fail", "status": 500}, "refused"),
        ({"fault": "fail", "status": 429}, "rate_limited"),
        ({"fault": "drop"}, "unreachable"),
        ({"fault": "delay", "delay_s": 30}, "timeout"),
    ],
)
async def test_a_vault_that_fails_is_a_value_in_bounded_time(rule: dict[str, object], code: str) -> None:
    """The loop goes on meanwhile, and the answer is a closed word."""
    script = faults.Script(rules=(faults.Rule.of({"at": "vault.*", "chance": 1.0} | rule),))
    async with stand_in(script) as address:
        vault = Vault(address, TOKEN, "secret")
        began = asyncio.get_running_loop().time()
        with pytest.raises(StoreFailed, match=rf"^{code}$"):
            await VaultStore(vault, "p").get("turn-ac1", NOW)
        assert asyncio.get_running_loop().time() - began < 6
    with pytest.raises(StoreFailed, match=r"^unreachable$"):
        await VaultStore(vault, "p").put("turn-ac1", kept("v"))


async def test_an_answer_that_is_not_vaults_is_garbage() -> None:
    """Something else listens at VAULT_ADDR."""
    from aiohttp import web

    async def odd(_: web.Request) -> web.Response:
        return web.json_response(["not", "a", "vault"])

    async def missing(_: web.Request) -> web.Response:
        return web.Response(status=404, text="<html>")

    app = web.Application()
    app.add_routes([web.get("/v1/secret/data/p/odd", odd), web.get("/v1/secret/data/p/missing", missing)])
    runner, port = await serving.start(app, 0)
    store = VaultStore(Vault(f"http://127.0.0.1:{port}", "t", "secret"), "p")
    with pytest.raises(StoreFailed, match=r"^garbage$"):
        await store.get("odd", NOW)
    with pytest.raises(StoreFailed, match=r"^no_such_mount$"):
        await store.get("missing", NOW)
    await runner.cleanup()
