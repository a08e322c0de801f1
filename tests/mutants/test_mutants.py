"""The mutation testing itself: what it makes, how a mutant comes into force, and that its list of survivors holds."""

from __future__ import annotations

import ast
import os
from functools import partial
from pathlib import Path

import pytest

from dialer import gate
from dialer.callee import policy
from dialer.callee.dialing import fence_deadline
from tests import histories as h
from tests.mutants import survivors
from tests.mutants.__main__ import modules
from tests.mutants.force import bring_into_force
from tests.mutants.operators import Enums, Module, Mutant, Where
from tests.mutants.workers import Job, run
from tests.spec import given

SOURCE = '''
"""A module."""
from enum import Enum
class Colour(Enum):
    RED = "red"
    BLUE = "blue"
LIMIT: int = 3
def choose(a: int, b: int, *, strict: bool = True) -> Colour | None:
    """Choose."""
    assert a >= 0, "left alone"
    if a < b and not strict:
        return Colour.RED
    found = sorted([a, b], reverse=True)
    return None if found else Colour.BLUE
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Mutant]:
    """The mutants of a small module, by what they change."""
    path = tmp_path_factory.mktemp("module") / "small.py"
    path.write_text(SOURCE)
    return {m.text: m for m in Module(str(path), Enums(path)).mutants}


@pytest.mark.parametrize(
    "change",
    [
        "a < b and (not strict) → a <= b and (not strict)",
        "a < b and (not strict) → a < b or not strict",
        "a < b and (not strict) → not strict",
        "a < b and (not strict) → a < b",
        "a < b and (not strict) → True",
        "a < b and (not strict) → a < b and strict",
        "return Colour.RED → return None",
        "Colour.RED → Colour.BLUE",
        "3 → 4",
        "3 → 2",
        "found = sorted([a, b], reverse=True) → pass",
        "sorted([a, b], reverse=True) without reverse=True",
        "reverse=True → reverse=False",
        "[a, b] without a",
    ],
)
def test_every_kind_of_fault_is_made(made: dict[str, Mutant], change: str) -> None:
    """Comparisons, booleans, constants, members, statements, arguments, elements."""
    assert change in made, "\n".join(sorted(made))


def test_what_is_no_behaviour_is_left_alone(made: dict[str, Mutant]) -> None:
    """Docstrings, annotations, assertions."""
    assert not [text for text in made if "left alone" in text or "Choose" in text or "a >= 0" in text]
    assert all(m.scope for m in made.values())


def test_a_change_is_taken_back_after_it_was_made(made: dict[str, Mutant]) -> None:
    """One tree serves all mutants of a module."""
    mutant = made["3 → 4"]
    before = ast.dump(mutant.edit.parent)
    with mutant.edit.made():
        assert ast.dump(mutant.edit.parent) != before
    assert ast.dump(mutant.edit.parent) == before


def _is_open() -> bool:
    from tests.shell.test_gate import OPEN

    return gate.judge(OPEN) == (gate.Verdict.OPEN, None)


def _grace_s() -> float:
    call = given(*h.HISTORIES["fenced, waiting for the last word"][1]).call()
    return (fence_deadline(call) - h.at(10)).total_seconds()


@pytest.mark.parametrize(
    ("path", "text", "probe", "before"),
    [
        ("dialer/gate.py", "not row.holds(view) → True", _is_open, True),
        ("dialer/gate.py", "lambda v: not v.draining → lambda v: v.draining", _is_open, True),
        ("dialer/callee/policy.py", "seconds=10 → seconds=11", _grace_s, policy.SETTLE_GRACE.total_seconds()),
    ],
    ids=["a function", "a row of a table", "a figure that others imported"],
)
def test_a_mutant_comes_into_force_where_everything_is_imported(
    path: str, text: str, probe: object, before: object
) -> None:
    """In a worker, and nowhere else: this process goes on unchanged."""
    module = modules()[path]
    mutants = [m for m in module.mutants if m.text.startswith(text) and m.where is not Where.CLASS]
    assert mutants
    assert callable(probe)
    assert probe() == before

    def work(mutant: Mutant) -> object:
        bring_into_force(mutant, module)
        return probe()

    ends = run([Job(m.key, 30.0, partial(work, m)) for m in mutants], 1)
    assert any(end.answer != before for end in ends)
    assert probe() == before


def test_a_worker_that_hangs_or_dies_is_told_from_one_that_answers() -> None:
    """A fault may loop for ever, or end the process."""

    def loop() -> None:
        while True:
            pass

    jobs = [Job("answers", 20.0, lambda: 7), Job("hangs", 0.3, loop), Job("dies", 20.0, lambda: os._exit(3))]
    assert {end.name: (end.ended, end.answer) for end in run(jobs, 2)} == {
        "answers": ("answered", 7),
        "hangs": ("timeout", None),
        "dies": ("died", None),
    }


def test_every_listed_survivor_has_a_reason() -> None:
    """Why no test could notice it, or none should; that it is still made, and still survives, a whole run says."""
    listed = survivors.accepted()
    assert listed
    assert all(len(reason) >= survivors.REASON_MIN_CHARACTERS for reason in listed.values())


def test_a_survivor_without_a_reason_fails_and_a_killed_one_is_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ninety per cent is not enough by itself."""
    listed = tmp_path / "survivors.json"
    listed.write_text('{"equivalent: it cannot be seen": ["known"]}')
    monkeypatch.setattr(survivors, "FILE", listed)
    killed = [f"k{n}" for n in range(20)]
    assert survivors.judge(killed, ["known"], [*killed, "known"]).holds
    assert survivors.judge(killed, ["known", "new"], [*killed, "known", "new"]).unexplained == ("new",)
    assert survivors.judge([*killed, "known"], [], [*killed, "known"]).outdated == ("known",)
    assert survivors.judge(killed, [], killed).outdated == ("known",)
    assert not survivors.judge(killed[:5], ["known"], [*killed, "known"]).holds
