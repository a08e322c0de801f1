"""What one turn of an ownership decides: inputs in, records and changed callees out; nothing of it is current yet.

Stops come before everything else, then what this process brings itself, deadlines, observations, commands. A record below
the position is dropped: inputs are taken exactly once, whatever the feed hands out. Source: design §5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

from dialer.agents import Agents
from dialer.callee import inputs as i
from dialer.callee.state import Callee, Phase, is_forgettable
from dialer.callee.step import step
from dialer.committed import Committed
from dialer.inbox import Inbox
from dialer.log import Record
from dialer.records import RawRecord, event_record, forwarded, rejection
from dialer.timers import Timers
from dialer.traceparent import well_formed
from dialer.translate import Forward, Given, Ignored, Joined, Renewed, Translator
from runtime import metrics
from runtime.logs import Log
from runtime.seal import SealBroken
from schemas.facts import AgentReady
from schemas.values import Invalid, callee_of

FACTS_SIZE_MAX: Final = 256 * 1024
"""Characters that the numbers of seen facts may take in one callee's snapshot: what a record can hold is bounded, for an
output that the broker refuses would be made again, and refused again, for ever."""
REJECTED_FIELDS: Final = {"conflict": "request_id", "too_many": "to", "too_many_facts": "number"}

log = Log("dialer.turn")


@dataclass(slots=True, kw_only=True)
class Turn:
    """What has been decided so far, from the committed `positions` on."""

    now: datetime
    not_before: datetime
    """The moment of the turn before: an owner's clock never goes backwards, whatever the wall clock does."""
    began: float
    positions: Mapping[str, int]
    moved: dict[str, int] = field(default_factory=dict)
    """Positions that this turn moved on."""
    records: list[Record] = field(default_factory=list)
    changed: dict[str, Callee] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: list[str] = field(default_factory=list)
    stops: int = 0
    inputs: int = 0
    opened: int = 0
    urgent: bool = False
    snapshots: dict[str, bytes] = field(default_factory=dict)


class Meanwhile(Protocol):
    """What a decision asks of, and tells, the effects that run (dialer/effector.py)."""

    def holds_slot(self, call_id: str) -> bool:
        """Tell whether a granted slot is still held: a grant may have been given back since."""
        ...

    def leg_joined(self, callee_key: str, call_id: str, attempt: int) -> None:
        """Hang up a leg that came into the room of an attempt that is over."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Takes one partition's inputs, one at a time."""

    partition: int
    pepper: bytes
    open_calls_max: int
    inbox: Inbox
    timers: Timers
    callees: Committed
    agents: Agents
    translator: Translator
    effects: Meanwhile

    def take_one(self, turn: Turn) -> bool:
        """Take the next input; False where there is none, or none may be taken."""
        inbox = self.inbox
        if inbox.stops:
            turn.urgent = True
            turn.stops += 1
            self._take_record(turn, inbox.stops.popleft())
        elif inbox.inputs:
            turn.urgent = True
            callee_key, given = inbox.inputs.popleft()
            if isinstance(given, i.Dialled):
                turn.outcomes.append(given.id)
            if not isinstance(given, i.SlotGranted) or self.effects.holds_slot(given.call_id):
                self._take(turn, callee_key, given, None, None)
        elif due := self.timers.take_due(turn.now, 1):
            given = i.DeadlinePassed(id=f"deadline/{turn.now.isoformat()}", at=turn.now)
            self._take(turn, due[0], given, None, None)
        elif inbox.observations:
            turn.urgent = True
            self._take_record(turn, inbox.observations.popleft())
        elif inbox.commands and self.has_room(turn.opened):
            self.translator.read_ahead(inbox.commands)
            self._take_record(turn, inbox.commands.popleft())
        else:
            return False
        return True

    def has_room(self, opened: int) -> bool:
        """Tell whether commands are taken: what is open is held in memory, here and wherever this partition goes."""
        return self.callees.open_calls + opened < self.open_calls_max

    def _take_record(self, turn: Turn, raw: RawRecord) -> None:
        position = turn.moved.get(raw.topic, turn.positions.get(raw.topic, 0))
        if raw.offset < position:
            return
        turn.moved[raw.topic] = raw.offset + 1
        try:
            read = self.translator.translate(raw, turn.now)
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
                self.effects.leg_joined(callee_of(read.call_id), read.call_id, read.attempt)
            case Forward():
                # a stop is written anew: what a foreign header says of it stays where it was
                kept = raw.headers if read.topic == raw.topic else ()
                turn.records.append(forwarded(raw, read.topic, read.key, read.partition, read.value, kept))
                metrics.INPUTS.labels("forwarded").inc()
            case Ignored():
                metrics.INPUTS.labels("ignored").inc()

    def _take(
        self, turn: Turn, callee_key: str, given: i.AnyInput, raw: RawRecord | None, traceparent: str | None
    ) -> None:
        callee = turn.changed.get(callee_key) or self.callees.find(callee_key, turn.now)
        if callee is None:
            if raw is not None:
                self._reject(turn, raw, "callee_key", "callee_parked")
            return
        if given.at < turn.not_before:
            given = replace(given, at=turn.not_before)
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

    def _hear(self, turn: Turn, call_id: str, attempt: int, raw: RawRecord, *, ready: bool = True) -> None:
        """Note that an agent lives, while its attempt does: of one that is over nothing is kept."""
        callee_key = callee_of(call_id)
        callee = turn.changed.get(callee_key) or self.callees.open(callee_key)
        call = callee.calls.get(call_id) if callee is not None else None
        if call is None or call.attempt is None or call.attempt.number != attempt or call.phase is Phase.FENCING:
            return
        self.agents.renewed(call_id, attempt, raw.timestamp_ms, ready=ready)

    def _reject(self, turn: Turn, raw: RawRecord, name: str, rule: str) -> None:
        metrics.REJECTED.labels(rule).inc()
        if rule == "layout":
            metrics.ALARMS.labels("layout").inc()
            log.alarm("a forwarded record is a stray again", topic=raw.topic, offset=raw.offset)
        turn.records.append(rejection(raw, self.partition, name, rule, self.pepper, turn.now))


def _facts_size(callee: Callee) -> int:
    """Return how many characters the facts seen take in a snapshot."""
    of_calls = sum(len(k) + len(v) for call in callee.calls.values() for k, v in call.facts.items())
    return of_calls + sum(len(k) + len(v) for closed in callee.closed.values() for k, v in closed.facts.items())
