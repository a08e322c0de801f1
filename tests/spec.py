"""Given/when/then for the core: a history of inputs, one more input, what is decided and what the world is owed.

`given(*inputs).when(*inputs).then(*decisions)`: a decision is expected whole, or by its class where its fields do not
matter. A failing step prints what was decided instead.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

from dialer.callee.evolve import Copied, Recorded
from dialer.callee.inputs import AnyInput
from dialer.callee.owed import deadline, outstanding, owed
from dialer.callee.state import Call, Callee, Phase
from dialer.callee.step import step
from schemas.events import TERMINAL


class Spec:
    """One callee under test: its state, the whole log, and what the last `when` decided."""

    def __init__(self, callee: Callee) -> None:
        self.callee = callee
        self.log: list[Recorded] = []
        self.decided: list[Recorded] = []
        self.rejections: list[str] = []
        self.now: datetime | None = None

    def _take(self, inputs: tuple[AnyInput, ...]) -> None:
        self.decided, self.rejections = [], []
        for one in inputs:
            done = step(self.callee, one)
            self.callee = done.callee
            self.now = one.at if self.now is None else max(self.now, one.at)
            self.decided += done.events
            self.log += done.events
            if done.rejected is not None:
                self.rejections.append(done.rejected)

    def when(self, *inputs: AnyInput) -> Self:
        """Take these inputs, in order."""
        self._take(inputs)
        return self

    def then(self, *expected: Any) -> Self:
        """Expect exactly these decisions, each whole or by its class."""
        found = [d.body for d in self.decided]
        fits = len(found) == len(expected) and all(map(_fits, found, expected))
        assert fits, "\nexpected: " + _show(expected) + "\ndecided:  " + _show(found)
        assert not self.rejections, f"rejected: {self.rejections}"
        return self

    def then_nothing(self) -> Self:
        """Expect that nothing is decided, and nothing changed."""
        return self.then()

    def then_rejected(self, rule: str) -> Self:
        """Expect a rejection and no decision."""
        assert self.rejections == [rule], (
            f"rejected: {self.rejections}, decided: {_show([d.body for d in self.decided])}"
        )
        assert not self.decided
        return self

    def owing(self, *effects: Any) -> Self:
        """Expect exactly these effects to be owed, each whole or by its class."""
        found = owed(self.callee, self._now())
        assert _same(found, effects), f"owed: {found}"
        return self

    def owing_after_takeover(self, *effects: Any) -> Self:
        """Expect exactly these effects of an owner that has just taken this callee over."""
        found = outstanding(self.callee, self._now())
        assert _same(found, effects), f"outstanding: {found}"
        return self

    def due(self, at: datetime | None) -> Self:
        """Expect the next deadline."""
        found = deadline(self.callee, self._now())
        assert found == at, f"due {found}, expected {at}"
        return self

    def in_phase(self, phase: Phase, call_id: str | None = None) -> Self:
        """Expect the (only) open call to stand there."""
        assert self.call(call_id).phase is phase, f"in {self.call(call_id).phase}, expected {phase}"
        return self

    def over(self) -> Self:
        """Expect no open call, and one terminal event for each call that was requested."""
        assert not self.callee.calls
        for call_id in {r.call_id for r in self.log if type(r.body).__name__ == "CallRequested"}:
            ends = [r for r in self.log if r.call_id == call_id and isinstance(r.body, TERMINAL)]
            assert len(ends) == 1, f"{call_id}: {ends}"
        return self

    def call(self, call_id: str | None = None) -> Call:
        """Return an open call; without an id the only one."""
        if call_id is not None:
            return self.callee.calls[call_id]
        (only,) = self.callee.calls.values()
        return only

    def _now(self) -> datetime:
        assert self.now is not None
        return self.now


def _fits(found: object, expected: object) -> bool:
    if isinstance(found, Copied):
        found = found.fact
    return isinstance(found, expected) if isinstance(expected, type) else found == expected


def _same(found: frozenset[Any], expected: tuple[Any, ...]) -> bool:
    left = list(expected)
    for effect in found:
        match = next((e for e in left if effect == e or (isinstance(e, type) and isinstance(effect, e))), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _show(bodies: Any) -> str:
    return "\n          ".join(repr(b) for b in bodies) or "nothing"


def given(*inputs: AnyInput, callee_key: str | None = None) -> Spec:
    """Begin with a history, told in inputs."""
    from tests.histories import CALLEE

    spec = Spec(Callee(callee_key=callee_key or CALLEE))
    spec.when(*inputs)
    return spec


def later(one: AnyInput, seconds: float) -> AnyInput:
    """Return the same input, taken later."""
    return replace(one, at=one.at + timedelta(seconds=seconds))
