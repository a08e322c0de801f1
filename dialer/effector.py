"""Runs what is owed: one runner an ownership, bringing what runs in line with what is wanted, after every commit.

One table says how each effect is started and how it is withdrawn. A dial is never withdrawn once it is sent: its outcome
is a message, handed over in process while the ownership lives, and produced to `dialer.observations` when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, assert_never

from dialer.callee import inputs as i
from dialer.callee.owed import Abandon, Adopt, AskSlot, AskTurn, Dial, Effect, Fence, LookUp, OpenRoom, WatchAgent
from dialer.callee.state import ACTIVE, Call, Callee
from dialer.campaigns import Campaigns
from dialer.legs import abandoned, dial, fence, hang_up_stray, open_room
from dialer.lookup import look_up
from dialer.outcomes import Outcomes
from dialer.pacer import Pacer
from dialer.reconciler import LOOK_EVERY_S, LOST_AFTER_S, adopt, doubt, lose
from dialer.telephony import Telephony, Trunk
from dialer.trunks import caller_id_for
from runtime import metrics
from runtime.clock import Clock
from runtime.seal import BriefBox
from schemas.observations import DialOutcome
from schemas.outcomes import Withdrawal
from schemas.steps import Step
from schemas.values import attempt_id, callee_of

if TYPE_CHECKING:
    from dialer.ownership import Ownership

SILENCE_EVERY_S: Final = 1.0


class Sight(Protocol):
    """What the gate and the pacer must see of the outside: intake's stops and membership, and the control topic."""

    def membership_age_s(self) -> float:
        """Return how long ago membership was confirmed."""
        ...

    def stops_age_s(self, ownership: Ownership) -> float:
        """Return how long ago every accepted stop was known to be committed."""
        ...

    def control_age_s(self) -> float:
        """Return how long ago control was read to its end."""
        ...

    def stopped(self, campaign_id: str) -> bool:
        """Tell whether dialling is stopped, for all or for this campaign."""
        ...

    def control_version(self) -> str:
        """Name the control state that is in force."""
        ...


