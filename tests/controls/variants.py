"""The broken dialers: one row each, the smallest patch that breaks it, and the invariants that must cry out.

A row's `expected` are names of `tests.simulation.watch.INVARIANTS` and `tests.simulation.model.LAWS`; any of them counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from dialer import gate, legs
from dialer.callee import inputs as i
from dialer.callee import judge, stopping
from dialer.callee.evolve import _closed
from dialer.callee.owed import AskTurn, Fence, outstanding
from dialer.callee.state import Phase
from dialer.callee.step import _opted_out
from dialer.effector import Runner, Shared
from dialer.intake import Intake
from dialer.ownership import Ownership
from schemas.outcomes import Withdrawal
from schemas.steps import Step
from schemas.values import CALLEE_KEY_LENGTH, attempt_id, call_id
from tests.controls.patches import bound, rewritten, together
from tests.simulation import plan
from tests.simulation.kafka import SimPartitionLog

OWN_FAULTS: Final = 14
OWN_NTH_MAX: Final = 300
"""A variant's own faults strike so many times a seed, at any of so many passings of their steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to break the dialer."""

    name: str
    broken: str
    """What is done wrong, for people."""
    promise: int
    expected: tuple[str, ...]
    enter: Callable[[], AbstractContextManager[None]]
    faults: tuple[tuple[Step, str], ...] = ()
    """What befalls its seeds at named steps, and often, where the whole table of faults would show it too seldom."""
    seeds_max: int = 60

    @contextmanager
    def befalling(self) -> Iterator[None]:
        """Deal its own faults to every seed, broken or not."""
        with bound(plan._armed, self._armed) if self.faults else nullcontext():
            yield

    def _armed(self, seed: int, chance: random.Random) -> tuple[plan.Armed, ...]:
        del seed
        drawn = [chance.choice(self.faults) for _ in range(OWN_FAULTS)]
        return tuple(plan.Armed(step=step, kind=kind, nth=chance.randint(1, OWN_NTH_MAX)) for step, kind in drawn)


def _no_fence_of_the_log() -> AbstractContextManager[None]:
    """`KafkaLog` fences by `transactional.id = dialer-{partition}`; in the simulation the log's double does."""
    return rewritten(SimPartitionLog.__init__, ('f"dialer-{partition}"', 'f"dialer-{partition}-{process.name}"'))


def _position_before_the_fence() -> AbstractContextManager[None]:
    return rewritten(
        Ownership.take_over,
        ("await self._log.fence()", "restored = await self._log.restore()"),
        (
            "restored = await self._log.restore()\n    self._clock.passing(Step.TAKEOVER_RESTORED)",
            "await self._log.fence()\n    self._clock.passing(Step.TAKEOVER_RESTORED)",
        ),
    )


def _effects_before_the_answer() -> AbstractContextManager[None]:
    return rewritten(
        Ownership._commit,
        (
            "await self._log.commit(records)",
            "await self._after(turn)\n    turn.stops = 0\n    await self._log.commit(records)",
        ),
    )


def _redial_on_unknown() -> AbstractContextManager[None]:
    return rewritten(
        judge._after_unknown,
        ("rules.unknown_after_s is None or ", ""),
        ("seconds=rules.unknown_after_s", "seconds=rules.unknown_after_s or 5"),
    )


def _step_over_the_batch() -> AbstractContextManager[None]:
    """FastStream's default acknowledges what it handed out: whatever went wrong with it, reading goes on behind it."""
    return rewritten(Intake.resume, ("consumer.seek(tp, ownership.positions[tp.topic])", "pass"))


def _gate_without(*reasons: Withdrawal) -> AbstractContextManager[None]:
    return bound(gate.GATE, tuple(row for row in gate.GATE if row.reason not in reasons))


