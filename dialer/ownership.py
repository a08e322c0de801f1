"""One ownership of one partition: restore, then turn after turn: take inputs, decide, commit, act.

Guarantees:

1. State in memory becomes current, and effects run, only after the commit's answer (commit, then act).
2. Any error or missing answer of the log ends this ownership; nothing of its memory is used afterwards.
3. Stops are taken before everything else in every turn, and a turn ends early when one waits.
4. A record below the position is dropped: inputs are taken exactly once, whatever the feed hands out.
5. Commands are taken while fewer calls than a bound are open; the others wait on their topic (ADR 17).

Source: design §5.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final, Protocol

from dialer.agents import Agents
from dialer.callee import inputs as i
from dialer.callee.owed import Adopt, Effect, deadline, first_deadline, outstanding, owed
from dialer.callee.state import Callee, Phase, is_forgettable
from dialer.callee.step import step
from dialer.campaigns import Campaigns
from dialer.committed import Committed
from dialer.data_keys import DataKeys
from dialer.floor import SLICE_S, Floor
from dialer.inbox import Inbox
from dialer.log import PartitionLog, Record, Restored
from dialer.records import (
    RawRecord,
    decode_offsets,
    encode_snapshot,
    event_record,
    forwarded,
    offsets_record,
    rejection,
)
from dialer.timers import Timers
from dialer.traceparent import well_formed
from dialer.translate import Forward, Given, Ignored, Joined, Renewed, Translator
from dialer.wakeup import Wakeup
from runtime import metrics
from runtime.clock import Clock
from runtime.logs import Log
from runtime.seal import MasterKey, SealBroken
from schemas import topics
from schemas.facts import AgentReady
from schemas.observations import DialOutcome
from schemas.steps import Step
from schemas.values import Invalid, attempt_id, callee_of

TURN_S: Final = 0.025
"""A turn commits after so much work of its own; with something urgent waiting it ends at the next slice. What is in flight
is what a hang-up waits for: turns of twice the length, twice as many of them, wrote no more a second (bench: write_path)."""
POSITIONS_IDLE_S: Final = 5.0
"""Positions alone (renewals, hints) are committed this late: nothing hangs on them."""
FACTS_SIZE_MAX: Final = 256 * 1024
"""Characters that the numbers of seen facts may take in one callee's snapshot: what a record can hold is bounded, for an
output that the broker refuses would be made again, and refused again, for ever."""
OPEN_CALLS_MAX: Final = 20_000
"""Calls without an end that a partition remembers, about 5 KB each, before commands wait on their topic."""
REJECTED_FIELDS: Final = {"conflict": "request_id", "too_many": "to", "too_many_facts": "number"}

log = Log("dialer.ownership")


class Effects(Protocol):
    """What runs the effects of one ownership (dialer/effector.py)."""

    def align(self, callee: Callee, wanted: frozenset[Effect], decided_at: float) -> None:
        """Start what is newly owed for this callee, withdraw what is owed no longer."""
        ...

    def holds_slot(self, call_id: str) -> bool:
        """Tell whether a granted slot is still held: a grant may have been given back since."""
        ...

    def close(self) -> None:
        """Withdraw what has not been sent; outcomes of what was sent are still delivered."""
        ...

    def leg_joined(self, callee_key: str, call_id: str, attempt: int) -> None:
        """Hang up a leg that came into the room of an attempt that is over."""
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


@dataclass(slots=True)
class _Turn:
    """What one turn has decided so far."""

    now: datetime
    began: float
    records: list[Record] = field(default_factory=list)
    changed: dict[str, Callee] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    positions: dict[str, int] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: list[str] = field(default_factory=list)
    stops: int = 0
    inputs: int = 0
    opened: int = 0
    urgent: bool = False
    snapshots: dict[str, bytes] = field(default_factory=dict)


class Ownership:
    """The state of one partition while it is ours, and its turns."""

    def __init__(self, partition: int, partition_log: PartitionLog, parts: Parts) -> None:
        self.partition = partition
        self.alive = True
        self.agents = Agents(parts.clock)
        self.keys = DataKeys(partition, parts.master, parts.clock)
        self.positions: dict[str, int] = {}
        self._log, self._parts, self._clock = partition_log, parts, parts.clock
        self._translator = Translator(partition, parts.pepper, parts.memory, self.keys, parts.campaigns, parts.clock)
        self.callees = Committed()
        self._adopted: set[tuple[str, int]] = set()
        self._timers = Timers()
        self._inbox = Inbox(parts.inbox_max)
        self._place = parts.floor.place()
        self._stops_open = 0
        self._outcomes: dict[str, i.Dialled] = {}
        """Outcomes that were handed over and are not committed yet."""
        self._wakeup = Wakeup(parts.clock, f"deadline-{partition}")
        self._moment = datetime.min.replace(tzinfo=UTC)
        """The moment of the turn before: an owner's clock never goes backwards, whatever the wall clock does."""
        self._space = asyncio.Event()
        self._space.set()
        self._committed_at = 0.0
        self._open_calls = metrics.FILL.labels(f"open_calls:{partition}")
        metrics.BOUND.labels(f"open_calls:{partition}").set(parts.open_calls_max)
        self._effects = parts.effects(self)

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
            self._adopted |= {(e.call_id, e.attempt) for e in wanted if isinstance(e, Adopt)}
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
        if self._inbox.is_urgent() or (self._inbox.commands and self._has_room(0)):
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

    async def _decide(self) -> _Turn:
        turn = _Turn(now=max(self._clock.now(), self._moment), began=self._clock.monotonic())
        while turn.inputs < self._parts.batch_max and self._take_one(turn):
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

    async def _encode(self, turn: _Turn) -> None:
        for callee_key, callee in turn.changed.items():
            turn.snapshots[callee_key] = b"" if is_forgettable(callee, turn.now) else encode_snapshot(callee)
            if self._place.slice_is_over():
                await self._place.rest()

    def _take_one(self, turn: _Turn) -> bool:
        inbox = self._inbox
        if inbox.stops:
            turn.urgent = True
            turn.stops += 1
            self._take_record(turn, inbox.stops.popleft())
        elif inbox.inputs:
            turn.urgent = True
            callee_key, given = inbox.inputs.popleft()
            if isinstance(given, i.Dialled):
                turn.outcomes.append(given.id)
            if not isinstance(given, i.SlotGranted) or self._effects.holds_slot(given.call_id):
                self._take(turn, callee_key, given, None, None)
        elif due := self._timers.take_due(turn.now, 1):
            given = i.DeadlinePassed(id=f"deadline/{turn.now.isoformat()}", at=turn.now)
            self._take(turn, due[0], given, None, None)
        elif inbox.observations:
            turn.urgent = True
            self._take_record(turn, inbox.observations.popleft())
        elif inbox.commands and self._has_room(turn.opened):
            self._translator.read_ahead(inbox.commands)
            self._take_record(turn, inbox.commands.popleft())
        else:
            return False
        return True

    def _has_room(self, opened: int) -> bool:
        """Tell whether commands are taken: what is open is held in memory, here and wherever this partition goes."""
        return self.callees.open_calls + opened < self._parts.open_calls_max

    def _take_record(self, turn: _Turn, raw: RawRecord) -> None:
        position = turn.positions.get(raw.topic, self.positions.get(raw.topic, 0))
        if raw.offset < position:
            return
        turn.positions[raw.topic] = raw.offset + 1
        try:
            read = self._translator.translate(raw, turn.now)
        except Invalid as invalid:
            self._reject(turn, raw, invalid.field, invalid.rule)
            return
        except SealBroken:
            metrics.ALARMS.labels("seal_broken").inc()
            log.alarm("a data key does not unwrap; the command is rejected", topic=raw.topic, offset=raw.offset)
            self._reject(turn, raw, "to", "callee_parked")
            return
        match read:
            case Given():
                self._take(turn, read.callee_key, read.given, raw, well_formed(read.traceparent))
            case Renewed():
                self._hear(turn, read.call_id, read.attempt, raw)
            case Joined():
                self._effects.leg_joined(callee_of(read.call_id), read.call_id, read.attempt)
            case Forward():
                # a stop is written anew: what a foreign header says of it stays where it was
                kept = raw.headers if read.topic == raw.topic else ()
                turn.records.append(forwarded(raw, read.topic, read.key, read.partition, read.value, kept))
                metrics.INPUTS.labels("forwarded").inc()
            case Ignored():
                metrics.INPUTS.labels("ignored").inc()

    def _take(
        self, turn: _Turn, callee_key: str, given: i.AnyInput, raw: RawRecord | None, traceparent: str | None
    ) -> None:
        callee = turn.changed.get(callee_key) or self.callees.find(callee_key, turn.now)
        if callee is None:
            if raw is not None:
                self._reject(turn, raw, "callee_key", "callee_parked")
            return
        if given.at < self._moment:
            given = replace(given, at=self._moment)
        if isinstance(given, i.FactSeen) and raw is not None:
            self._hear(turn, given.call_id, given.attempt, raw, ready=isinstance(given.fact, AgentReady))
        done = step(callee, given)
        rejected = done.rejected
        if isinstance(given, i.FactSeen) and _facts_size(done.callee) > FACTS_SIZE_MAX:
            rejected = "too_many_facts"
        if rejected is not None and raw is not None:
            self._reject(turn, raw, REJECTED_FIELDS[rejected], rejected)
            return
        turn.touched.add(callee_key)
        if not done.events and is_forgettable(callee, turn.now) and callee_key in self.callees:
            turn.changed[callee_key] = callee
        if done.events:
            turn.opened += len(done.callee.calls) - len(callee.calls)
            turn.changed[callee_key] = done.callee
            for recorded in done.events:
                turn.records.append(event_record(self.partition, callee_key, recorded, traceparent))
                turn.kinds[type(recorded.body).__name__] += 1

    def _hear(self, turn: _Turn, call_id: str, attempt: int, raw: RawRecord, *, ready: bool = True) -> None:
        """Note that an agent lives, while its attempt does: of one that is over nothing is kept."""
        callee_key = callee_of(call_id)
        callee = turn.changed.get(callee_key) or self.committed(callee_key)
        call = callee.calls.get(call_id) if callee is not None else None
        if call is None or call.attempt is None or call.attempt.number != attempt or call.phase is Phase.FENCING:
            return
        self.agents.renewed(call_id, attempt, raw.timestamp_ms, ready=ready)

    def _reject(self, turn: _Turn, raw: RawRecord, name: str, rule: str) -> None:
        metrics.REJECTED.labels(rule).inc()
        if rule == "layout":
            metrics.ALARMS.labels("layout").inc()
            log.alarm("a forwarded record is a stray again", topic=raw.topic, offset=raw.offset)
        turn.records.append(rejection(raw, self.partition, name, rule, self._parts.pepper, turn.now))

    # ---- commit, then act ----------------------------------------------------------------------------------------

    async def _commit(self, turn: _Turn) -> None:
        idle = turn.began - self._committed_at < POSITIONS_IDLE_S
        if not (turn.records or turn.changed) and (not turn.positions or (idle and not turn.stops)):
            self.positions |= turn.positions
            await self._after(turn)
            return
        topic = topics.CALLEES.name
        records = turn.records
        records += self.keys.records()
        records += [Record(topic, self.partition, k.encode(), v or None) for k, v in turn.snapshots.items()]
        positions = self.positions | turn.positions
        records.append(offsets_record(self.partition, positions))
        await self._log.commit(records)
        metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - turn.began)
        for kind, count in turn.kinds.items():
            _counter(kind).inc(count)
        self.positions = positions
        self._committed_at = turn.began
        self.keys.committed()
        await self._after(turn)

    async def _after(self, turn: _Turn) -> None:
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
        """Return what is owed; a call that another process dialed stays adopted while its leg may live."""
        for call in callee.calls.values():
            if call.attempt is not None and (call.call_id, call.attempt.number) in self._adopted:
                return outstanding(callee, now)
        return owed(callee, now)


_counter = cache(metrics.EVENTS.labels)
"""A type's counter: the library looks one up under a lock."""


def _facts_size(callee: Callee) -> int:
    """Return how many characters the facts seen take in a snapshot."""
    of_calls = sum(len(k) + len(v) for call in callee.calls.values() for k, v in call.facts.items())
    return of_calls + sum(len(k) + len(v) for closed in callee.closed.values() for k, v in closed.facts.items())
