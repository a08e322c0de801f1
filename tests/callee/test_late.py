"""Chapter 6: what is heard of an attempt after it was judged as unknown; it replaces that, and never reopens a call."""

from __future__ import annotations

import pytest

from dialer.callee import inputs as i
from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import CallAnswered, CallEnded, DialFailed, DialUnknown, DialWithdrawn, FenceConfirmed, FenceStarted
from schemas.outcomes import Attribution, FenceReason, Outcome, Withdrawal
from tests import histories as h
from tests.spec import Spec, given

DUE = h.at(3 + 80 + 30 + 600)
WAITING = h.unknown()
AGAIN = h.HISTORIES["ringing again after an unknown"][1]


def unknowns(spec: Spec) -> tuple[int, ...]:
    return spec.call().unknown


def test_an_unknown_attempt_is_remembered_until_it_is_known() -> None:
    """By its number; what it came to is on the log."""
    spec = given(*WAITING)
    assert unknowns(spec) == (1,)
    assert any(isinstance(r.body, DialUnknown) for r in spec.log)


def test_a_late_failure_that_may_be_tried_again_leaves_the_committed_retry() -> None:
    """Busy after all: the reader learns it, the callee is rung no sooner than was committed; once."""
    spec = given(*WAITING).when(h.failed(100, 486)).then(DialFailed).in_phase(Phase.WAITING)
    assert spec.decided[0].body.outcome is Outcome.BUSY
    assert (spec.call().due, spec.call().dials, unknowns(spec)) == (DUE, 1, ())
    spec.when(h.failed(101, 486)).then_nothing().when(h.failed(102, 404)).then_nothing()
    spec.when(h.dialled(103, "answered")).then_nothing()


@pytest.mark.parametrize(
    ("sip", "outcome", "by"),
    [(603, Outcome.DECLINED, Attribution.CALLEE), (404, Outcome.INVALID_NUMBER, Attribution.CARRIER)],
)
def test_a_late_final_failure_ends_a_call_that_waits(sip: int, outcome: Outcome, by: Attribution) -> None:
    """Who declined is not rung again because our process was away when it was said."""
    spec = given(*WAITING).when(h.failed(100, sip)).then(DialFailed, CallEnded).over()
    end = spec.decided[-1].body
    assert (end.attempt, end.outcome, end.attribution) == (1, outcome, by)


@pytest.mark.parametrize(
    ("late", "event"),
    [
        (h.dialled(100, "withheld", withheld="stale_dial"), DialWithdrawn(attempt=1, reason=Withdrawal.STALE_DIAL)),
        (
            h.last_word(100, reason="cancelled", seen=False, stayed=True),
            DialWithdrawn(attempt=1, reason=Withdrawal.NOT_SENT),
        ),
        (h.failed(100, None, code="unavailable"), DialFailed),
    ],
    ids=["withheld", "the agent saw no leg", "not reached"],
)
def test_a_dial_that_was_not_sent_after_all_is_not_counted(late: i.AnyInput, event: object) -> None:
    """It takes nothing off `attempts_max`; the retry that is committed stands."""
    spec = given(*WAITING).when(late)
    copied = (f.ConversationEnded,) if isinstance(late, i.FactSeen) else ()
    spec.then(*copied, event).in_phase(Phase.WAITING)
    assert (spec.call().dials, spec.call().due, unknowns(spec)) == (0, DUE, ())


@pytest.mark.parametrize(
    "late",
    [
        h.dialled(100, "unclear"),
        h.failed(100, 482),
        h.failed(100, None, code="failed_precondition"),
        h.last_word(100, reason="no_callee", seen=False),
        h.last_word(100, reason="cancelled", seen=False, stayed=True, gap=True),
        h.last_word(100, reason="failed", seen=False, stayed=False),
    ],
    ids=["unclear", "merged request", "fault after the INVITE", "of a former version", "looked away", "left early"],
)
def test_what_says_nothing_leaves_the_unknown(late: i.AnyInput) -> None:
    """Nobody can say still."""
    spec = given(*WAITING).when(late)
    assert not [r for r in spec.decided if not hasattr(r.body, "fact")]
    assert unknowns(spec) == (1,)


