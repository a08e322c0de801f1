"""Pacing of one process: slots (concurrency, open rooms) and turns (calls per second), in this process's share.

1. In any rolling second no more INVITEs of a trunk leave than its limit: held at the moment of sending, by `spend`.
2. No more slots of a trunk are granted than its concurrency, and none over `rooms_max`; a slot lasts from before the
   room until its attempt is fenced. Only calls adopted at a take-over may go beyond; nothing is granted until below.
3. Limits are floor(limit × partitions owned / all); a share of 0 grants nothing and is not ready.
4. Who waits is served by priority (9 first), campaigns of a priority in turn, first come first served. A campaign that
   is held is granted no slot and keeps its places. Turns are granted all the same: a call that has its room already is
   withdrawn at the gate, and gives room and slot back.

A turn is granted only while sends of the last second and turns still out leave room, so a fresh turn can be spent
whenever its 5 s allow. What waits is bounded by the calls of the partitions owned. Source: design §5 (pacing).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal

from dialer.lanes import Lanes
from dialer.telephony import Trunk
from runtime.clock import Clock
from runtime.logs import Log
from runtime.metrics import ALARMS, BOUND, FILL

TURN_TTL_S: Final = 5.0
WINDOW_S: Final = 1.0
GUARD_S: Final = 0.05
"""The window is kept this much longer: INVITEs take a little longer on their way one time than another."""
PRIORITY_DEFAULT: Final = 5
log = Log(__name__)
Kind = Literal["slot", "turn"]
Granted = Callable[[Kind, str], None]


@dataclass(slots=True)
class _Line:
    """One trunk: its limits in full and in share, who waits, who holds, what was sent."""

    name: str
    calls_per_s_max: int
    concurrency_max: int
    slots: Lanes
    turns: Lanes
    calls_per_s: int = 0
    concurrency: int = 0
    rate_from: float = 0.0
    """When the present rate begins to count: a share that grew waits for what the former owner sent last."""
    held: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Keys with a slot: (campaign, priority)."""
    out: dict[str, float] = field(default_factory=dict)
    """Turns that were granted and not spent: when."""
    sent: deque[float] = field(default_factory=deque)

    def forget(self, now: float, window_s: float) -> None:
        """Drop sends that left the window, and turns that have become stale."""
        while self.sent and now >= self.sent[0] + window_s:
            self.sent.popleft()
        while self.out:  # granted in order of time, so the first is the oldest
            key, granted_at = next(iter(self.out.items()))
            if now < granted_at + TURN_TTL_S:
                break
            del self.out[key]

    def has_turn(self, now: float) -> bool:
        """Tell whether one more turn may go out now."""
        return now >= self.rate_from and len(self.sent) + len(self.out) < self.calls_per_s

    def next_turn_at(self, window_s: float) -> float | None:
        """Say when a turn may next go out to who waits, as far as time alone can bring it."""
        if not self.turns or self.calls_per_s == 0:
            return None
        frees = [self.sent[0] + window_s] if self.sent else []
        frees += [next(iter(self.out.values())) + TURN_TTL_S] if self.out else []
        soonest = min(frees) if frees and len(self.sent) + len(self.out) >= self.calls_per_s else self.rate_from
        return max(soonest, self.rate_from)