def _gate_before_the_commit() -> AbstractContextManager[None]:
    """The gate is asked when the turn is granted; what was allowed then is sent, however long the commit took."""
    rows = gate.GATE

    def holds(runner: Runner, asked: AskTurn) -> bool:
        callee = runner.ownership.committed(asked.call_id[:CALLEE_KEY_LENGTH])
        call = callee.calls.get(asked.call_id) if callee is not None else None
        if callee is None or call is None or call.attempt is None:
            return False
        now = runner.clock.now()
        dialing = replace(call, phase=Phase.DIALING, attempt=replace(call.attempt, dialed_at=now))
        view = legs._view(runner.ownership, runner.shared, callee.callee_key, dialing, runner.clock.monotonic())
        return all(row.holds(replace(view, call=dialing)) for row in rows)

    async def wait(runner: Runner, turn: str) -> None:
        while (asked := runner._turns.get(turn)) is not None and runner.ownership.alive:
            if holds(runner, asked):
                granted(runner, turn)
                return
            await runner.clock.sleep(legs.GATE_EVERY_S)

    def turn_granted(runner: Runner, turn: str) -> None:
        if holds(runner, runner._turns[turn]):
            granted(runner, turn)
        else:
            runner.clock.spawn(wait(runner, turn), "early-gate")

    granted = Runner.turn_granted
    return together(_attribute(Runner, "turn_granted", turn_granted), bound(gate.GATE, ()))


def _early_cancel_dropped() -> AbstractContextManager[None]:
    return rewritten(stopping.cancelled_early, ("return [_cancelled(given)]", "return []"))


def _ids_without_the_callee() -> AbstractContextManager[None]:
    def without(callee: str, request: str) -> str:
        del callee
        return f"{request}{request[:10]}-{request}"

    return bound(call_id, without)


def _room_again_before_the_dial() -> AbstractContextManager[None]:
    """To be sure that the room stands, it is made again before the INVITE: so a fenced one is open again."""
    again = "await open_room(ownership, shared, callee_key, call)\n    answer = await _through_gate("
    return together(
        rewritten(legs._may_open, ("while ownership.alive:", "while True:\n        return True")),
        rewritten(legs.dial, ("answer = await _through_gate(", again)),
    )


def _room_again_after_a_take_over() -> AbstractContextManager[None]:
    """What this dialer did itself until simulations rang somebody twice by it."""
    return rewritten(
        outstanding,
        ("Dial | OpenRoom", "Dial"),
        ("_TAKEN_OVER.get(call.phase)", "Adopt if call.phase in ON_THE_PHONE else None"),
    )


def _nothing_kept_of_closed_calls() -> AbstractContextManager[None]:
    return rewritten(_closed, ("if call.remember_until > at:", "if False:"))


def _fence_believed_at_once() -> AbstractContextManager[None]:
    """`delete_room` is asked for once, and whatever it answers counts."""

    async def fence(ownership: Ownership, shared: Shared, callee_key: str, effect: Fence, opening: Any) -> None:
        del opening
        await shared.telephony.delete_room(f"call-{effect.call_id}-{effect.attempt}")
        name = f"fence/{attempt_id(effect.call_id, effect.attempt)}"
        at = shared.clock.now()
        ownership.offer(callee_key, i.Fenced(id=name, at=at, call_id=effect.call_id, attempt=effect.attempt))

    return bound(legs.fence, fence)


class _attribute:  # noqa: N801  # reads as the verb it is
    """Set an attribute for a while."""

    def __init__(self, owner: Any, name: str, value: Any) -> None:
        self.owner, self.name, self.value, self.before = owner, name, value, getattr(owner, name)

    def __enter__(self) -> None:
        setattr(self.owner, self.name, self.value)

    def __exit__(self, *_: object) -> None:
        setattr(self.owner, self.name, self.before)


