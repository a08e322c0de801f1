"""Values that the contract is made of: numbers, keys, ids, names of rooms, partitions.

Everything here is pure. A value that breaks its rule raises `Invalid`, which names the field and the rule and never
the value, so that it may stand in a log, in `dialer.rejected` and in an HTTP answer.
Source: design §2, §3, §4.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Final

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType
from pydantic import AfterValidator, StringConstraints

from schemas.numbering import classify

CALLEE_KEY_LENGTH: Final = 26
REQUEST_HASH_LENGTH: Final = 16
PARTITIONS: Final = 24
"""Partitions of every topic keyed by `callee_key`; written once to `dialer.control` under `$layout`."""


class Invalid(Exception):
    """Input that breaks a rule of the contract: says which field and which rule, never the value."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A value only the holder of the callee's data key can read.

    `key` names the data key, `box` is base64url(nonce 12 bytes + AES-256-GCM ciphertext and tag); the associated data
    is (callee_key, type, field), so that a box moved to another place does not open.
    """

    key: str
    box: str


_DIGITS_AND_MARKS = re.compile(r"[0-9._:\-]+")


def is_phone_number_like(text: str) -> bool:
    """Tell whether a foreign id would give a telephone number away (design §4)."""
    if text.startswith("+"):
        return True
    if not _DIGITS_AND_MARKS.fullmatch(text):
        return False
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, "US")))
    except phonenumbers.NumberParseException:
        return False


def _no_phone_number(text: str) -> str:
    if text[0] in "+0123456789" and is_phone_number_like(text):
        raise ValueError("phone_number")
    return text


CampaignId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$"), AfterValidator(_no_phone_number)]
ForeignId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$"), AfterValidator(_no_phone_number)]
CalleeKey = Annotated[str, StringConstraints(pattern=r"^[a-z2-7]{26}$")]
CallId = Annotated[str, StringConstraints(pattern=r"^[a-z2-7]{26}-[a-z2-7]{16}$")]
Reason = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]


@dataclass(frozen=True, slots=True)
class Number:
    """A telephone number that may be rung: E.164 with the plus, and the region it belongs to (ISO 3166, or 001)."""

    e164: str
    region: str
    kind: int | None = field(default=None, compare=False, repr=False)
    """libphonenumber's `PhoneNumberType`, where it is known already."""


_SEPARATORS = re.compile(r"[ ().\-]")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PREMIUM = frozenset({PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.PAGER})
_SHORT_DIGITS_MAX: Final = 6


def parse_number(text: str, field: str = "to") -> Number:
    """Read a telephone number in international form and refuse what must never be rung.

    Raises: Invalid with rule `letters`, `not_international`, `emergency`, `short_code`, `too_short`, `too_long`,
    `impossible`, `premium` or `not_a_number`.
    Source: ITU-T E.164; libphonenumber's metadata.
    """
    e164 = text if _E164.fullmatch(text) else _tidy(text, field)
    code, national = _split(e164, field)
    region, kind = classify(code, national)
    if region is None:
        raise Invalid(field, _why_impossible(e164))
    if kind in _PREMIUM:
        raise Invalid(field, "premium")
    if kind == PhoneNumberType.UNKNOWN:
        raise Invalid(field, "not_a_number")
    return Number(e164, region, kind)


def _tidy(text: str, field: str) -> str:
    if any(c.isalpha() for c in text):
        raise Invalid(field, "letters")
    tidy = _SEPARATORS.sub("", text)
    digits = tidy.lstrip("+")
    if not digits.isascii() or not digits.isdigit():
        raise Invalid(field, "not_a_number")
    if len(digits) <= _SHORT_DIGITS_MAX:
        known = phonenumbers.is_emergency_number(digits, "US") or digits in {"112", "999", "000"}
        raise Invalid(field, "emergency" if known else "short_code" if len(digits) in {3, 5, 6} else "too_short")
    if not tidy.startswith("+"):
        raise Invalid(field, "not_international")
    if tidy != "+" + digits:
        raise Invalid(field, "not_a_number")
    if len(digits) > 15:
        raise Invalid(field, "too_long")
    return tidy


def _split(e164: str, field: str) -> tuple[int, str]:
    """Cut the country code off a well-formed number: `phonenumbers.parse` does the same at ten times the cost."""
    for length in (1, 2, 3):
        code = int(e164[1 : 1 + length])
        if code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            national = e164[1 + length :]
            if not national:
                raise Invalid(field, "too_short")
            return code, national
    raise Invalid(field, "impossible")


def _why_impossible(e164: str) -> str:
    reason = phonenumbers.is_possible_number_with_reason(_phone_number(e164))
    return {
        phonenumbers.ValidationResult.TOO_SHORT: "too_short",
        phonenumbers.ValidationResult.TOO_LONG: "too_long",
    }.get(reason, "impossible")


def _phone_number(e164: str) -> PhoneNumber:
    code, national = _split(e164, "to")
    zeros = len(national) - len(national.lstrip("0"))
    return PhoneNumber(
        country_code=code,
        national_number=int(national),
        italian_leading_zero=True if zeros else None,
        number_of_leading_zeros=zeros if zeros > 1 else None,
    )


