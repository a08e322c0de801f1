"""Secrets out of Vault for a process that is starting: each secret setting that the environment does not give.

One secret of Vault, `DIALER_VAULT_PATH`, whose fields are named as the variables are (`DIALER_MASTER_KEY`, …); it is
read once. What the environment gives, by `NAME` or `NAME_FILE`, wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from runtime.settings import Settings, SettingsError, read_settings, required

OWN: Final = frozenset({"VAULT_TOKEN"})
"""Secrets that Vault is asked with."""


def with_vault(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, and what it lacks of secrets out of Vault where one is named. Raises: SettingsError."""
    settings = read_settings(environment)
    if not settings.vault_path:
        return dict(environment)
    if not settings.vault_addr:
        raise SettingsError("DIALER_VAULT_PATH is set and VAULT_ADDR is not; give the address of your Vault")
    held = _read(settings)
    wanted = [f.metadata["env"] for f in fields(Settings) if f.metadata["secret"] and f.metadata["env"] not in OWN]
    missing = [name for name in wanted if not environment.get(name) and not environment.get(f"{name}_FILE")]
    return dict(environment) | {name: held[name] for name in missing if held.get(name)}


def _read(settings: Settings) -> Mapping[str, str]:
    from runtime.vault import Vault, VaultFailed  # hvac takes a tenth of a second: only where there is a Vault

    token = required(settings.vault_token, "VAULT_TOKEN")
    vault = Vault(settings.vault_addr, token, settings.vault_mount, settings.vault_namespace)
    try:
        held = vault.read(settings.vault_path)
    except VaultFailed as failure:
        raise SettingsError(
            f"Vault does not give DIALER_VAULT_PATH ({failure.code}); {_ADVICE[failure.code]}"
        ) from None
    finally:
        vault.close()
    if held is None:
        raise SettingsError("Vault has nothing at DIALER_VAULT_PATH; its fields are named as the secret settings are")
    return held


_ADVICE: Final[Mapping[str, str]] = {
    "denied": "the token must be valid and may `read` it",
    "no_such_mount": "check DIALER_VAULT_MOUNT: a KV secrets engine, version 2",
    "sealed_or_down": "unseal it, or wait",
    "unreachable": "check VAULT_ADDR",
    "timeout": "check VAULT_ADDR",
    "rate_limited": "start again later",
    "refused": "see Vault's log",
    "garbage": "is it a Vault that answers at VAULT_ADDR?",
}
