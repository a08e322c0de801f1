"""The fold of `call_status`: given these records, then this row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from projections.call_status import RULES, fold
from projections.logged import read
from projections.timeline import fold as timeline_fold
from schemas.events import (
    TERMINAL,
    CallCancelled,
    CallDeferred,
    CallEnded,
    DialFailed,
    DialUnknown,
    DialWithdrawn,
    RetryScheduled,
)
from schemas.facts import AgentCrashed, DtmfReceived, TurnTaken
from schemas.outcomes import Attribution, Deferral, Outcome, Status, Withdrawal
from schemas.responses import CallView
from tests.projections.records import (
    BOX,
    PREPARED,
    T0,
    LogBuilder,
    busy,
    busy_then_delivered,
    call,
    delivered,
    mixed_log,
    opened,
    refused,
    requested,
    talked,
)

SUBJECT = call(1)


def row_of(*payloads: Any) -> CallView:
    row = fold(None, [read(record) for record in LogBuilder().add(SUBJECT, *payloads)])
    assert row is not None
    return row


STATUSES: list[tuple[Status, list[Any]]] = [
    (Status.ACCEPTED, [requested(SUBJECT)]),
    (Status.WAITING, [requested(SUBJECT), PREPARED]),
    (Status.WAITING, [requested(SUBJECT), CallDeferred(not_before=T0, reason=Deferral.NOT_BEFORE)]),
    (Status.OPENING, [requested(SUBJECT), PREPARED, *opened(SUBJECT)[:4]]),
    (Status.DIALING, [requested(SUBJECT), PREPARED, *opened(SUBJECT)]),
    (Status.RINGING, [requested(SUBJECT), PREPARED, *opened(SUBJECT), *talked()[:2]]),
    (Status.ANSWERED, [requested(SUBJECT), PREPARED, *opened(SUBJECT), *talked()[:6]]),
    (Status.ENDED, delivered(SUBJECT)),
    (Status.REFUSED, refused(SUBJECT)),
    (Status.WAITING, [requested(SUBJECT), PREPARED, *opened(SUBJECT), *busy()]),
    (Status.WAITING, [requested(SUBJECT), PREPARED, *opened(SUBJECT), DialUnknown(attempt=1)]),
    (Status.WAITING, [requested(SUBJECT), PREPARED, CallCancelled(stop_id="s", reason="r", remember_until=T0)]),
]


@pytest.mark.parametrize(("status", "payloads"), STATUSES)
def test_status_says_where_the_call_stands(status: Status, payloads: list[Any]) -> None:
    """Each place of a call has its word."""
    assert row_of(*payloads).status is status


def test_a_delivered_call_tells_its_whole_story_in_one_row() -> None:
    """Times, outcome, counts: all from the log."""
    records = LogBuilder().add(SUBJECT, *busy_then_delivered(SUBJECT))
    row = fold(None, [read(record) for record in records])
    assert row is not None
    times = [read(record).at for record in records]
    assert (row.outcome, row.attribution) == ("delivered", "callee")
    assert (row.attempts, row.dials, row.sip_status) == (2, 2, 486)
    assert (row.requested_at, row.ended_at, row.updated_at) == (times[0], times[-1], times[-1])
    assert row.answered_at is not None
    assert row.next_at is None
    assert row.sequence == len(records)
    assert (row.campaign_id, row.request_id) == ("rx-refill", f"refill-{SUBJECT[:4]}")


def test_a_dial_that_was_not_sent_is_not_counted() -> None:
    """`dials` counts what may have rung: not a withdrawn one, not one that failed before sending."""
    start = [requested(SUBJECT), PREPARED, *opened(SUBJECT)]
    unsent = DialFailed(
        attempt=1, sip_status=None, outcome=Outcome.TRUNK_FAILED, attribution=Attribution.US, rule="x", sent=False
    )
    assert row_of(*start, DialWithdrawn(attempt=1, reason=Withdrawal.STALE_DIAL)).dials == 0
    assert row_of(*start, unsent).dials == 0
    assert row_of(*start, DialUnknown(attempt=1)).dials == 1
    assert row_of(*start, DialUnknown(attempt=1), DialWithdrawn(attempt=1, reason=Withdrawal.NOT_SENT)).dials == 0


def test_a_refused_call_says_why() -> None:
    """The reason of a refusal stands as its outcome; it is nobody's doing."""
    row = row_of(*refused(SUBJECT))
    assert (row.outcome, row.attribution, row.dials) == ("suppressed", None, 0)


