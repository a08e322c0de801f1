"""The proof's own parts: its plan is even, its calls are different people, its judgement finds what does not hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rehearsal.accounts import Accounts
from rehearsal.disturbing import Moment, Struck
from rehearsal.prove_calls import WEIGHTS, calls
from rehearsal.prove_flight import Flight
from rehearsal.prove_plan import ZOMBIE_STEPS, How, Victim, plan
from rehearsal.prove_report import Ran, report
from rehearsal.reader import Logged
from schemas.steps import Step

ACCOUNTS = Accounts(
    commands=500,
    accepted=500,
    rejected=0,
    terminal_events=500,
    dials_by_witness=510,
    attempts_in_log=510,
    unknown=1,
    doubled=0,
    lost=0,
    repeated=25,
    outcomes={"delivered": 499, "unknown": 1},
    audit={},
    findings=(),
)
KILL = Struck(
    how=How.KILL,
    victim=Victim.DIALER,
    process="dialer-1",
    step="dial_sent",
    moment=Moment(at=1.0, phases={"ringing": 15, "answered": 10}),
    decided_again_s=6.5,
)
RAN = Ran(
    asked=500,
    kills_asked=1,
    pauses_asked=0,
    in_flight_min=20,
    struck=(KILL,),
    missed=(),
    accounts=ACCOUNTS,
    terminal_after_s=30.0,
    took_s=200.0,
)


def test_the_long_form_strikes_every_step_and_every_process_evenly() -> None:
    """320 kills: ten at each named step; the processes beside the dialers have the same share each."""
    rows = plan(320, 30, seed=1)
    killed = [row for row in rows if row.how is How.KILL]
    assert set(Counter(row.step for row in killed if row.victim is Victim.DIALER).values()) == {10}
    assert {step for row in killed if (step := row.step)} == set(Step)
    others = Counter(row.victim for row in killed if row.victim is not Victim.DIALER)
    assert set(others.values()) == {40}
    paused = [row for row in rows if row.how is How.PAUSE]
    assert len(paused) == 30
    assert {row.step for row in paused if row.step} == set(ZOMBIE_STEPS)


def test_the_same_seed_gives_the_same_plan() -> None:
    """And another one another."""
    assert plan(15, 3, seed=7) == plan(15, 3, seed=7) != plan(15, 3, seed=8)


def test_no_kills_make_an_empty_plan() -> None:
    """A proof without disturbance is a load test."""
    assert plan(0, 0, seed=1) == []


def test_each_call_of_a_proof_is_to_a_number_of_its_own() -> None:
    """Ten thousand of them, mixed by weight from the first on."""
    asked = calls(10_000, "proof")
    assert len({request.data["to"] for request in asked}) == 10_000
    assert Counter(request.persona for request in asked[: sum(WEIGHTS.values())]) == Counter(WEIGHTS)


def test_more_calls_than_there_are_numbers_ring_the_first_persons_again() -> None:
    """Each under a request of its own: another call, not a repetition."""
    asked = calls(5_000, "proof", {"answers": 1})
    assert len({request.data["request_id"] for request in asked}) == 5_000
    assert asked[0].data["to"] in {request.data["to"] for request in asked[1:]}


def logged(name: str) -> Logged:
    return Logged(
        topic="dialer.events", key="k", type=f"dialer.event.{name}.v1", call_id="c", at=datetime(2026, 1, 1, tzinfo=UTC)
    )


def test_a_call_is_in_flight_from_its_room_to_its_end() -> None:
    """While it waits it is not; an answer that is heard of late leaves it where it is."""
    flight, seen = Flight(), []
    for name in ("call_requested", "attempt_opened", "dial_started", "fence_started", "call_answered", "call_ended"):
        flight.record(logged(name))
        seen.append(dict(flight.phases()))
    assert seen == [{}, {"opening": 1}, {"dialing": 1}, {"fencing": 1}, {"fencing": 1}, {}]
    assert set(flight.ended) == {"c"}


def test_a_proof_in_which_everything_held_has_no_findings() -> None:
    """And counts its kills by process, step and phase."""
    found = report(RAN)
    assert found.findings == ()
    assert found.summary["kills"] == {"dialer-1": 1}
    assert found.summary["kills_by_step"] == {"dialer/dial_sent": 1}
    assert found.summary["calls_by_phase_at_kills"]["dialer"]["ringing"] == 15


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"accounts": replace(ACCOUNTS, findings=("doubled: x",))}, "doubled: x"),
        ({"accounts": replace(ACCOUNTS, accepted=499)}, "499 were accepted"),
        ({"accounts": replace(ACCOUNTS, unknown=3), "struck": (KILL, KILL)}, "more than 0.5%"),
        ({"accounts": replace(ACCOUNTS, unknown=3), "asked": 500}, "more than 2 for each of 1 dialer kills"),
        ({"kills_asked": 2}, "1 of 2 kills were done"),
        ({"struck": (replace(KILL, moment=Moment(at=1.0, phases={"ringing": 3})),)}, "came with 3 calls in flight"),
        ({"struck": (replace(KILL, decided_again_s=9.5),)}, "decided again after 9.5 s"),
        ({"terminal_after_s": 121.0}, "121 s after the last kill"),
        ({"missed": ("nobody came",)}, "nobody came"),
    ],
)
def test_what_does_not_hold_is_said_in_a_line(changed: dict[str, object], said: str) -> None:
    """A proof that cannot fail proves nothing."""
    found = report(replace(RAN, **changed))
    assert found.broken == (said in {"doubled: x", "499 were accepted"}), "a figure that is missed breaks no promise"
    assert any(said in line for line in found.findings), found.findings
