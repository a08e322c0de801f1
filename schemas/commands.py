"""What may be asked of the dialer: the data of the commands on `dialer.commands` and `dialer.stops`.

A command is read strictly: an unknown field is refused by name, for a misspelt `not_after` must not ring at night.
Source: design §4.
"""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, StringConstraints

from schemas.values import CalleeKey, CallId, CampaignId, ForeignId, Reason

VARIABLES_MAX: Final = 50
VARIABLE_LENGTH_MAX: Final = 200
RECORD_BYTES_MAX: Final = 256 * 1024
"""A command's record above this is `too_large`; the topic itself takes 4 MiB so that it can be said."""

_STRICT: Final = ConfigDict(extra="forbid", strict=False)


@lru_cache(maxsize=1024)
def _is_zone(name: str) -> bool:
    return name in zoneinfo.available_timezones()


def _zone(name: str) -> str:
    if not _is_zone(name):
        raise ValueError("unknown_time_zone")
    return name


Zone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,39}$")]
VariableValue = Annotated[str, StringConstraints(max_length=VARIABLE_LENGTH_MAX)]
Dialled = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Scope = Literal["all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """On what ground this person may be called: a reference to the record that proves it, never the record."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    id: ForeignId
    kind: Reason
    obtained_at: AwareDatetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceCall:
    """Ring this number for this campaign: (campaign_id, request_id, to) is the idempotency key."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    TYPE: ClassVar[str] = "dialer.command.place_call.v1"
    request_id: ForeignId
    campaign_id: CampaignId
    to: Dialled
    variables: Annotated[dict[VariableName, VariableValue], Field(max_length=VARIABLES_MAX)] = field(
        default_factory=dict
    )
    timezone: Zone | None = None
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    priority: Annotated[int, Field(ge=0, le=9, strict=True)] = 5
    consent: Consent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelCall:
    """Do not make this call, or hang it up: by `call_id`, or by the three parts of its idempotency key."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    TYPE: ClassVar[str] = "dialer.command.cancel_call.v1"
    call_id: CallId | None = None
    campaign_id: CampaignId | None = None
    request_id: ForeignId | None = None
    to: Dialled | None = None
    reason: Reason = "requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressCallee:
    """Ring this person no more: waiting calls are refused, a ringing one is hung up."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    TYPE: ClassVar[str] = "dialer.command.suppress_callee.v1"
    to: Dialled | None = None
    callee_key: CalleeKey | None = None
    scope: Scope = "all"
    reason: Reason = "requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftSuppression:
    """This person may be rung again."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    TYPE: ClassVar[str] = "dialer.command.lift_suppression.v1"
    to: Dialled | None = None
    callee_key: CalleeKey | None = None
    scope: Scope = "all"
    reason: Reason = "requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseCallee:
    """Forget this person. Part of the contract; refused as `not_built` until erasure is there."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    TYPE: ClassVar[str] = "dialer.command.erase_callee.v1"
    callee_key: CalleeKey
    reason: Reason = "requested"


Stop = CancelCall | SuppressCallee | LiftSuppression
"""The urgent requests: on `dialer.stops` by `call_id` or `callee_key` only, never by number."""

Command = PlaceCall | CancelCall | SuppressCallee | LiftSuppression | EraseCallee
COMMANDS: Final[dict[str, type[Command]]] = {
    c.TYPE: c for c in (PlaceCall, CancelCall, SuppressCallee, LiftSuppression, EraseCallee)
}
COMMAND_TYPE: Final = re.compile(r"dialer\.command\.([a-z_]+)\.v([1-9][0-9]*)")