def test_a_record_seen_before_adds_nothing() -> None:
    """Folding any part of the log again changes no row."""
    logged = [read(record) for record in LogBuilder().add(SUBJECT, *busy_then_delivered(SUBJECT))]
    row = fold(None, logged)
    for start in range(len(logged)):
        assert fold(row, logged[start:]) == row


def test_a_fold_does_not_depend_on_how_the_log_is_cut_into_batches() -> None:
    """Record by record, or all at once: the same row."""
    logged = [read(record) for record in LogBuilder().add(SUBJECT, *busy_then_delivered(SUBJECT))]
    row = None
    for one in logged:
        row = fold(row, [one])
    assert row == fold(None, logged)


def test_nothing_about_its_fate_follows_the_terminal_event() -> None:
    """Late facts, and even a second end, move the position only."""
    late = [
        AgentCrashed(attempt=1, job_id="AJ_1", number=9),
        RetryScheduled(attempt=1, not_before=T0, outcome=None),
        CallEnded(attempt=1, outcome=Outcome.BUSY, attribution=Attribution.CALLEE),
    ]
    row = row_of(*delivered(SUBJECT), *late)
    ended = row_of(*delivered(SUBJECT))
    assert (row.status, row.outcome, row.ended_at) == (ended.status, ended.outcome, ended.ended_at)
    assert row.sequence == ended.sequence + len(late)


def test_an_unknown_type_moves_the_position_and_nothing_else() -> None:
    """A later version's record must not stop or bend the read side."""
    builder = LogBuilder()
    known = builder.add(SUBJECT, requested(SUBJECT), PREPARED)
    strange = builder.add(SUBJECT, PREPARED)[0]
    value = strange.value.replace(PREPARED.TYPE.encode(), b"dialer.event.call_dreamt.v7")
    before = fold(None, [read(record) for record in known])
    after = fold(before, [read(builder.append_raw(SUBJECT[:26], value))])
    assert before is not None
    assert after is not None
    assert (after.status, after.sequence) == (before.status, 3)


def test_both_terminal_events_have_a_rule() -> None:
    """No call without an end."""
    assert {cls.TYPE for cls in TERMINAL} <= set(RULES)


def test_sealed_values_are_not_in_the_timeline() -> None:
    """Of a sealed value only that it is there is kept, wherever it stands; no box reaches a row."""
    rows = [timeline_fold(read(record)) for record in mixed_log(8)]
    shown = [row for row in rows if row is not None]
    assert len(shown) == len(rows) - 1, "a suppression concerns the callee and no single call"
    first = next(row for row in shown if row.type.endswith("call_requested.v1"))
    assert (first.data["to"], first.data["variables"]) == ("sealed", "sealed")
    assert "c2VhbGVk" not in repr(shown)


def test_what_was_said_and_pressed_is_not_in_the_timeline() -> None:
    """That somebody spoke is there, with its figures; the words, the digits, what an agent will say are not."""
    builder = LogBuilder()
    said = {"attempt": 1, "job_id": "AJ_1"}
    prepared = replace(PREPARED, words=BOX)
    turn = TurnTaken(**said, number=2, speaker="agent", text=BOX, spoken_ms=900, reply_ms=700)
    builder.add(call(1), prepared, turn, DtmfReceived(**said, number=3, digit=BOX))
    rows = [timeline_fold(read(record)) for record in builder.records]
    data = [row.data for row in rows if row is not None]
    assert (data[0]["words"], data[1]["text"], data[2]["digit"]) == ("sealed",) * 3
    assert (data[1]["speaker"], data[1]["reply_ms"]) == ("agent", 700)
    assert BOX.box not in repr(data)
