"""SIP trunks: read from the operator's file, made known to LiveKit once at start, and their caller ids.

The file's shape:

    trunks:
      - name: cvs-retail-outbound
        address: example.pstn.twilio.com:5061
        numbers: ["+12125550100", "+12125550101"]
        transport: tls                 # auto, udp, tcp, tls
        media_encryption: require      # disable, allow, require
        auth_username: dialer
        auth_password_file: /run/secrets/trunk   # or auth_password
        calls_per_s: 5
        concurrency_max: 50

Source: design §5 (pacing), §9; reference/livekit.md 4.3.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, TypeAdapter, ValidationError

from dialer.telephony import Telephony, TelephonyUnavailable, Trunk
from dialer.yaml_files import BadFile, read_yaml
from runtime.clock import Clock
from runtime.logs import Log
from schemas.campaign import invalid
from schemas.values import Invalid, parse_number

TRUNKS_MAX: Final = 100
ENSURE_ATTEMPTS_MAX: Final = 10
ENSURE_BACKOFF_S: Final = 1.0
ENSURE_BACKOFF_MAX_S: Final = 10.0
log = Log(__name__)


class TrunksUnavailable(Exception):
    """LiveKit did not take the trunks within all attempts: one line that says which and why."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    address: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9.\-]+(:[0-9]{1,5})?$|^\[[0-9a-fA-F:]+\](:[0-9]{1,5})?$")
    ]
    numbers: Annotated[list[str], Field(min_length=1, max_length=1000)]
    transport: Literal["auto", "udp", "tcp", "tls"] = "tls"
    media_encryption: Literal["disable", "allow", "require"] = "require"
    auth_username: str = ""
    auth_password: SecretStr = SecretStr("")
    auth_password_file: str = ""
    calls_per_s: Annotated[int, Field(ge=1, le=1000)] = 1
    concurrency_max: Annotated[int, Field(ge=1, le=100_000)] = 10


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    trunks: Annotated[list[_Entry], Field(min_length=1, max_length=TRUNKS_MAX)]


_FILE: Final = TypeAdapter(_File)


def load_trunks(path: str) -> tuple[Trunk, ...]:
    """Read and check the file; unknown keys are refused by name.

    Raises: BadFile with file, key and rule, never a number or a password.
    """
    document = read_yaml(Path(path))
    if not isinstance(document, dict):
        raise BadFile(f"{path}: must be a mapping with the key `trunks`")
    try:
        entries = _FILE.validate_python(document).trunks
    except ValidationError as error:
        refused = invalid(error)
        raise BadFile(f"{path}: {refused.field}: {refused.rule}") from None
    trunks: dict[str, Trunk] = {}
    for index, entry in enumerate(entries):
        where = f"{path}: trunks.{index}"
        if entry.name in trunks:
            raise BadFile(f"{where}.name: stands twice")
        trunks[entry.name] = _trunk(entry, where)
    return tuple(trunks.values())


def _trunk(entry: _Entry, where: str) -> Trunk:
    numbers = []
    for number in entry.numbers:
        try:
            numbers.append(parse_number(number, "numbers").e164)
        except Invalid as refused:
            raise BadFile(f"{where}.{refused.field}: {refused.rule}") from None
    password = entry.auth_password.get_secret_value()
    if entry.auth_password_file:
        if password:
            raise BadFile(f"{where}.auth_password: give this or auth_password_file, not both")
        try:
            password = Path(entry.auth_password_file).read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise BadFile(f"{where}.auth_password_file: cannot be read") from None
    fields: dict[str, Any] = entry.model_dump(exclude={"auth_password", "auth_password_file", "numbers"})
    return Trunk(**fields, numbers=tuple(dict.fromkeys(numbers)), auth_password=password)


async def ensure_all(telephony: Telephony, trunks: tuple[Trunk, ...], clock: Clock) -> dict[str, str]:
    """Make every trunk known to LiveKit, by name, and return their ids.

    LiveKit may come up after us: each trunk is tried `ENSURE_ATTEMPTS_MAX` times, with growing waits.
    Raises: TrunksUnavailable.
    """
    return {trunk.name: await _ensure(telephony, trunk, clock) for trunk in trunks}


async def _ensure(telephony: Telephony, trunk: Trunk, clock: Clock) -> str:
    wait_s, why = ENSURE_BACKOFF_S, ""
    for attempt in range(1, ENSURE_ATTEMPTS_MAX + 1):
        try:
            return await telephony.ensure_trunk(trunk)
        except TelephonyUnavailable as error:
            why = str(error)
        log.warning("LiveKit did not take the trunk", trunk=trunk.name, attempt=attempt, why=why)
        if attempt < ENSURE_ATTEMPTS_MAX:
            await clock.sleep(wait_s)
            wait_s = min(wait_s * 2, ENSURE_BACKOFF_MAX_S)
    raise TrunksUnavailable(
        f"trunk {trunk.name}: LiveKit did not take it in {ENSURE_ATTEMPTS_MAX} attempts ({why}); check LIVEKIT_API_URL, "
        "the API key, and that LiveKit runs with Redis and SIP"
    )


def caller_id_for(trunk: Trunk, call_id: str) -> str:
    """Choose the number a call shows: always the same one for a call, evenly spread over calls."""
    draw = int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:8], "big")
    return trunk.numbers[draw % len(trunk.numbers)]
