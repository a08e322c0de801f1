"""Sealing: a value under the callee's own data key, a data key under the master key, a brief under `BRIEF_KEY`.

AES-256-GCM everywhere; nonces are 96 random bits, drawn by the caller's clock. "The key is gone" is a value that every
reader handles: `open_value` returns None for it. Source: design §3, §5; NIST SP 800-38D.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.brief import BRIEF_AAD, BRIEF_BYTES_MAX, Brief
from schemas.codec import adapter
from schemas.values import Sealed

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
Draw = Callable[[int], bytes]


class SealBroken(Exception):
    """A box that its key does not open: moved, altered, or sealed under another key of the same name."""


def aad(callee_key: str, type_name: str, field: str) -> bytes:
    """Bind a box to its place: callee, type and field."""
    return f"{callee_key}|{type_name}|{field}".encode()


@dataclass(frozen=True, slots=True)
class DataKey:
    """One callee's key: its name, and the cipher ready for use. Never printed."""

    key_id: str
    cipher: AESGCM
    secret: bytes

    def __repr__(self) -> str:
        return f"DataKey({self.key_id})"

    def seal(self, plain: bytes, place: bytes, draw: Draw) -> Sealed:
        """Seal bytes for one place."""
        nonce = draw(NONCE_BYTES)
        box = base64.urlsafe_b64encode(nonce + self.cipher.encrypt(nonce, plain, place))
        return Sealed(key=self.key_id, box=box.decode())


def new_data_key(key_id: str, draw: Draw) -> DataKey:
    """Make a callee's key."""
    secret = draw(KEY_BYTES)
    return DataKey(key_id, AESGCM(secret), secret)


def data_key(key_id: str, secret: bytes) -> DataKey:
    """Make a key ready for use from its bytes."""
    return DataKey(key_id, AESGCM(secret), secret)


def open_value(key: DataKey | None, sealed: Sealed, place: bytes) -> bytes | None:
    """Open a sealed value; None where the key is gone. Raises: SealBroken."""
    if key is None or key.key_id != sealed.key:
        return None
    try:
        raw = base64.urlsafe_b64decode(sealed.box)
        return key.cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], place)
    except (binascii.Error, InvalidTag, ValueError):
        raise SealBroken("a sealed value does not open") from None


class MasterKey:
    """Wraps data keys for `dialer.keys`; the key itself comes from Vault, or from a file in the rehearsal."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError("MASTER_KEY must be 32 bytes, base64")
        self._cipher = AESGCM(secret)
        self.check = hashlib.blake2b(b"dialer master key", key=secret, digest_size=8).hexdigest()
        """Tells two master keys apart, and nothing about either: processes compare it before they use the key."""

    def wrap(self, callee_key: str, key: DataKey, draw: Draw) -> bytes:
        """Write a data key as its record on `dialer.keys`."""
        nonce = draw(NONCE_BYTES)
        box = nonce + self._cipher.encrypt(nonce, key.secret, aad(callee_key, "data_key", key.key_id))
        return b'{"key":"%b","wrapped":"%b","v":1}' % (key.key_id.encode(), base64.urlsafe_b64encode(box))

    def unwrap(self, callee_key: str, record: bytes) -> DataKey:
        """Read a record of `dialer.keys`. Raises: SealBroken."""
        try:
            document = orjson.loads(record)
            raw = base64.urlsafe_b64decode(document["wrapped"])
            key_id = str(document["key"])
            secret = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], aad(callee_key, "data_key", key_id))
        except (orjson.JSONDecodeError, KeyError, TypeError, binascii.Error, InvalidTag, ValueError):
            raise SealBroken("a data key does not unwrap") from None
        return data_key(key_id, secret)


class BriefBox:
    """Seals briefs under the first key and opens them under any: two are accepted while one is rotated."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys:
            raise ValueError("BRIEF_KEY: at least one key is needed, as id:base64")
        self._ciphers = {name: AESGCM(secret) for name, secret in keys.items()}
        self._first = next(iter(keys))

    def seal(self, brief: Brief, draw: Draw) -> str:
        """Write a brief as a job's metadata: `{key id}.{base64url}`."""
        nonce = draw(NONCE_BYTES)
        box = nonce + self._ciphers[self._first].encrypt(nonce, orjson.dumps(brief), BRIEF_AAD)
        text = f"{self._first}.{base64.urlsafe_b64encode(box).decode()}"
        assert len(text) <= BRIEF_BYTES_MAX, "a brief is bounded by the message's own limit"
        return text

    def open(self, metadata: str) -> Brief:
        """Read a job's metadata. Raises: SealBroken."""
        name, _, box = metadata.partition(".")
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise SealBroken("a brief is sealed under a key that is not held")
        try:
            raw = base64.urlsafe_b64decode(box)
            plain = cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], BRIEF_AAD)
        except (binascii.Error, InvalidTag, ValueError):
            raise SealBroken("a brief does not open") from None
        brief: Brief = adapter(Brief).validate_json(plain)
        return brief
