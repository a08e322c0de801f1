"""From a record's type and data to a payload, for every version ever shipped.

An unknown type, or a value of a later version, decodes to `Unknown` and folds to nothing; a payload of an older version
passes its upcasters first. Source: design §3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from schemas.audit import AUDIT_NAMES, AuditRecord, audit_type
from schemas.campaign import invalid
from schemas.commands import COMMAND_TYPE, COMMANDS, Command
from schemas.events import DECISIONS
from schemas.facts import FACTS
from schemas.observations import OBSERVATIONS
from schemas.values import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A record of a type, or with a value, that this version does not know."""

    type: str


Upcaster = Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]
UPCASTERS: Final[Mapping[str, Upcaster]] = {}
"""Type of an old version → function to the next version's type and data. None yet: every type is at v1."""

LOGGED: Final[dict[str, type[Any]]] = DECISIONS | FACTS
"""What may stand on `dialer.events`."""
OBSERVED: Final[dict[str, type[Any]]] = FACTS | OBSERVATIONS
"""What may stand on `dialer.observations`."""
AUDITED: Final[dict[str, type[Any]]] = {audit_type(name): AuditRecord for name in AUDIT_NAMES}


_ADAPTERS: Final[dict[Any, TypeAdapter[Any]]] = {}


def adapter(cls: Any) -> TypeAdapter[Any]:
    """Return the decoder of a payload class, built once."""
    found = _ADAPTERS.get(cls)
    if found is None:
        found = _ADAPTERS[cls] = TypeAdapter(cls)
    return found


def decode_payload(known: Mapping[str, type[Any]], type_name: str, data: Any) -> Any:
    """Read a payload of one of the `known` types, or `Unknown`."""
    while type_name in UPCASTERS:
        type_name, data = UPCASTERS[type_name](data)
    cls = known.get(type_name)
    if cls is None:
        return Unknown(type=type_name)
    try:
        return adapter(cls).validate_python(data)
    except ValidationError:
        return Unknown(type=type_name)


def decode_command(type_name: str, data: Any) -> Command:
    """Read a command strictly.

    Raises: Invalid with rule `unknown_type`, `unknown_version`, or the field's own.
    """
    cls = COMMANDS.get(type_name)
    if cls is None:
        found = COMMAND_TYPE.fullmatch(type_name)
        known = found is not None and f"dialer.command.{found[1]}.v1" in COMMANDS
        raise Invalid("type", "unknown_version" if known else "unknown_type")
    if not isinstance(data, dict):
        raise Invalid("data", "wrong_type")
    try:
        command: Command = adapter(cls).validate_python(data)
    except ValidationError as error:
        raise invalid(error) from None
    return command
