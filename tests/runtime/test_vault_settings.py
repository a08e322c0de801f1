"""Secret settings out of Vault: what the environment does not give, and never in place of what it gives."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import hvac
import pytest

from rehearsal import faults, serving
from rehearsal.vault import Vault
from runtime.settings import SettingsError, read_settings
from runtime.vault_settings import with_vault

TOKEN = "a-token"
HELD = {"DIALER_PEPPER": "from-vault", "BRIEF_KEY": "from-vault", "VAULT_TOKEN": "another", "NOT_OURS": "x"}


@pytest.fixture
async def environment() -> AsyncIterator[dict[str, str]]:
    """A Vault with secrets at `dialer/serve`, and the environment of a process that reads them."""
    runner, port = await serving.start(Vault(TOKEN, faults.Script()).app(), 0)
    address = f"http://127.0.0.1:{port}"
    kv = hvac.Client(url=address, token=TOKEN).secrets.kv.v2
    await asyncio.to_thread(kv.create_or_update_secret, "dialer/serve", HELD)
    yield {"VAULT_ADDR": address, "VAULT_TOKEN": TOKEN, "DIALER_VAULT_PATH": "dialer/serve", "PATH": "/bin"}
    await runner.cleanup()


async def told(environment: dict[str, str]) -> dict[str, str]:
    return await asyncio.to_thread(with_vault, environment)


async def test_secrets_that_are_not_given_come_out_of_vault(environment: dict[str, str]) -> None:
    """Those that are settings, and nothing else that lies there."""
    whole = await told(environment)
    assert whole == environment | {"DIALER_PEPPER": "from-vault", "BRIEF_KEY": "from-vault"}
    assert read_settings(whole).pepper.reveal() == "from-vault"


async def test_what_the_environment_gives_wins(environment: dict[str, str], tmp_path: Path) -> None:
    """By its name, or as a file."""
    path = tmp_path / "pepper"
    path.write_text("from-file")
    whole = await told(environment | {"DIALER_PEPPER_FILE": str(path), "BRIEF_KEY": "given"})
    settings = read_settings(whole)
    assert (settings.pepper.reveal(), settings.brief_key.reveal()) == ("from-file", "given")


async def test_nobody_is_asked_where_no_path_is_named() -> None:
    """Vault may be there for other things only."""
    environment = {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "t", "BRIEF_KEY": "k"}
    assert await told(environment) == environment


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"VAULT_ADDR": ""}, "VAULT_ADDR is not"),
        ({"VAULT_TOKEN": ""}, "VAULT_TOKEN is not set"),
        ({"VAULT_TOKEN": "wrong-token"}, "denied"),
        ({"DIALER_VAULT_MOUNT": "elsewhere"}, "DIALER_VAULT_MOUNT"),
        ({"DIALER_VAULT_PATH": "dialer/nothing"}, "has nothing at DIALER_VAULT_PATH"),
        ({"VAULT_ADDR": "http://127.0.0.1:1"}, "unreachable"),
    ],
)
async def test_a_vault_that_does_not_answer_ends_the_start(
    environment: dict[str, str], changes: dict[str, str], says: str
) -> None:
    """One line that says what to do, without a secret in it."""
    with pytest.raises(SettingsError, match=says) as refused:
        await told(environment | changes)
    assert "\n" not in str(refused.value)
    assert "wrong-token" not in str(refused.value)


@pytest.mark.parametrize("program", ["dialer", "agent", "projections"])
async def test_every_program_asks_vault_before_it_starts(environment: dict[str, str], program: str) -> None:
    """Without what lies at the path each ends with exit code 2 and the line that says so."""
    argv = {"dialer": ["config"]}.get(program, [])
    asked = environment | {"DIALER_VAULT_PATH": "dialer/nothing", "PATH": os.environ["PATH"]}
    code, _, said = await ended(program, *argv, environment=asked)
    assert code == 2
    assert "has nothing at DIALER_VAULT_PATH" in said.splitlines()[-1]


async def test_dialer_config_shows_that_vault_gave_a_secret_and_not_which(environment: dict[str, str]) -> None:
    """As of any secret."""
    code, shown, _ = await ended("dialer", "config", environment=environment | {"PATH": os.environ["PATH"]})
    assert code == 0
    (line,) = [line for line in shown.splitlines() if "DIALER_PEPPER" in line]
    assert "********" in line
    assert "from-vault" not in shown and TOKEN not in shown


async def ended(program: str, *argv: str, environment: dict[str, str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", program, *argv),
        cwd=Path(__file__).parents[2],
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
