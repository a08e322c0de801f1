"""The gate: the one table between a committed `DialStarted` and the one function that can ring a phone.

It is asked synchronously with the send, nothing is awaited in between. A row refuses, or is merely stale: a stale row is
waited for until the `DialStarted` is 5 s old. A refusal is `DialWithdrawn`: known not sent. Source: design §5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from dialer.callee.state import Call, Phase
from schemas.outcomes import Withdrawal

DIAL_AGE_MAX_S: Final = 5.0
STOPS_AGE_MAX_S: Final = 1.0
CONTROL_AGE_MAX_S: Final = 1.0
READINESS_AGE_MAX_S: Final = 5.0
SKEW_MAX_S: Final = 2.0
_FAR: Final = 1e9


class Verdict(Enum):
    """What a row says."""

    OPEN = "open"
    STALE = "stale"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything the gate looks at, read at one instant; ages in seconds, a very large one where nothing is known."""

    attempt: int
    call: Call | None
    """The call in the owner's committed state; None when it is closed, or ownership is over."""
    owned: bool
    membership_age_s: float
    membership_age_max_s: float
    dial_age_s: float
    dial_age_wall_s: float
    stops_age_s: float
    control_age_s: float
    stopped: bool
    suppressed: bool
    readiness_age_s: float
    skew_s: float
    draining: bool
    spend: Callable[[], bool]
    """Takes the pacer's token: True at most once, and only while the trunk's rate allows it at this very moment."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what it looks at, what it says when that is not so, and the reason a refusal is recorded with."""

    reason: Withdrawal
    holds: Callable[[View], bool]
    otherwise: Verdict
    why: str


def _same_dial(v: View) -> bool:
    return (
        v.call is not None
        and v.call.phase is Phase.DIALING
        and v.call.attempt is not None
        and v.call.attempt.number == v.attempt
    )


_REFUSE, _STALE = Verdict.REFUSED, Verdict.STALE
GATE: Final[tuple[Row, ...]] = (
    Row(Withdrawal.SHUTTING_DOWN, lambda v: not v.draining, _REFUSE, "a process that ends starts nothing"),
    Row(Withdrawal.NOT_OWNED, lambda v: v.owned, _REFUSE, "another owner may decide otherwise"),
    Row(
        Withdrawal.NOT_OWNED,
        lambda v: v.membership_age_s <= v.membership_age_max_s,
        _STALE,
        "the group may have given the partition away",
    ),
    Row(
        Withdrawal.STALE_DIAL,
        lambda v: v.dial_age_s <= DIAL_AGE_MAX_S and v.dial_age_wall_s <= DIAL_AGE_MAX_S,
        _REFUSE,
        "a process that slept must not act on what it knew (by both clocks)",
    ),
    Row(Withdrawal.CANCELLED, lambda v: v.call is None or not v.call.cancelled, _REFUSE, "promise 6"),
    Row(Withdrawal.SUPPRESSED, lambda v: not v.suppressed, _REFUSE, "promise 6"),
    Row(Withdrawal.SUPERSEDED, _same_dial, _REFUSE, "the call has gone on without this dial"),
    Row(Withdrawal.STOPPED, lambda v: not v.stopped, _REFUSE, "the kill switch"),
    Row(
        Withdrawal.STOPS_NOT_DRAINED,
        lambda v: v.stops_age_s <= STOPS_AGE_MAX_S,
        _STALE,
        "a stop that was accepted before must be seen before",
    ),
    Row(
        Withdrawal.CONTROL_STALE,
        lambda v: v.control_age_s <= CONTROL_AGE_MAX_S,
        _STALE,
        "the kill switch fails closed",
    ),
    Row(
        Withdrawal.AGENT_NOT_READY,
        lambda v: v.readiness_age_s <= READINESS_AGE_MAX_S,
        _STALE,
        "nobody is rung into silence",
    ),
    Row(Withdrawal.CLOCK, lambda v: v.skew_s <= SKEW_MAX_S, _REFUSE, "ages mean nothing on a clock that is off"),
    Row(
        Withdrawal.NO_TOKEN,
        lambda v: v.spend(),
        _STALE,
        "the trunk's rate holds in any rolling second; last: it spends",
    ),
)


def judge(view: View) -> tuple[Verdict, Withdrawal | None]:
    """Ask every row in order; the first that does not hold speaks."""
    for row in GATE:
        if not row.holds(view):
            return row.otherwise, row.reason
    return Verdict.OPEN, None


def wall_age_s(now: datetime, at: datetime | None) -> float:
    """Return how old an instant is, in seconds; one in the future counts as far away as it is."""
    return _FAR if at is None else abs((now - at) / timedelta(seconds=1))