class Pacer:
    """Grants slots and turns through `granted(kind, key)`, which is called within the other methods and must not wait."""

    def __init__(
        self,
        trunks: Iterable[Trunk],
        rooms_max: int,
        clock: Clock,
        granted: Granted,
        guard_s: float = GUARD_S,
        is_held: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._rounds: Iterator[int] = itertools.count()
        self._is_held = is_held
        self._lines = {t.name: self._new(t.name, t.calls_per_s, t.concurrency_max) for t in trunks}
        self._lines_of: dict[str, _Line] = {}
        self._rooms_all, self._rooms_max, self._rooms = rooms_max, 0, 0
        self._clock, self._granted = clock, granted
        self._window_s = WINDOW_S + guard_s
        self._grants: dict[tuple[Kind, str], None] = {}
        self._granting = False
        self._planned: float | None = None
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Tell whether this process's share of every limit is at least 1."""
        return not self.starved

    @property
    def starved(self) -> tuple[str, ...]:
        """Name what this process's share leaves nothing of: trunks, or `rooms`."""
        known = (line for line in self._lines.values() if line.calls_per_s_max)
        names = [line.name for line in known if not (line.calls_per_s and line.concurrency)]
        return tuple(names + ([] if self._rooms_max else ["rooms"]))

    def set_share(self, owned: int, total: int) -> None:
        """Take floor(limit × owned / total) of everything: less at once, a higher rate after one window."""
        now = self._clock.monotonic()
        self._rooms_max = self._rooms_all * owned // total
        BOUND.labels("rooms").set(self._rooms_max)
        for line in self._lines.values():
            rate = line.calls_per_s_max * owned // total
            if rate > line.calls_per_s:
                line.rate_from = now + self._window_s
            line.calls_per_s, line.concurrency = rate, line.concurrency_max * owned // total
            BOUND.labels(f"slots:{line.name}").set(line.concurrency)
        self.tick(now)

    def ask_slot(self, key: str, trunk: str, campaign: str, priority: int) -> None:
        """Ask for room for one attempt; asking again, or for what is held, changes nothing.

        A trunk that the file does not name has limits of 0: its calls wait, and it is alarmed once.
        """
        line = self._line(trunk)
        if key in line.held:
            return
        self._lines_of[key] = line
        line.slots.add(key, campaign, priority)
        self._grant_slots()
        self._deliver()

    def ask_turn(self, key: str, trunk: str) -> None:
        """Ask for the turn to dial; asking again while one is fresh changes nothing."""
        line, now = self._line(trunk), self._clock.monotonic()
        line.forget(now, self._window_s)
        if key in line.out:
            return
        self._lines_of[key] = line
        line.turns.add(key, *line.held.get(key, ("", PRIORITY_DEFAULT)))
        self._grant_turns(line, now)
        self._deliver()

    def spend(self, key: str, now: float) -> bool:
        """Take the key's turn and count the send at `now`: the gate's last look, synchronous with the send.

        False, and nothing counted, where the turn is stale, spent, was never granted, or where the trunk's share has
        become smaller than what was sent within the last second.
        """
        line = self._lines_of.get(key)
        if line is None:
            return False
        line.forget(now, self._window_s)
        if key not in line.out or len(line.sent) >= line.calls_per_s:
            return False
        del line.out[key]
        line.sent.append(now)
        self._plan(line)
        return True

    def withdraw(self, key: str) -> None:
        """Take back what was asked and not granted, and a turn that was not spent; a slot that is held stays."""
        line = self._lines_of.get(key)
        if line is None:
            return
        line.slots.discard(key)
        line.turns.discard(key)
        now = self._clock.monotonic()
        if line.out.pop(key, None) is not None:
            self._grant_turns(line, now)
        if key not in line.held:
            del self._lines_of[key]
        self._deliver()

    def occupy(self, key: str, trunk: str) -> None:
        """Count a slot that is taken already: an attempt adopted at a take-over, beyond the caps if need be."""
        line = self._line(trunk)
        if key in line.held:
            return
        line.slots.discard(key)
        self._lines_of[key] = line
        self._hold(line, key, "", PRIORITY_DEFAULT)

    def release(self, key: str) -> None:
        """Give back everything the key holds or waits for: its attempt is fenced, or no longer ours."""
        line = self._lines_of.get(key)
        self.withdraw(key)
        if line is None or line.held.pop(key, None) is None:
            return
        self._lines_of.pop(key, None)
        self._rooms -= 1
        self._show(line)
        self._grant_slots()
        self._deliver()

    def holding(self) -> tuple[str, ...]:
        """Return the keys that hold a slot: every attempt of this process that may have a room."""
        return tuple(key for line in self._lines.values() for key in line.held)

    def tick(self, now: float) -> float | None:
        """Grant what time or the end of a hold has brought; return when to look again, None: when something is asked."""
        self._grant_slots()
        for line in self._lines.values():
            self._grant_turns(line, now)
        self._deliver()
        # Only now: who was granted a turn may have spent it already.
        dues = (line.next_turn_at(self._window_s) for line in self._lines.values())
        soonest = min((due for due in dues if due is not None), default=None)
        if soonest != self._planned:
            self._planned = soonest
            self._changed.set()
        return soonest

    async def run(self) -> None:
        """Look again whenever time brings a turn, for ever."""
        while True:
            due = self.tick(self._clock.monotonic())
            self._changed.clear()
            if due is None:
                await self._changed.wait()
                continue
            sleeper = self._clock.spawn(self._wake(due - self._clock.monotonic()), "pacer-wake")
            await self._changed.wait()
            sleeper.cancel()

    async def _wake(self, seconds: float) -> None:
        await self._clock.sleep(max(0.0, seconds))
        self._changed.set()

    def _line(self, trunk: str) -> _Line:
        line = self._lines.get(trunk)
        if line is None:
            ALARMS.labels("trunk_unknown").inc()
            log.alarm("a call asks for a trunk that the trunks file does not name", trunk=trunk)
            line = self._lines[trunk] = self._new(trunk, 0, 0)
        return line

    def _new(self, name: str, calls_per_s_max: int, concurrency_max: int) -> _Line:
        slots, turns = Lanes(self._rounds, self._is_held), Lanes(self._rounds)
        return _Line(name, calls_per_s_max, concurrency_max, slots, turns)

    def _grant_slots(self) -> None:
        while self._rooms < self._rooms_max:
            ranked = [
                (rank, line)
                for line in self._lines.values()
                if len(line.held) < line.concurrency and (rank := line.slots.rank()) is not None
            ]
            if not ranked:
                return
            _, line = min(ranked, key=lambda pair: pair[0])
            key, campaign, priority = line.slots.pop()
            self._hold(line, key, campaign, priority)
            self._grants[("slot", key)] = None

    def _hold(self, line: _Line, key: str, campaign: str, priority: int) -> None:
        line.held[key] = (campaign, priority)
        self._rooms += 1
        self._show(line)

    def _show(self, line: _Line) -> None:
        _gauge("rooms").set(self._rooms)
        _gauge(f"slots:{line.name}").set(len(line.held))

    def _grant_turns(self, line: _Line, now: float) -> None:
        line.forget(now, self._window_s)
        while line.turns and line.has_turn(now):
            key, _, _ = line.turns.pop()
            line.out[key] = now
            self._grants[("turn", key)] = None
        self._plan(line)

    def _plan(self, line: _Line) -> None:
        """Wake the loop where this trunk needs it sooner than planned."""
        due = line.next_turn_at(self._window_s)
        if due is not None and (self._planned is None or due < self._planned):
            self._planned = due
            self._changed.set()

    def _deliver(self) -> None:
        """Hand grants over one by one; a grant's receiver may ask, withdraw and release meanwhile."""
        if self._granting:
            return
        self._granting = True
        try:
            while self._grants:
                kind, key = next(iter(self._grants))
                del self._grants[(kind, key)]
                if self._still_valid(kind, key):
                    self._granted(kind, key)
        finally:
            self._granting = False

    def _still_valid(self, kind: Kind, key: str) -> bool:
        line = self._lines_of.get(key)
        return line is not None and key in (line.held if kind == "slot" else line.out)


_gauge = cache(FILL.labels)
"""What is in use of a bound: the library looks a gauge up under a lock."""
