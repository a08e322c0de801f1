"""The secret store: a named secret with an expiry, in Vault where there is one, else in a file of mode 0600.

What is kept here can be had anew (credentials of a relay); a store that is away costs a request elsewhere, never a call.
Every operation ends within `OPERATION_TIMEOUT_S`, and none blocks the event loop.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import orjson

from runtime.settings import Secret, Settings, required

if TYPE_CHECKING:  # hvac takes a tenth of a second: only where there is a Vault
    from runtime.vault import Vault

T = TypeVar("T")

OPERATION_TIMEOUT_S: Final = 3.0
BYTES_MAX: Final = 64 * 1024
"""Of a secret: more is no secret of ours."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VALUE: Final = "value"
_EXPIRES_AT: Final = "expires_at"
_OTHERS_MODE: Final = stat.S_IRWXG | stat.S_IRWXO


class StoreFailed(Exception):
    """The store did not do what was asked: `code` is a closed word that says nothing of the secret."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A secret, and when it is worth nothing any more (aware, UTC)."""

    value: Secret
    expires_at: datetime


class SecretStore(Protocol):
    """Named secrets: names are `[a-z0-9-]`, 63 characters at most; the last one put is the one got."""

    async def get(self, name: str, now: datetime) -> Kept | None:
        """Return a secret; None where there is none that lasts beyond `now`. Raises: StoreFailed."""
        ...

    async def put(self, name: str, kept: Kept) -> None:
        """Keep a secret in place of what had its name. Raises: StoreFailed."""
        ...


class FileStore:
    """A file a secret, readable by its owner only, in a directory likewise: the default where there is no Vault.

    Another process of the same user may read and write at the same time: a file is replaced whole.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def get(self, name: str, now: datetime) -> Kept | None:
        """Return a secret that lasts beyond `now`. Raises: StoreFailed."""
        return _lasting(await _bounded(lambda: self._read(_checked(name))), now)

    async def put(self, name: str, kept: Kept) -> None:
        """Replace the file. Raises: StoreFailed."""
        await _bounded(lambda: self._write(_checked(name), kept))

    def _read(self, name: str) -> Kept | None:
        try:
            with (self._directory / name).open("rb") as file:
                if os.fstat(file.fileno()).st_mode & _OTHERS_MODE:
                    raise StoreFailed("readable_by_others")
                return _kept(orjson.loads(file.read(BYTES_MAX)))
        except FileNotFoundError:
            return None
        except OSError:
            raise StoreFailed("unreadable") from None
        except orjson.JSONDecodeError:
            raise StoreFailed("garbage") from None

    def _write(self, name: str, kept: Kept) -> None:
        temporary = ""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._directory, prefix=".new-")  # mode 0600 from its first moment
            with os.fdopen(handle, "wb") as file:
                file.write(orjson.dumps(_fields(kept)))
            Path(temporary).replace(self._directory / name)
        except OSError:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise StoreFailed("unwritable") from None


class VaultStore:
    """A path a secret in Vault's KV v2, below a prefix of ours."""

    def __init__(self, vault: Vault, prefix: str) -> None:
        self._vault, self._prefix = vault, prefix.strip("/")

    async def get(self, name: str, now: datetime) -> Kept | None:
        """Return a secret that lasts beyond `now`. Raises: StoreFailed."""
        path = f"{self._prefix}/{_checked(name)}"

        def read() -> Kept | None:
            fields = self._vault.read(path)
            return None if fields is None else _kept(fields)

        return _lasting(await _asked(read), now)

    async def put(self, name: str, kept: Kept) -> None:
        """Write the next version. Raises: StoreFailed."""
        path = f"{self._prefix}/{_checked(name)}"
        await _asked(lambda: self._vault.write(path, _fields(kept)))


def store_of(settings: Settings) -> SecretStore:
    """Return the store that the settings name: Vault where `VAULT_ADDR` is set. Raises: SettingsError."""
    if not settings.vault_addr:
        return FileStore(Path(settings.secrets_dir))
    from runtime.vault import Vault

    token = required(settings.vault_token, "VAULT_TOKEN")
    vault = Vault(settings.vault_addr, token, settings.vault_mount, settings.vault_namespace)
    return VaultStore(vault, settings.vault_store_path)


async def _bounded(work: Callable[[], T]) -> T:
    """Do blocking work beside the loop. A thread that is given up on ends by the timeouts of its own."""
    try:
        async with asyncio.timeout(OPERATION_TIMEOUT_S):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise StoreFailed("timeout") from None


async def _asked(work: Callable[[], T]) -> T:
    """Do work that asks Vault, in the words of a store."""
    from runtime.vault import VaultFailed

    try:
        return await _bounded(work)
    except VaultFailed as failure:
        raise StoreFailed(failure.code) from None


def _checked(name: str) -> str:
    assert _NAME.fullmatch(name), "a secret's name is ours, and none leads out of its place"
    return name


def _fields(kept: Kept) -> dict[str, str]:
    value = kept.value.reveal()
    assert len(value) <= BYTES_MAX // 2, "a secret is small"
    return {_VALUE: value, _EXPIRES_AT: kept.expires_at.astimezone(UTC).isoformat()}


def _kept(fields: object) -> Kept:
    match fields:
        case {"value": str(value), "expires_at": str(text)}:
            try:
                expires_at = datetime.fromisoformat(text)
            except ValueError:
                raise StoreFailed("garbage") from None
            if expires_at.tzinfo is not None:
                return Kept(value=Secret(value), expires_at=expires_at)
    raise StoreFailed("garbage")


def _lasting(kept: Kept | None, now: datetime) -> Kept | None:
    return kept if kept is not None and kept.expires_at > now else None