def test_a_late_answer_ends_a_call_that_waits() -> None:
    """Never a further attempt after an answered one, however late the answer is known (promise 2)."""
    spec = given(*WAITING).when(h.dialled(100, "answered")).then(CallAnswered(attempt=1), CallEnded).over()
    assert spec.decided[-1].body.outcome is Outcome.UNKNOWN


def test_a_late_answer_takes_the_next_attempt_down() -> None:
    """Ringing or only opening: its room goes, and what is known of the call ends it."""
    down = FenceStarted(attempt=2, reason=FenceReason.ANSWERED_BEFORE)
    spec = given(*AGAIN).when(h.dialled(720, "answered")).then(CallAnswered(attempt=1), down)
    spec.when(h.last_word(721, 2), h.fenced(722, 2), h.tick(740)).over()
    given(*WAITING, h.slot(714)).when(h.dialled(715, "answered")).then(CallAnswered(attempt=1), down)


def test_a_late_outcome_is_recorded_while_the_next_attempt_is_under_way() -> None:
    """The attempt that the campaign's rule allowed goes on; the counters are put right."""
    spec = given(*AGAIN).when(h.failed(720, 603)).then(DialFailed).in_phase(Phase.RINGING)
    assert (spec.call().dials, unknowns(spec)) == (2, ())
    spec = given(*AGAIN).when(h.dialled(720, "withheld")).then(DialWithdrawn).in_phase(Phase.RINGING)
    assert spec.call().dials == 1
    spec.when(h.status(721, "active", 2)).in_phase(Phase.ANSWERED)
    spec = given(*AGAIN, h.status(720, "active", 2)).when(h.failed(721, 486)).then(DialFailed)
    spec = given(*AGAIN, h.cancel(720)).when(h.failed(721, 486)).then(DialFailed).in_phase(Phase.FENCING)
    spec.when(h.fenced(722, 2), h.tick(732)).over()


def test_an_outcome_of_an_attempt_whose_end_is_known_changes_nothing() -> None:
    """Only what is unknown is replaced."""
    spec = given(*h.HISTORIES["waiting after busy"][1])
    spec.when(h.failed(20, 404)).then_nothing().when(h.dialled(20, "answered")).then_nothing()
    given(*WAITING).when(h.failed(100, 486, 2)).then_nothing()


def test_an_outcome_that_comes_after_the_end_changes_nothing() -> None:
    """`redial: never`: the call ended as unknown, and stays so (promise 1)."""
    spec = given(*h.unknown(h.PREPARED)).over()
    assert spec.log[-1].body.outcome is Outcome.UNKNOWN  # type: ignore[union-attr]
    for late in (h.failed(30, 486), h.dialled(30, "answered"), h.dialled(30, "withheld")):
        spec.when(late).then_nothing()


def test_a_failure_within_the_grace_is_not_late() -> None:
    """The attempt is not judged yet: it fails as it would have."""
    spec = given(*h.dialing(), h.gone(8)).when(h.fenced(10)).then(FenceConfirmed)
    spec.when(h.failed(11, 404), h.last_word(11.5)).over()
    assert not any(isinstance(r.body, DialUnknown) for r in spec.log)


def test_an_answer_of_an_attempt_that_was_never_dialed_is_not_believed() -> None:
    """Its fact is copied, and moves nothing."""
    history = (*h.opening(), h.room(2, ok=False), h.fenced(3), h.slot(10))
    spec = given(*history).when(h.status(11, "active")).then(f.CalleeStatus).in_phase(Phase.OPENING)
    assert spec.call().dialed == ()
    withheld = (*h.dialing(), h.dialled(4, "withheld", withheld="stopped"), h.fenced(5), h.tick(15))
    given(*withheld).when(h.delivered(16)).then(f.NotificationDelivered).in_phase(Phase.WAITING)
