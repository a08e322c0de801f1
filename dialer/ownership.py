"""One ownership of one partition: restore, then turn after turn: take inputs, decide, commit, act.

1. State in memory becomes current, and effects run, only after the commit's answer (commit, then act).
2. Any error or missing answer of the log ends this ownership; nothing of its memory is used afterwards.
3. Stops are taken before everything else in every turn, and a turn ends early when one waits.
4. Commands are taken while fewer calls than a bound are open; the others wait on their topic (ADR 17).

What a turn decides is in `dialer/turn.py`. Source: design §5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final, Protocol

from dialer.agents import Agents
from dialer.callee import inputs as i
from dialer.callee.owed import Abandon, Adopt, Effect, deadline, first_deadline, outstanding, owed
from dialer.callee.state import Callee, is_forgettable
from dialer.campaigns import Campaigns
from dialer.committed import Committed
from dialer.data_keys import DataKeys
from dialer.floor import SLICE_S, Floor
from dialer.inbox import Inbox
from dialer.log import PartitionLog, Record, Restored
from dialer.records import RawRecord, decode_offsets, encode_snapshot, offsets_record
from dialer.timers import Timers
from dialer.translate import Translator
from dialer.turn import Decider, Meanwhile, Turn
from dialer.wakeup import Wakeup
from runtime import metrics
from runtime.clock import Clock
from runtime.logs import Log
from runtime.seal import MasterKey
from schemas import topics
from schemas.observations import DialOutcome
from schemas.steps import Step
from schemas.values import attempt_id

TURN_S: Final = 0.025
"""A turn commits after so much work of its own; with something urgent waiting it ends at the next slice. What is in flight
is what a hang-up waits for: turns of twice the length, twice as many of them, wrote no more a second (bench: write_path)."""
POSITIONS_IDLE_S: Final = 5.0
"""Positions alone (renewals, hints) are committed this late: nothing hangs on them."""
OPEN_CALLS_MAX: Final = 20_000
"""Calls without an end that a partition remembers, about 5 KB each, before commands wait on their topic."""

log = Log("dialer.ownership")


class Effects(Meanwhile, Protocol):
    """What runs the effects of one ownership (dialer/effector.py)."""

    def align(self, callee: Callee, wanted: frozenset[Effect], decided_at: float) -> None:
        """Start what is newly owed for this callee, withdraw what is owed no longer."""
        ...

    def close(self) -> None:
        """Withdraw what has not been sent; outcomes of what was sent are still delivered."""
        ...

    def orphaned(self, call_id: str, outcome: DialOutcome) -> None:
        """Deliver an outcome that this ownership did not live to commit."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What every ownership of a process shares."""

    clock: Clock
    pepper: bytes
    master: MasterKey
    memory: timedelta
    campaigns: Campaigns
    batch_max: int
    inbox_max: int
    open_calls_max: int = OPEN_CALLS_MAX
    effects: Callable[[Ownership], Effects]
    floor: Floor = field(init=False)
    """One for all ownerships of the process."""

    def __post_init__(self) -> None:
        """Make what is shared and chosen by nobody."""
        object.__setattr__(self, "floor", Floor(self.clock))


class PositionLost(Exception):
    """Snapshots without `$offsets`, or `$offsets` below a topic's start: never guessed at, somebody must look."""


