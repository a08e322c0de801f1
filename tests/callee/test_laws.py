"""Laws that hold for every phase × input kind, over every history of `tests/histories.py`.

1. Every pair has a row. 2. No input raises. 3. The same input again decides nothing. 4. Sequences count up by one.
5. The state is the fold of its events. 6. What changes the state is on the log. 7. A call goes only where its row says.

Law 3 is what makes redelivery harmless, and holds for every input that can be delivered twice. `DeadlinePassed` cannot:
it is no message but a reading of the state, made anew each time. For it the law is that at one instant deadlines come to
rest: after a long absence a call that is overdue is taken down, and at once judged.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import pytest

from dialer.callee import inputs as i
from dialer.callee.evolve import evolve
from dialer.callee.state import Callee, Phase
from dialer.callee.step import Step, step
from dialer.callee.table import CLOSED, TABLE, Acts, Nothing
from dialer.callee.witnessed import CAME_TO
from dialer.records import decode_snapshot, encode_snapshot
from schemas import facts as f
from schemas.outcomes import Refusal
from tests import histories as h
from tests.spec import given

KINDS: tuple[type[Any], ...] = i.CallInput.__args__
RESTS_AFTER = 3


def variants(s: float) -> list[i.AnyInput]:
    """Return inputs of every kind about the first call: of this attempt, of an older and of a later one."""
    found: list[i.AnyInput] = [
        h.place(s),
        h.place(s, 3),
        h.place(s, 3, verdict=None),
        h.place(s, body_hash="another"),
        h.defined(s),
        h.defined(s, verdict=Refusal.MESSAGE_EMPTY),
        h.slot(s),
        h.slot(s, 2),
        h.cancel(s),
        h.cancel(s, 9),
        h.suppress(s),
        h.lift(s),
        h.tick(s),
        h.tick(s + 100_000),
    ]
    for attempt in (1, 2, 3):
        found += [
            h.room(s, attempt),
            h.room(s, attempt, ok=False),
            h.turn(s, attempt),
            h.turn(s + 100_000, attempt),
            h.gone(s, attempt),
            *(h.listed(s, word, attempt) for word in ("dialing", "ringing", "active", "automation", "")),
            h.silent(s, attempt),
            h.fenced(s, attempt),
            h.ready(s, attempt),
            h.delivered(s, attempt),
            h.hung_up(s, attempt),
            h.left(s, attempt),
            h.left(s, attempt, reason="USER_UNAVAILABLE"),
            h.crashed(s, attempt),
            h.last_word(s, attempt),
            h.last_word(s, attempt, reason="no_callee", seen=False),
            h.last_word(s, attempt, reason="no_callee", seen=False, gap=True),
            h.last_word(s, attempt, reason="cancelled", seen=False, stayed=True),
            h.last_word(s, attempt, reason="cancelled", stayed=True),
            h.last_word(s, attempt, reason="failed", seen=False, stayed=False),
            h.fact(s, f.CalleeJoined, 2, attempt),
            h.started(s, attempt),
            h.opted_out(s, attempt),
            h.api_failed(s, attempt),
            h.detected(s, "human", attempt),
            h.voicemail(s, attempt),
            h.transferred(s, attempt),
            h.talked(s, attempt),
            h.fact(s, f.DtmfReceived, 20, attempt, digit=h.BOX),
            h.fact(s, f.RecordingStarted, 21, attempt, egress_id="EG_1"),
            h.fact(s, f.RecordingCompleted, 22, attempt, egress_id="EG_1", path="p", duration_ms=1, size_bytes=1),
            h.fact(s, f.RecordingFailed, 23, attempt, egress_id=None, code="unavailable"),
            *(h.last_word(s, attempt, reason=reason) for reason in CAME_TO),
            h.dialled(s, "answered", attempt),
            h.dialled(s, "unclear", attempt),
            h.dialled(s, "withheld", attempt, withheld="stopped"),
            h.dialled(s, "withheld", attempt),
            *(h.failed(s, sip, attempt) for sip in (486, 503, 603, 482)),
            *(h.failed(s, None, attempt, code=code) for code in ("unavailable", "canceled", "")),
            *(h.status(s, word, attempt) for word in ("dialing", "ringing", "automation", "active", "hangup")),
        ]
    return found


LATER = 800.0
TOLD = h.HISTORIES | h.TALKS
VARIANTS = [*variants(LATER), *variants(-60)]
CASES = [
    pytest.param(history, kind, id=f"{name} x {kind.__name__}")
    for name, (_, history) in TOLD.items()
    for kind in i.AnyInput.__args__
]


def test_every_phase_has_a_row_for_every_input() -> None:
    """A pair that means nothing is a row too, and says why."""
    assert set(TABLE) == {(phase, kind) for phase in Phase for kind in KINDS}
    for row in TABLE.values():
        assert row.reason if isinstance(row, Nothing) else row.leads_to


def test_every_input_kind_is_tried_in_every_phase() -> None:
    """The laws below leave no pair out."""
    tried = {(phase, type(one)) for phase, _ in h.HISTORIES.values() for one in VARIANTS}
    assert set(TABLE) <= tried
    assert {type(one) for one in VARIANTS} == set(i.AnyInput.__args__)


@pytest.mark.parametrize(("history", "kind"), CASES)
def test_any_input_in_any_phase_keeps_the_laws(history: tuple[i.AnyInput, ...], kind: type[Any]) -> None:
    """Total, idempotent, counted, folded, recorded, and only where the table leads; a clock that went back included."""
    before = given(*history).callee
    for one in VARIANTS:
        if type(one) is kind:
            done = step(before, one)
            counts_up(before, done)
            state_is_its_fold(before, done)
            goes_where_the_row_leads(before, one, done)
            comes_to_rest(one, done)
            assert decode_snapshot(encode_snapshot(done.callee)) == done.callee


def counts_up(before: Callee, done: Step) -> None:
    """Each record has the next sequence; none has an earlier time."""
    expected = range(before.sequence + 1, before.sequence + 1 + len(done.events))
    assert [e.sequence for e in done.events] == list(expected)
    assert all(before.now is None or e.at >= before.now for e in done.events)


def state_is_its_fold(before: Callee, done: Step) -> None:
    """What is restored is what was; nothing changes that is not on the log."""
    assert reduce(evolve, done.events, before) == done.callee
    if done.callee != before:
        assert done.events
    if done.rejected is not None:
        assert not done.events


def goes_where_the_row_leads(before: Callee, one: i.AnyInput, done: Step) -> None:
    """From each call's phase only to what its row names; from `fencing` judgement may always follow, and from an opt-out
    what follows from a suppression.
    """
    for call_id, call in before.calls.items():
        if not any(e.call_id == call_id for e in done.events):
            assert done.callee.calls[call_id].phase is call.phase
            continue
        row = TABLE[call.phase, type(one)]
        allowed = set(row.leads_to) if isinstance(row, Acts) else set()
        if is_opt_out(one):
            suppressing = TABLE[call.phase, i.Suppress]
            allowed |= set(suppressing.leads_to) if isinstance(suppressing, Acts) else set()
        if call.phase is Phase.FENCING:
            allowed |= {Phase.FENCING, Phase.WAITING, CLOSED}
        after = done.callee.calls.get(call_id)
        assert (CLOSED if after is None else after.phase) in allowed, (call.phase, type(one))


def is_opt_out(one: i.AnyInput) -> bool:
    return isinstance(one, i.FactSeen) and isinstance(one.fact, f.OptOutHeard)


def test_the_laws_are_tried_with_every_fact_that_an_agent_can_say() -> None:
    """A new fact comes with its variant."""
    tried = {type(one.fact) for one in VARIANTS if isinstance(one, i.FactSeen)}
    assert tried == set(f.FactBody.__args__)


def comes_to_rest(one: i.AnyInput, done: Step) -> None:
    """The same input again decides nothing."""
    again = step(done.callee, one)
    if isinstance(one, i.DeadlinePassed):
        for _ in range(RESTS_AFTER):
            again = step(again.callee, one)
    assert not again.events, [e.body for e in again.events]


@pytest.mark.parametrize("history", [t for _, t in TOLD.values()], ids=list(TOLD))
def test_a_whole_history_delivered_again_decides_nothing(history: tuple[i.AnyInput, ...]) -> None:
    """As after a position that was read too early: all inputs once more, in order."""
    spec = given(*history)
    again = [replace(one, at=spec.now) for one in history]
    spec.when(*(one for one in again if not isinstance(one, i.SlotGranted | i.DeadlinePassed)))
    spec.then_nothing()


@pytest.mark.parametrize("history", [t for _, t in TOLD.values()], ids=list(TOLD))
def test_the_whole_log_folds_to_the_state(history: tuple[i.AnyInput, ...]) -> None:
    """Promise 5: state is a fold of the log."""
    spec = given(*history)
    assert reduce(evolve, spec.log, Callee(callee_key=h.CALLEE)) == spec.callee
    assert [r.sequence for r in spec.log] == list(range(1, len(spec.log) + 1))
    assert all(r.cause for r in spec.log)
