"""The model `timeline`: every record of a call as a row, in order; what is sealed is not shown, only that it is there.

Boxes never reach the database: a sealed value is stored as the word `sealed`. Source: design §4, §7; promise 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from projections.logged import Logged

SEALED: Final = "sealed"
_BOX: Final = frozenset({"key", "box"})


@dataclass(slots=True)
class TimelineRow:
    """One record of one call; (call_id, sequence) names it. Not frozen for speed alone: nobody changes one."""

    call_id: str
    sequence: int
    at: datetime
    type: str
    source: str
    id: str
    cause: str | None
    data: dict[str, Any]


def fold(logged: Logged) -> TimelineRow | None:
    """Return the row of a record, or None where it concerns no single call."""
    if logged.call_id is None:
        return None
    return TimelineRow(
        logged.call_id,
        logged.sequence,
        logged.at,
        logged.type,
        logged.source,
        logged.id,
        logged.cause,
        masked(logged.data) if type(logged.data) is dict else {},
    )


def masked(value: Any) -> Any:
    """Return the value with every sealed box in it, known type or not, replaced by a word."""
    if type(value) is dict:
        if value.keys() == _BOX:
            return SEALED
        nested = [name for name, part in value.items() if type(part) in _NESTED]
        return value | {name: masked(value[name]) for name in nested} if nested else value
    return [masked(part) if type(part) in _NESTED else part for part in value]


_NESTED: Final = (dict, list)