@dataclass(kw_only=True)
class Shared:
    """What all runners of a process share."""

    clock: Clock
    telephony: Telephony
    campaigns: Campaigns
    outcomes: Outcomes
    brief_box: BriefBox
    agent_name: str
    trunks: dict[str, Trunk]
    trunk_ids: dict[str, str]
    session_timeout_s: float
    dials_max: int
    sight: Sight
    pacer: Pacer
    draining: bool = False
    dialing: int = 0
    dial_slots: asyncio.Semaphore = field(init=False)
    asking: dict[tuple[str, str], Runner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dial_slots = asyncio.Semaphore(self.dials_max)
        metrics.BOUND.labels("dials").set(self.dials_max)

    def granted(self, kind: str, key: str) -> None:
        """Pass a grant of the pacer on to the runner that asked."""
        runner = self.asking.pop((kind, key), None)
        if runner is None:
            self.pacer.release(key) if kind == "slot" else self.pacer.withdraw(key)
        elif kind == "slot":
            runner.slot_granted(key)
        else:
            runner.turn_granted(key)


class Runner:
    """The effects of one ownership."""

    def __init__(self, ownership: Ownership, shared: Shared) -> None:
        self.ownership, self.shared, self.clock = ownership, shared, shared.clock
        self._running: dict[str, dict[Effect, asyncio.Task[None] | None]] = {}
        self._slots: dict[str, set[str]] = {}
        self._granted: set[str] = set()
        """Calls whose granted slot is still on its way to the core; any other slot that is held is an attempt's."""
        self._turns: dict[str, AskTurn] = {}
        self._opening: dict[tuple[str, int], asyncio.Task[None]] = {}
        """Requests for rooms, by attempt, until the attempt is fenced: a fence must come after the request."""
        self._doubted: set[tuple[str, int]] = set()
        """Silent agents whom LiveKit is being asked after."""
        self._silence: asyncio.Task[None] | None = None
        self._closed = False

    # ---- bringing in line ----------------------------------------------------------------------------------------

    def align(self, callee: Callee, wanted: frozenset[Effect], decided_at: float) -> None:
        """Start what is newly owed, withdraw what is owed no longer, give slots back."""
        if self._closed:
            return
        running = self._running.get(callee.callee_key)
        if running is None:
            if not wanted and callee.callee_key not in self._slots:
                return
            running = self._running[callee.callee_key] = {}
        for effect in [e for e in running if e not in wanted]:
            self._withdraw(effect, running.pop(effect), wanted)
            if isinstance(effect, AskTurn):
                self._overtaken(callee, effect, wanted)
        for effect in wanted:
            if effect not in running:
                running[effect] = self._start(callee, effect, decided_at)
        self._keep_slots(callee, wanted)
        if not running:
            self._running.pop(callee.callee_key, None)

    def _overtaken(self, callee: Callee, asked: AskTurn, wanted: frozenset[Effect]) -> None:
        """Say of a dial that was decided and superseded within one transaction that it was never sent: nobody else can."""
        call = callee.calls.get(asked.call_id)
        attempt = call.attempt if call is not None else None
        if attempt is None or attempt.number != asked.attempt or attempt.dialed_at is None or attempt.settled:
            return
        if Dial(asked.call_id, asked.attempt) not in wanted:
            outcome = DialOutcome(attempt=asked.attempt, result="withheld", withheld=Withdrawal.SUPERSEDED.value)
            self.ownership.offer_outcome(callee.callee_key, asked.call_id, outcome)

    def holds_slot(self, call_id: str) -> bool:
        """Tell whether this call's slot is held."""
        return call_id in self._slots.get(callee_of(call_id), ())

    def close(self) -> None:
        """Withdraw everything but dials that are under way; their outcomes are still delivered."""
        self._closed = True
        for running in self._running.values():
            for effect, task in running.items():
                self._withdraw(effect, task, frozenset())
        self._running.clear()
        for held in self._slots.values():
            for call_id in held:
                self.shared.pacer.release(call_id)
        self._slots.clear()
        if self._silence is not None:
            self._silence.cancel()

    def _keep_slots(self, callee: Callee, wanted: frozenset[Effect]) -> None:
        """Hold a slot for the active call, however it came by it, and for no other."""
        held = self._slots.setdefault(callee.callee_key, set())
        asked = {e.call_id for e in wanted if isinstance(e, AskSlot)}
        for call_id in [c for c in held if c not in asked and not _active(callee, c)]:
            self._give_back(callee.callee_key, call_id)
        for call in callee.calls.values():
            if call.phase not in ACTIVE:
                continue
            self._granted.discard(call.call_id)
            if call.call_id not in held:
                assert call.rules is not None
                held.add(call.call_id)
                self.shared.pacer.occupy(call.call_id, call.rules.trunk)
        if not held:
            del self._slots[callee.callee_key]

    def _give_back(self, callee_key: str, call_id: str) -> None:
        """Give a call's slot back, if it holds one."""
        self._granted.discard(call_id)
        held = self._slots.get(callee_key, set())
        if call_id in held:
            held.discard(call_id)
            self.shared.pacer.release(call_id)

    # ---- the table -----------------------------------------------------------------------------------------------

    def _start(self, callee: Callee, effect: Effect, decided_at: float) -> asyncio.Task[None] | None:
        call, key, shared = callee.calls[effect.call_id], callee.callee_key, self.shared
        match effect:
            case LookUp():
                return self._spawn(look_up(self.ownership, shared, key, call), "look-up")
            case AskSlot():
                if effect.call_id not in self._granted:
                    self._give_back(key, effect.call_id)  # the attempt's before, where the next is due with its end
                    shared.asking["slot", effect.call_id] = self
                    shared.pacer.ask_slot(effect.call_id, effect.trunk, effect.campaign_id, effect.priority)
                return None
            case OpenRoom():
                task = self._spawn(open_room(self.ownership, shared, key, call), "open-room")
                self._opening[effect.call_id, effect.attempt] = task
                return task
            case AskTurn():
                turn = attempt_id(effect.call_id, effect.attempt)
                self._turns[turn] = effect
                shared.asking["turn", turn] = self
                shared.pacer.ask_turn(turn, effect.trunk)
                return None
            case WatchAgent():
                self.ownership.agents.watch(effect.call_id, effect.attempt)
                if self._silence is None:
                    self._silence = self._spawn(self._listen_for_silence(), "agent-silence")
                return None
            case Dial():
                return self._spawn(self._dial(key, call, effect, decided_at), "dial")
            case Adopt():
                return self._spawn(adopt(self.ownership, shared, key, effect), "adopt")
            case Abandon():
                self.ownership.offer(key, abandoned(shared, effect))
                return None
            case Fence():
                self.ownership.agents.forget(effect.call_id, effect.attempt)
                opening = self._opening.pop((effect.call_id, effect.attempt), None)
                return self._spawn(fence(self.ownership, shared, key, effect, opening), "fence")
        assert_never(effect)

    def _withdraw(self, effect: Effect, task: asyncio.Task[None] | None, wanted: frozenset[Effect]) -> None:
        shared = self.shared
        match effect:
            case LookUp() | Adopt() | Fence():
                if task is not None:
                    task.cancel()
            case AskSlot():
                if shared.asking.pop(("slot", effect.call_id), None) is not None:
                    shared.pacer.withdraw(effect.call_id)
            case AskTurn():
                turn = attempt_id(effect.call_id, effect.attempt)
                self._turns.pop(turn, None)
                asked = shared.asking.pop(("turn", turn), None)
                if asked is not None or Dial(effect.call_id, effect.attempt) not in wanted:
                    shared.pacer.withdraw(turn)
            case WatchAgent():
                self.ownership.agents.forget(effect.call_id, effect.attempt)
            case OpenRoom() | Dial():
                pass  # what was asked of LiveKit goes on; the answer finds its phase gone, or is delivered otherwise
            case Abandon():
                pass  # it was said at once
            case _:
                assert_never(effect)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.clock.spawn(work, name)

    # ---- grants --------------------------------------------------------------------------------------------------

    def slot_granted(self, call_id: str) -> None:
        """Hold the slot and tell the core."""
        key = callee_of(call_id)
        self._slots.setdefault(key, set()).add(call_id)
        self._granted.add(call_id)
        self.ownership.offer(key, i.SlotGranted(id=f"slot/{call_id}", at=self.clock.now(), call_id=call_id))

    def turn_granted(self, turn: str) -> None:
        """Tell the core that it is this attempt's turn."""
        asked = self._turns.pop(turn)
        trunk = self.shared.trunks[asked.trunk]
        granted = i.TurnGranted(
            id=f"turn/{turn}",
            at=self.clock.now(),
            call_id=asked.call_id,
            attempt=asked.attempt,
            trunk=asked.trunk,
            caller_id=caller_id_for(trunk, asked.call_id),
            control=self.shared.sight.control_version(),
        )
        self.ownership.offer(callee_of(asked.call_id), granted)

    async def _listen_for_silence(self) -> None:
        while not self._closed:
            await self.clock.sleep(SILENCE_EVERY_S)
            for call_id, attempt in self.ownership.agents.silent():
                if self.ownership.agents.age_s(call_id, attempt) > LOST_AFTER_S:
                    lose(self.ownership, self.shared, call_id, attempt)
                elif (call_id, attempt) not in self._doubted:
                    self._doubted.add((call_id, attempt))
                    self._spawn(self._doubt(call_id, attempt), "doubt")

    async def _doubt(self, call_id: str, attempt: int) -> None:
        try:
            await doubt(self.ownership, self.shared, call_id, attempt)
        finally:
            self._doubted.discard((call_id, attempt))

    # ---- the leg -------------------------------------------------------------------------------------------------

    async def _dial(self, callee_key: str, call: Call, effect: Dial, decided_at: float) -> None:
        shared = self.shared
        shared.dialing += 1
        metrics.FILL.labels("dials").set(shared.dialing)
        try:
            async with shared.dial_slots:
                outcome = await dial(self.ownership, shared, callee_key, call, decided_at)
        finally:
            shared.dialing -= 1
            metrics.FILL.labels("dials").set(shared.dialing)
        metrics.DIALS.labels(outcome.result).inc()
        if outcome.result == "unclear" and self.ownership.alive:
            # nothing is known of the leg, which may ring and talk: it is looked after as one that another process dialed
            await self.clock.sleep(LOOK_EVERY_S)
            await adopt(self.ownership, shared, callee_key, Adopt(effect.call_id, effect.attempt))
            return
        self.ownership.offer_outcome(callee_key, effect.call_id, outcome)
        self.clock.passing(Step.OUTCOME_HANDED_OVER)

    def leg_joined(self, callee_key: str, call_id: str, attempt: int) -> None:
        """Take LiveKit's word that a leg came into a room: of an attempt that is over, it is hung up."""
        callee = self.ownership.committed(callee_key)
        call = callee.calls.get(call_id) if callee is not None else None
        of = call.attempt if call is not None else None
        if of is None or of.number != attempt or of.dialed_at is None or of.fenced_at is not None:
            self._spawn(hang_up_stray(self.shared, call_id, attempt), "stray-leg")

    def orphaned(self, call_id: str, outcome: DialOutcome) -> None:
        """Deliver an outcome that this ownership did not live to commit."""
        self._spawn(self.shared.outcomes.publish(call_id, outcome), "outcome")


def _active(callee: Callee, call_id: str) -> bool:
    call = callee.calls.get(call_id)
    return call is not None and call.phase in ACTIVE
