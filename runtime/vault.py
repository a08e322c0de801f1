"""Vault's KV v2, by hvac, synchronous and bounded: one secret is a few named fields at a path.

A token needs `read` on what is read, and `create` and `update` on what is written. Imported only where a Vault is
configured, since hvac takes a tenth of a second. Source: Vault's HTTP API, secrets engine kv, version 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import hvac
import requests
from hvac import exceptions

REQUEST_TIMEOUT_S: Final = 2.0
"""To connect, and between two pieces of an answer."""
_CODES: Final[Mapping[type[Exception], str]] = {
    exceptions.Forbidden: "denied",
    exceptions.Unauthorized: "denied",
    exceptions.VaultDown: "sealed_or_down",
    exceptions.VaultNotInitialized: "sealed_or_down",
    exceptions.RateLimitExceeded: "rate_limited",
    exceptions.InvalidPath: "no_such_mount",
    requests.Timeout: "timeout",
    requests.RequestException: "unreachable",
    AttributeError: "garbage",
    TypeError: "garbage",
}
_FAILURES: Final = (exceptions.VaultError, requests.RequestException, AttributeError, TypeError)
"""The last two: hvac 2.4 reads `errors` of an error's answer as if it could be nothing but Vault's."""


class VaultFailed(Exception):
    """Vault did not do what was asked: `code` is a closed word, without an address, a path or a token in it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Vault:
    """One mount of one Vault, with one token. Every request may block its thread for a few seconds."""

    def __init__(self, address: str, token: str, mount: str, namespace: str = "") -> None:
        # The token is always given: without one hvac takes whatever lies in the user's home.
        self._client = hvac.Client(url=address, token=token, namespace=namespace or None, timeout=REQUEST_TIMEOUT_S)
        self._mount = mount

    def read(self, path: str) -> dict[str, str] | None:
        """Return the fields of a secret, those that are text; None where there is none. Raises: VaultFailed."""
        try:
            answer = self._client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=self._mount, raise_on_deleted_version=True
            )
        except exceptions.InvalidPath as error:
            if _is_of_kv(error):
                return None
            raise VaultFailed("no_such_mount") from None
        except _FAILURES as error:
            raise VaultFailed(_code_of(error)) from None
        return _fields(answer)

    def write(self, path: str, fields: Mapping[str, str]) -> None:
        """Write a secret whole, as its next version. Raises: VaultFailed."""
        try:
            self._client.secrets.kv.v2.create_or_update_secret(path=path, secret=dict(fields), mount_point=self._mount)
        except _FAILURES as error:
            raise VaultFailed(_code_of(error)) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._client.adapter.close()


def _is_of_kv(error: exceptions.InvalidPath) -> bool:
    """Tell "no such secret" from "no such mount": both are 404, the latter with a sentence (seen with Vault 1.21)."""
    return isinstance(error.json, dict) and not error.errors


def _code_of(error: Exception) -> str:
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), "refused")


def _fields(answer: Any) -> dict[str, str]:
    match answer:
        case {"data": {"data": dict(fields)}}:
            return {name: value for name, value in fields.items() if isinstance(value, str)}
        case _:
            raise VaultFailed("garbage")