def zones_of(number: Number) -> tuple[str, ...]:
    """Name every IANA zone that the number may lie in; several for a split area code (reference/field.md D5)."""
    from phonenumbers import timezone

    found = _phone_number(number.e164)
    assert found.country_code is not None
    if number.kind is None or not phonenumbers.is_number_type_geographical(number.kind, found.country_code):
        return tuple(timezone.time_zones_for_number(found))
    return tuple(timezone.time_zones_for_geographical_number(found))


def callee_key(e164: str, pepper: bytes) -> str:
    """Name the callee without the number: HMAC-SHA-256 under the pepper, base32, lower case, 26 characters."""
    return _base32(hmac.digest(pepper, e164.encode(), "sha256")[:20], CALLEE_KEY_LENGTH)


def request_hash(campaign_id: str, request_id: str) -> str:
    """Name the request within its callee: SHA-256 over both ids, each with its length in front, 16 characters."""
    campaign, request = campaign_id.encode(), request_id.encode()
    text = b"%d:%b%d:%b" % (len(campaign), campaign, len(request), request)
    return _base32(hashlib.sha256(text).digest()[:10], REQUEST_HASH_LENGTH)


_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_TEN_BITS: Final = [high + low for high in _BASE32 for low in _BASE32]


def _base32(digest: bytes, length: int) -> str:
    """Write a digest's first `length` characters (an even number) in lower-case base32, two at a time."""
    count = len(digest) * 8
    bits = int.from_bytes(digest, "big")
    return "".join([_TEN_BITS[bits >> shift & 1023] for shift in range(count - 10, count - 5 * length - 1, -10)])


def call_id(callee: str, request: str) -> str:
    """Join callee and request: the id routes itself, since its first 26 characters are the key of every message."""
    return f"{callee}-{request}"


_CALL = re.compile(r"([a-z2-7]{26})-([a-z2-7]{16})")
_ROOM = re.compile(r"call-([a-z2-7]{26}-[a-z2-7]{16})-([1-9][0-9]{0,5})")
_FACT = re.compile(r"([a-z2-7]{26}-[a-z2-7]{16})-[1-9][0-9]{0,5}/[^/]{1,64}/[1-9][0-9]{0,6}")
_IDENTITY = re.compile(r"callee-([a-z2-7]{26}-[a-z2-7]{16})-([1-9][0-9]{0,5})")


def split_call_id(text: str) -> tuple[str, str]:
    """Return (callee_key, request hash). Raises: Invalid `call_id: pattern`."""
    found = _CALL.fullmatch(text)
    if found is None:
        raise Invalid("call_id", "pattern")
    return found[1], found[2]


def callee_of(call: str) -> str:
    """Return the callee_key that a well-formed call id starts with."""
    return call[:CALLEE_KEY_LENGTH]


def attempt_id(call: str, attempt: int) -> str:
    """Name one attempt: sent as `X-Dial-Attempt-Id` in the INVITE, so that the carrier is a witness."""
    return f"{call}-{attempt}"


def room_name(call: str, attempt: int) -> str:
    """Name the one room of an attempt."""
    return f"call-{call}-{attempt}"


def callee_identity(call: str, attempt: int) -> str:
    """Name the callee's participant of an attempt."""
    return f"callee-{call}-{attempt}"


def attempt_of_room(room: str) -> tuple[str, int] | None:
    """Read (call_id, attempt) off a room's name; None for a room that is not ours."""
    found = _ROOM.fullmatch(room)
    return (found[1], int(found[2])) if found else None


def attempt_of_identity(identity: str) -> tuple[str, int] | None:
    """Read (call_id, attempt) off a callee's identity; None for anybody else."""
    found = _IDENTITY.fullmatch(identity)
    return (found[1], int(found[2])) if found else None


def call_of_fact(cause: str) -> str | None:
    """Read the call off the id of an agent's fact (`schemas/facts.py`); None for any other id."""
    found = _FACT.fullmatch(cause)
    return found[1] if found else None


def murmur2(key: bytes) -> int:
    """Hash a key as Kafka's own default partitioner does (org.apache.kafka.common.utils.Utils.murmur2)."""
    length = len(key)
    h = 0x9747B28C ^ length
    for k in struct.unpack_from(f"<{length // 4}I", key):
        k = k * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ ((k ^ (k >> 24)) * 0x5BD1E995 & 0xFFFFFFFF)
    tail = key[length & ~3 :]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * 0x5BD1E995) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 0x5BD1E995) & 0xFFFFFFFF
    return h ^ (h >> 15)


@lru_cache(maxsize=4_096)  # a callee's records come one after the other
def partition_of(callee: str, partitions: int = PARTITIONS) -> int:
    """Return the canonical partition of a callee's records: the one that owns everything about that person."""
    return (murmur2(callee.encode()) & 0x7FFFFFFF) % partitions


_RUN_OF_DIGITS = re.compile(r"\+?\d[\d\s().\-]{5,}\d")


def scrub(phrase: str, length_max: int = 120) -> str:
    """Take digits that may be a number out of a phrase from outside (a SIP reason phrase), and bound its length."""
    return _RUN_OF_DIGITS.sub("#", phrase)[:length_max]