VARIANTS: Final[tuple[Variant, ...]] = (
    Variant(
        name="no fence of the log",
        broken="transactional.id is each process' own: a producer fences nobody",
        promise=2,
        expected=(
            "a callee's sequence counts up by one",
            "state is the fold of the log",
            "one dial request an attempt",
        ),
        enter=_no_fence_of_the_log,
    ),
    Variant(
        name="no fence of the room",
        broken="one delete_room, and whatever it answers counts as a fence",
        promise=2,
        expected=("no INVITE into a fenced attempt", "one live leg a callee", "no leg outlives its agent"),
        enter=_fence_believed_at_once,
    ),
    Variant(
        name="position read before the fence",
        broken="snapshots and $offsets are read first, then the former owner is fenced",
        promise=5,
        expected=("a callee's sequence counts up by one", "state is the fold of the log", "a call is requested once"),
        enter=_position_before_the_fence,
    ),
    Variant(
        name="effects before the commit's answer",
        broken="state becomes current and effects start, then the transaction is sent",
        promise=3,
        expected=(
            "a dial follows its committed dial_started",
            "a room is asked for after its committed attempt_opened",
        ),
        enter=_effects_before_the_answer,
    ),
    Variant(
        name="redial on unknown",
        broken="a dial nobody knows the outcome of is repeated without the campaign's rule",
        promise=2,
        expected=("a retry follows a known outcome, or the campaign's rule",),
        enter=_redial_on_unknown,
    ),
    Variant(
        name="FastStream's default acknowledgement",
        broken="what was handed out counts as done: reading goes on behind it",
        promise=1,
        expected=("every valid request makes a call that ends",),
        enter=_step_over_the_batch,
    ),
    Variant(
        name="no gate on readiness",
        broken="the gate has no row for the agent's readiness",
        promise=4,
        expected=("a dial goes out with a ready agent",),
        faults=(
            (Step.COMMIT_ANSWERED, "broker_away"),
            (Step.EFFECTS_STARTED, "broker_away"),
            (Step.COMMIT_ANSWERED, "pause"),
            (Step.COMMIT_SENDING, "commit_late"),
            (Step.ROOM_ANSWERED, "agent_silent"),
        ),
        enter=lambda: _gate_without(Withdrawal.AGENT_NOT_READY),
    ),
    Variant(
        name="gate before the commit",
        broken="the gate is asked before dial_started is committed instead of before the send",
        promise=6,
        expected=(
            "no dial after an accepted stop",
            "no dial after the kill switch",
            "a dial goes out with a ready agent",
            "no INVITE into a fenced attempt",
        ),
        faults=(
            (Step.EFFECTS_STARTED, "zombie"),
            (Step.COMMIT_ANSWERED, "zombie"),
            (Step.EFFECTS_STARTED, "pause"),
            (Step.COMMIT_SENDING, "commit_late"),
        ),
        enter=_gate_before_the_commit,
    ),
    Variant(
        name="a cancel that overtakes is dropped",
        broken="a cancel of a call that is not known yet is forgotten",
        promise=6,
        expected=("no dial after an accepted stop",),
        enter=_early_cancel_dropped,
    ),
    Variant(
        name="call ids without the callee",
        broken="a call's id is made of its request alone: it does not route itself",
        promise=1,
        expected=("every valid request makes a call that ends",),
        enter=_ids_without_the_callee,
    ),
    Variant(
        name="create_room after the fence",
        broken="the room is made again before the dial, to be sure that it stands",
        promise=2,
        expected=("a room is asked for before its dial, never after its fence",),
        enter=_room_again_before_the_dial,
    ),
    Variant(
        name="create_room after a take-over",
        broken="a room that the former owner asked for is asked for again: its request may come late, and after a fence",
        promise=2,
        expected=("a room is asked for once",),
        enter=_room_again_after_a_take_over,
    ),
    Variant(
        name="an opt-out is only written down",
        broken="what the callee asked for in a call is on the log, and suppresses nobody",
        promise=6,
        expected=("a stop is a stop on the log",),
        enter=lambda: rewritten(_opted_out, ("is not None or given.id", "is not None or True or given.id")),
    ),
    Variant(
        name="snapshots without a horizon",
        broken="a snapshot keeps nothing of closed calls: a repetition is a new call",
        promise=1,
        expected=("a call is requested once",),
        enter=_nothing_kept_of_closed_calls,
    ),
)
"""Design §5 and §6 name each of these as tried, or as what must not be."""
