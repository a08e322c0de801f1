"""The accounts catch what they are there for: each test breaks one promise in hand-made witnesses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rehearsal.accounts import Accounts, settle
from rehearsal.producer import Kind, Sent
from rehearsal.reader import Logged
from rehearsal.witness import Dial, EndedBy
from schemas import topics

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CALL = "a" * 26 + "-" + "b" * 16
OTHER = "c" * 26 + "-" + "d" * 16
NUMBER, OTHER_NUMBER = "+12125550100", "+12125550120"


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def sent(call: str | None = CALL, number: str = NUMBER, kind: Kind = Kind.COMMAND, fingerprint: str = "f1") -> Sent:
    return Sent(kind=kind, name="one", call_id=call, number=number, at=T0.isoformat(), fingerprint=fingerprint)


def event(name: str, seconds: float, call: str = CALL, **data: Any) -> Logged:
    kind = f"dialer.event.{name}.v1"
    return Logged(topic=topics.EVENTS.name, key=call[:26], type=kind, call_id=call, at=at(seconds), data=data)


def audit(name: str, call: str = CALL) -> Logged:
    kind = f"dialer.audit.{name}.v1"
    return Logged(topic=topics.AUDIT.name, key=call[:26], type=kind, call_id=call, at=T0, data={})


def rejection(fingerprint: str, offset: int = 0) -> Logged:
    data = {
        "topic": "dialer.commands",
        "partition": 3,
        "offset": offset,
        "hmac": fingerprint,
        "field": "to",
        "rule": "x",
    }
    return Logged(topic=topics.REJECTED.name, key="", type="dialer.rejected.v1", call_id=None, at=T0, data=data)


def dial(attempt: int, seconds: float, ends: float | None, *, call: str = CALL, answered: float | None = None) -> Dial:
    return Dial(
        dial_id=f"SCL_{attempt}_{seconds}",
        attempt_id=f"{call}-{attempt}",
        number=NUMBER if call == CALL else OTHER_NUMBER,
        room="r",
        identity="i",
        persona="answers",
        invite_at=at(seconds),
        answered_at=None if answered is None else at(answered),
        ended_at=None if ends is None else at(ends),
        ended_by=EndedBy.REFUSED,
    )


BUSY_ONCE = [
    event("call_requested", 0),
    event("dial_started", 1, attempt=1),
    event("dial_failed", 3, attempt=1, sent=True),
    event("retry_scheduled", 4, attempt=1, not_before=at(10).isoformat()),
    event("dial_started", 11, attempt=2),
    event("call_answered", 13, attempt=2),
    event("call_ended", 20, attempt=2, outcome="delivered"),
    audit("call_ended"),
]
"""A call that is answered on its second attempt."""
BUSY_DIALS = [dial(1, 1.5, 2), dial(2, 11.5, 19, answered=13)]


def settled(
    dials: list[Dial] = BUSY_DIALS,
    records: list[Logged] = BUSY_ONCE,
    given: list[Sent] | None = None,
    **options: bool,
) -> Accounts:
    return settle(given if given is not None else [sent()], dials, records, **options)


def test_a_run_in_which_everything_held_has_no_findings() -> None:
    """One call, busy once, then answered."""
    accounts = settled()
    assert accounts.findings == ()
    assert (accounts.lost, accounts.doubled) == (0, 0)
    assert (accounts.commands, accounts.accepted, accounts.rejected, accounts.terminal_events) == (1, 1, 0, 1)
    assert (accounts.dials_by_witness, accounts.attempts_in_log) == (2, 2)
    assert accounts.outcomes == {"delivered": 1} and accounts.audit == {"call_ended": 1}


def test_a_doubled_dial_of_one_attempt_is_caught() -> None:
    """Two INVITEs with one attempt id: also the second while the first is over."""
    accounts = settled([*BUSY_DIALS[:1], dial(1, 2.5, 3), *BUSY_DIALS[1:]])
    assert accounts.doubled == 1
    assert "2 INVITEs" in accounts.findings[0]


def test_a_dial_while_a_leg_is_live_is_caught_also_of_another_call_of_the_same_number() -> None:
    """The person is what counts, not the call."""
    same = "a" * 26 + "-" + "e" * 16
    other = replace(dial(1, 12.0, 15, call=same), number=NUMBER)
    records = [*BUSY_ONCE, event("dial_started", 11, same, attempt=1), event("call_ended", 16, same, outcome="busy")]
    accounts = settled([*BUSY_DIALS, other], [*records, audit("call_ended", same)], [sent(), sent(same)])
    assert accounts.doubled == 1
    assert "was live" in accounts.findings[0]


def test_a_leg_that_never_ended_is_live_for_ever() -> None:
    """A carrier that was killed leaves no end."""
    accounts = settled([dial(1, 1.5, None), BUSY_DIALS[1]])
    assert accounts.doubled == 1


def test_a_dial_after_an_answer_is_caught() -> None:
    """Whatever was scheduled: an answered call is never rung again."""
    accounts = settled([dial(1, 1.5, 2.5, answered=2), BUSY_DIALS[1]])
    assert accounts.doubled == 1
    assert "had been answered" in accounts.findings[0]


def test_a_dial_sooner_than_its_retry_time_is_caught() -> None:
    """By a millisecond."""
    early = replace(BUSY_DIALS[1], invite_at=at(9.999))
    accounts = settled([BUSY_DIALS[0], early])
    assert accounts.doubled == 1
    assert "0.001 s before" in accounts.findings[0]


def test_a_second_dial_without_a_scheduled_retry_is_caught() -> None:
    """A further attempt needs a committed RetryScheduled."""
    accounts = settled(records=[r for r in BUSY_ONCE if r.type != "dialer.event.retry_scheduled.v1"])
    assert accounts.doubled == 1


def test_a_lost_command_is_caught() -> None:
    """Sent and acknowledged, and nothing on the log."""
    accounts = settled(given=[sent(), sent(OTHER, OTHER_NUMBER, fingerprint="f2")])
    assert accounts.lost == 1
    assert any(OTHER in finding for finding in accounts.findings)
    assert any("commands = accepted + rejected" in finding for finding in accounts.findings)


def test_a_call_without_an_end_is_lost() -> None:
    """Accepted, dialed, and then nothing."""
    accounts = settled(records=[r for r in BUSY_ONCE if "call_ended" not in r.type])
    assert accounts.lost == 1


@pytest.mark.parametrize("kind", [Kind.CONFLICT, Kind.BROKEN])
def test_a_rejection_that_is_not_there_is_lost(kind: Kind) -> None:
    """Every invalid command makes exactly one record."""
    given = [sent(), sent(kind=kind, fingerprint="f2")]
    assert settled(given=given).lost == 1
    assert settled(given=given, records=[*BUSY_ONCE, rejection("f2")]).findings == ()


def test_a_rejection_twice_is_caught() -> None:
    """Exactly one, also over crashes."""
    given = [sent(), sent(kind=Kind.BROKEN, fingerprint="f2")]
    accounts = settled(given=given, records=[*BUSY_ONCE, rejection("f2"), rejection("f2", 1)])
    assert any("twice" in finding for finding in accounts.findings)


def test_a_rejected_command_that_was_valid_is_caught() -> None:
    """It is not lost, for somebody was told; it is wrong all the same."""
    accounts = settled([], [rejection("f1")])
    assert accounts.lost == 0
    assert any("without need" in finding for finding in accounts.findings)


def test_repetitions_are_counted_apart() -> None:
    """The same again is the same call."""
    accounts = settled(given=[sent(), sent(kind=Kind.REPEATED, fingerprint="f3")])
    assert (accounts.commands, accounts.repeated, accounts.findings) == (1, 1, ())


def test_a_dial_that_the_log_does_not_know_is_caught() -> None:
    """Nobody is rung without a recorded reason."""
    accounts = settled([*BUSY_DIALS, dial(1, 30, 31, call=OTHER)])
    assert any("no DialStarted" in finding for finding in accounts.findings)


def test_a_dial_before_its_reason_is_caught() -> None:
    """The reason comes first."""
    accounts = settled([replace(BUSY_DIALS[0], invite_at=at(0.5)), BUSY_DIALS[1]])
    assert any("before its DialStarted" in finding for finding in accounts.findings)


def test_a_withdrawn_dial_that_rang_is_caught() -> None:
    """Known not to have been sent, says the log; the carrier knows better."""
    accounts = settled(records=[*BUSY_ONCE[:2], event("dial_withdrawn", 2, attempt=1), *BUSY_ONCE[2:]])
    assert any("DialWithdrawn" in finding for finding in accounts.findings)


def test_an_attempt_nobody_saw_must_end_as_unknown_withdrawn_or_unsent() -> None:
    """With kills it may be there; without, it may not."""
    unseen = [BUSY_DIALS[0]]
    for says in (event("dial_withdrawn", 15, attempt=2, reason="x"), event("dial_failed", 15, attempt=2, sent=False)):
        assert settled(unseen, [*BUSY_ONCE[:5], says, *BUSY_ONCE[6:]]).findings == ()
    unknown = [*BUSY_ONCE[:5], event("dial_unknown", 15, attempt=2), *BUSY_ONCE[6:]]
    assert settled(unseen, unknown, killed=True).findings == ()
    assert settled(unseen, unknown).findings == ("dials_by_witness = attempts_in_log: 1 is not 2",)
    assert any("never seen" in finding for finding in settled(unseen, killed=True).findings)


def test_two_ends_of_a_call_and_what_follows_an_end_are_caught() -> None:
    """Exactly one terminal event, and nothing about its fate after it."""
    twice = [*BUSY_ONCE, event("call_ended", 21, attempt=2, outcome="busy")]
    assert any("2 terminal events" in finding for finding in settled(records=twice).findings)
    behind = [*BUSY_ONCE, event("retry_scheduled", 21, attempt=2, not_before=at(30).isoformat())]
    assert any("behind the call's end" in finding for finding in settled(records=behind).findings)


def test_another_number_than_the_one_asked_for_is_caught() -> None:
    """The witness knows the number that was really dialed."""
    accounts = settled([BUSY_DIALS[0], replace(BUSY_DIALS[1], number=OTHER_NUMBER)])
    assert any("another number" in finding for finding in accounts.findings)


def test_an_audit_that_lacks_an_end_is_caught() -> None:
    """What auditors read has every end."""
    accounts = settled(records=BUSY_ONCE[:-1])
    assert any("dialer.audit" in finding for finding in accounts.findings)