class Ownership:
    """The state of one partition while it is ours, and its turns."""

    def __init__(self, partition: int, partition_log: PartitionLog, parts: Parts) -> None:
        self.partition = partition
        self.alive = True
        self.agents = Agents(parts.clock)
        self.keys = DataKeys(partition, parts.master, parts.clock)
        self.positions: dict[str, int] = {}
        self._log, self._parts, self._clock = partition_log, parts, parts.clock
        self.callees = Committed()
        self._taken_over: set[tuple[str, int]] = set()
        self._timers = Timers()
        self._inbox = Inbox(parts.inbox_max)
        self._place = parts.floor.place()
        self._stops_open = 0
        self._outcomes: dict[str, i.Dialled] = {}
        """Outcomes that were handed over and are not committed yet."""
        self._wakeup = Wakeup(parts.clock, f"deadline-{partition}")
        self._moment = datetime.min.replace(tzinfo=UTC)  # of the turn before
        self._space = asyncio.Event()
        self._space.set()
        self._committed_at = 0.0
        self._open_calls = metrics.FILL.labels(f"open_calls:{partition}")
        metrics.BOUND.labels(f"open_calls:{partition}").set(parts.open_calls_max)
        self._effects = parts.effects(self)
        self._decider = Decider(
            partition=partition,
            pepper=parts.pepper,
            open_calls_max=parts.open_calls_max,
            inbox=self._inbox,
            timers=self._timers,
            callees=self.callees,
            agents=self.agents,
            translator=Translator(partition, parts.pepper, parts.memory, self.keys, parts.campaigns, parts.clock),
            effects=self._effects,
        )

    # ---- what comes in -------------------------------------------------------------------------------------------

    def offer(self, callee_key: str, given: i.AnyInput) -> bool:
        """Hand an input over in process; False where this ownership is over."""
        if self.alive:
            self._inbox.inputs.append((callee_key, given))
            self._place.hurry()
            self._wakeup.wake()
        return self.alive

    def offer_outcome(self, callee_key: str, call_id: str, outcome: DialOutcome) -> None:
        """Hand a dial's outcome over; it is delivered another way should this ownership end before it is committed."""
        given = i.Dialled(
            id=f"dial/{attempt_id(call_id, outcome.attempt)}",
            at=self._clock.now(),
            call_id=call_id,
            attempt=outcome.attempt,
            outcome=outcome,
        )
        if self.offer(callee_key, given):
            self._outcomes[given.id] = given
        else:
            self._effects.orphaned(call_id, outcome)

    def offer_stops(self, records: Sequence[RawRecord]) -> None:
        """Hand over stops, in order."""
        self._inbox.stops.extend(records)
        self._stops_open += len(records)
        self._place.hurry()
        self._wakeup.wake()

    def offer_records(self, records: Sequence[RawRecord]) -> list[str]:
        """Hand over records of commands and observations; returns the topics that are full now: see `space`."""
        if not self.alive:
            return []
        self._inbox.put(records)
        if self._inbox.observations:
            self._place.hurry()
        self._wakeup.wake()
        return self._inbox.full()

    async def space(self, topic: str) -> None:
        """Return when records of this topic may be handed over again, or this ownership is over."""
        while self.alive and not self._inbox.has_space(topic):
            self._space.clear()
            await self._space.wait()

    def is_alive(self) -> bool:
        """Tell whether this ownership goes on."""
        return self.alive

    def stops_open(self) -> int:
        """Return how many stops were handed over and are not committed yet."""
        return self._stops_open

    def committed(self, callee_key: str) -> Callee | None:
        """Return a callee as it was last committed, where it has open calls."""
        return self.callees.open(callee_key)

    # ---- take-over -----------------------------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Fence, restore, decode what is live. Raises: OwnershipLost, PositionLost."""
        await self._log.fence()
        self._clock.passing(Step.TAKEOVER_FENCED)
        restored = await self._log.restore()
        self._clock.passing(Step.TAKEOVER_RESTORED)
        self._restore(restored)

    def _restore(self, restored: Restored) -> None:
        if restored.offsets is None and restored.snapshots:
            metrics.ALARMS.labels("offsets_missing").inc()
            raise PositionLost("snapshots without $offsets")
        try:
            self.positions = decode_offsets(restored.offsets) if restored.offsets is not None else {}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PositionLost("$offsets cannot be read") from None
        self.keys.restore(restored.keys)
        self.callees.restore(restored.snapshots)

    def reconcile(self) -> None:
        """Start what taken-over calls are owed; what another process dialed is adopted, never dialed."""
        now, mono = self._clock.now(), self._clock.monotonic()
        for callee in self.callees.all_open():
            wanted = outstanding(callee, now)
            self._taken_over |= {(e.call_id, e.attempt) for e in wanted if isinstance(e, Adopt | Abandon)}
            self._effects.align(callee, wanted, mono)
            self._timers.set(callee.callee_key, first_deadline(callee, now))
        self._wakeup.wake()

    # ---- turns ---------------------------------------------------------------------------------------------------

    def forget(self, callee_key: str) -> None:
        """Take a callee whose memory has run out: its next turn writes the tombstone."""
        now = self._clock.now()
        self.offer(callee_key, i.DeadlinePassed(id=f"memory/{now.isoformat()}", at=now))

    async def serve(self) -> None:
        """Take turns until this ownership ends. Raises: OwnershipLost."""
        while self.alive:
            await self._wait()
            if self.alive:
                await self._turn()

    def end(self) -> None:
        """End this ownership: nothing is taken, decided or started any more."""
        if not self.alive:
            return
        self.alive = False
        self._open_calls.set(0)
        self._effects.close()
        for given in self._outcomes.values():
            self._effects.orphaned(given.call_id, given.outcome)
        self._wakeup.cancel()
        self._wakeup.wake()
        self._space.set()

    async def _wait(self) -> None:
        if self._inbox.is_urgent() or (self._inbox.commands and self._decider.has_room(0)):
            await self._clock.sleep(0)
            return
        await self._wakeup.wait(self._timers.next_due())

    async def _turn(self) -> None:
        await self._place.take(urgent=self._inbox.is_urgent())
        try:
            turn = await self._decide()
            self._clock.passing(Step.BATCH_DECIDED)
            await self._encode(turn)
            if not turn.urgent:
                self._place.commits()
        finally:
            self._place.give()
        try:
            await self._commit(turn)
        finally:
            self._place.settle()

    async def _decide(self) -> Turn:
        turn = Turn(
            now=max(self._clock.now(), self._moment),
            not_before=self._moment,
            began=self._clock.monotonic(),
            positions=self.positions,
        )
        while turn.inputs < self._parts.batch_max and self._decider.take_one(turn):
            turn.inputs += 1
            if self._place.slice_is_over():
                if turn.urgent or self._place.worked_s > TURN_S:
                    break
                await self._place.rest()
                if not self.alive or self._inbox.is_urgent():
                    break
        self._space.set()
        self._moment = turn.now
        return turn

    async def _encode(self, turn: Turn) -> None:
        for callee_key, callee in turn.changed.items():
            turn.snapshots[callee_key] = b"" if is_forgettable(callee, turn.now) else encode_snapshot(callee)
            if self._place.slice_is_over():
                await self._place.rest()

    # ---- commit, then act ----------------------------------------------------------------------------------------

    async def _commit(self, turn: Turn) -> None:
        idle = turn.began - self._committed_at < POSITIONS_IDLE_S
        if not (turn.records or turn.changed) and (not turn.moved or (idle and not turn.stops)):
            self.positions |= turn.moved
            await self._after(turn)
            return
        topic = topics.CALLEES.name
        records = turn.records
        records += self.keys.records()
        records += [Record(topic, self.partition, k.encode(), v or None) for k, v in turn.snapshots.items()]
        positions = self.positions | turn.moved
        records.append(offsets_record(self.partition, positions))
        await self._log.commit(records)
        metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - turn.began)
        for kind, count in turn.kinds.items():
            _counter(kind).inc(count)
        self.positions = positions
        self._committed_at = turn.began
        self.keys.committed()
        await self._after(turn)

    async def _after(self, turn: Turn) -> None:
        """Make the turn current, at once; then bring the effects in line with it, in slices."""
        self._stops_open -= turn.stops
        for outcome in turn.outcomes:
            self._outcomes.pop(outcome, None)
        for callee_key, snapshot in turn.snapshots.items():
            self.callees.keep(turn.changed[callee_key], snapshot)
        self._open_calls.set(self.callees.open_calls)
        slice_began = self._clock.monotonic()
        for callee_key in turn.touched:
            if not self.alive:
                return
            now_known = turn.changed.get(callee_key) or self.committed(callee_key)
            if now_known is not None:
                self._effects.align(now_known, self._wanted(now_known, turn.now), turn.began)
                self._timers.set(callee_key, deadline(now_known, turn.now))
            if self._clock.monotonic() - slice_began > SLICE_S:
                await self._clock.sleep(0)
                slice_began = self._clock.monotonic()
        self._clock.passing(Step.EFFECTS_STARTED)

    def _wanted(self, callee: Callee, now: datetime) -> frozenset[Effect]:
        """Return what is owed; an attempt that was taken over is neither opened nor dialed, whatever is owed for it."""
        for call in callee.calls.values():
            if call.attempt is not None and (call.call_id, call.attempt.number) in self._taken_over:
                return outstanding(callee, now)
        return owed(callee, now)


_counter = cache(metrics.EVENTS.labels)
"""A type's counter: the library looks one up under a lock."""
