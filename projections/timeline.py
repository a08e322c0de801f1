"""The model `timeline`: every record of a call as a row, in order; what is sealed is not shown, only that it is there.

Boxes never reach the database: a sealed value is stored as the word `sealed`. Source: design §4, §7; promise 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from projections.logged import Logged
from schemas.responses import EventView

SEALED: Final = "sealed"
_BOX: Final = frozenset({"key", "box"})


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One record of one call; (call_id, sequence) names it."""

    call_id: str
    event: EventView


def fold(logged: Logged) -> TimelineRow | None:
    """Return the row of a record, or None where it concerns no single call."""
    if logged.call_id is None:
        return None
    envelope = logged.envelope
    data = masked(envelope.data)
    event = EventView(
        sequence=logged.sequence,
        at=logged.at,
        type=envelope.type,
        source=envelope.source,
        id=envelope.id,
        cause=envelope.causationid,
        data=data if isinstance(data, dict) else {},
    )
    return TimelineRow(logged.call_id, event)


def masked(value: Any) -> Any:
    """Return the value with every sealed box in it, known type or not, replaced by a word."""
    if type(value) is dict:
        if value.keys() == _BOX:
            return SEALED
        return {name: masked(part) if type(part) in _NESTED else part for name, part in value.items()}
    if type(value) is list:
        return [masked(part) if type(part) in _NESTED else part for part in value]
    return value


_NESTED: Final = (dict, list)
