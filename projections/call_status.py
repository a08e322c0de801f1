"""The model `call_status`: where each call stands, one row a call, folded from the log.

1. A record seen before (its `sequence` is not above the row's) adds nothing, so that a repeated fold changes no row.
2. Every new record of a call moves the row's `sequence` and `updated_at`, also one whose type is not known here.
3. After its terminal event nothing about a call's fate changes.

`attempts` counts openings; `dials` counts INVITEs that went out or may have: `DialStarted` without a `DialWithdrawn`
or a failure known to come before sending. Source: design §4 (status), §7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from projections.logged import Logged
from schemas.codec import LOGGED, UPCASTERS, Unknown, decode_payload
from schemas.events import (
    AttemptOpened,
    CallAnswered,
    CallDeferred,
    CalleeRinging,
    CallEnded,
    CallPrepared,
    CallRefused,
    CallRequested,
    DialFailed,
    DialStarted,
    DialUnknown,
    DialWithdrawn,
    RetryScheduled,
)
from schemas.outcomes import Status
from schemas.responses import CallView

Row = Mapping[str, Any]
"""The fields of a `CallView`, while a batch is folded."""
Rule = Callable[[Row, Any, datetime], dict[str, Any]]
"""(row, payload, time of the record) -> the fields that change."""

ENDED: Final = frozenset({Status.ENDED, Status.REFUSED})
WAITS: Final[Rule] = lambda _row, _event, _at: {"status": Status.WAITING}  # noqa: E731


def _requested(_: Row, event: CallRequested, at: datetime) -> dict[str, Any]:
    return {"campaign_id": event.campaign_id, "request_id": event.request_id, "requested_at": at}


def _waits_until(_: Row, event: CallDeferred | RetryScheduled, __: datetime) -> dict[str, Any]:
    return {"status": Status.WAITING, "next_at": event.not_before}


def _opened(row: Row, _: AttemptOpened, __: datetime) -> dict[str, Any]:
    return {"status": Status.OPENING, "attempts": row["attempts"] + 1, "next_at": None}


def _dialed(row: Row, _: DialStarted, __: datetime) -> dict[str, Any]:
    return {"status": Status.DIALING, "dials": row["dials"] + 1}


def _withdrawn(row: Row, _: DialWithdrawn, __: datetime) -> dict[str, Any]:
    return {"status": Status.WAITING, "dials": row["dials"] - 1}


def _failed(row: Row, event: DialFailed, _: datetime) -> dict[str, Any]:
    return {"status": Status.WAITING, "sip_status": event.sip_status, "dials": row["dials"] - (not event.sent)}


def _rings(_: Row, __: CalleeRinging, ___: datetime) -> dict[str, Any]:
    return {"status": Status.RINGING}


def _answered(_: Row, __: CallAnswered, at: datetime) -> dict[str, Any]:
    return {"status": Status.ANSWERED, "answered_at": at}


def _refused(_: Row, event: CallRefused, at: datetime) -> dict[str, Any]:
    return {"status": Status.REFUSED, "outcome": event.reason.value, "ended_at": at, "next_at": None}


def _ended(_: Row, event: CallEnded, at: datetime) -> dict[str, Any]:
    return {
        "status": Status.ENDED,
        "outcome": event.outcome.value,
        "attribution": event.attribution.value,
        "ended_at": at,
        "next_at": None,
    }


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        CallRequested.TYPE: _requested,
        CallPrepared.TYPE: WAITS,
        CallDeferred.TYPE: _waits_until,
        AttemptOpened.TYPE: _opened,
        DialStarted.TYPE: _dialed,
        DialWithdrawn.TYPE: _withdrawn,
        DialFailed.TYPE: _failed,
        DialUnknown.TYPE: WAITS,
        CalleeRinging.TYPE: _rings,
        CallAnswered.TYPE: _answered,
        RetryScheduled.TYPE: _waits_until,
        CallRefused.TYPE: _refused,
        CallEnded.TYPE: _ended,
    }
)
"""What a type does to a row; a type that is not here only moves the row's position."""


def fold(row: CallView | None, records: Iterable[Logged]) -> CallView | None:
    """Return the row after these records of one call, in the log's order; None where there is nothing yet."""
    state: dict[str, Any] | None = None
    for logged in records:
        if state is None:
            state = _fields(row) if row is not None else _blank(logged)
        if logged.sequence > state["sequence"]:
            state.update(_changes(state, logged))
            state["sequence"] = logged.sequence
            state["updated_at"] = max(state["updated_at"], logged.at)
    return row if state is None else CallView(**state)


def _changes(state: Row, logged: Logged) -> dict[str, Any]:
    name = logged.type
    if (name not in RULES and name not in UPCASTERS) or state["status"] in ENDED:
        return {}
    payload = decode_payload(LOGGED, name, logged.data)
    if isinstance(payload, Unknown):
        return {}
    rule = RULES.get(payload.TYPE)
    return rule(state, payload, logged.at) if rule is not None else {}


def _fields(row: CallView) -> dict[str, Any]:
    return {name: getattr(row, name) for name in CALL_FIELDS}


def _blank(logged: Logged) -> dict[str, Any]:
    assert logged.call_id is not None, "the runner groups by call"
    return dict(_BLANK) | {"call_id": logged.call_id, "updated_at": logged.at}


CALL_FIELDS: Final = tuple(CallView.__dataclass_fields__)
_BLANK: Final[Row] = MappingProxyType(
    dict.fromkeys(CALL_FIELDS) | {"status": Status.ACCEPTED, "attempts": 0, "dials": 0, "sequence": 0}
)
