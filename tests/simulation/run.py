"""One seed, lived through: `simulate(seed)` makes a world, lets the plan befall it, and reports what was seen."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from dialer.callee.state import Callee
from dialer.records import decode_snapshot
from schemas.topics import CALLEES, OFFSETS_KEY
from tests.simulation.doors import opened
from tests.simulation.loop import Life, SeededLoop
from tests.simulation.model import Violation
from tests.simulation.watch import Watch
from tests.simulation.world import World

__all__ = ["Report", "Violation", "simulate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one seed came to."""

    seed: int
    calls: int
    faults: int
    violations: tuple[Violation, ...]
    coverage: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Per (named step, fault kind): how often it struck there."""
    rows: frozenset[str] = frozenset()
    """Rows of the SIP table that calls met."""
    steps: int = 0
    """Named points passed; invariants are looked at whenever what they speak of changes."""
    virtual_s: float = 0.0


def simulate(
    seed: int,
    *,
    variant: AbstractContextManager[None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Report:
    """Live through one seed; the same seed gives the same report, and the same notes.

    `variant` is entered around the whole run: it may replace parts of `dialer/` by broken ones. `note` takes a line for
    every named point passed and every fault.
    """
    loop = SeededLoop(seed)
    with _quietly(), variant or nullcontext():
        world = World(seed, loop, note)
        with opened(world.kafka):
            try:
                loop.run_until_complete(world.run())
                _judge(world)
            finally:
                for dialer in world.dialers:
                    dialer.process.life = Life.DEAD
                loop.close()
                world.clear()
    watch = world.watch
    return Report(
        seed=seed,
        calls=len(world.calls),
        faults=sum(world.faults.values()) + len(world.plan.crashes) + len(world.plan.rebalances),
        violations=(*watch.violations, *watch.model.violations),
        coverage=world.coverage,
        rows=frozenset(watch.model.rules),
        steps=watch.steps,
        virtual_s=loop.time(),
    )


def _judge(world: World) -> None:
    """Ask, at the end, what can only be asked then."""
    watch, calls = world.watch, world.watch.model.calls
    for call in world.calls:
        if call not in calls or not calls[call].requested:
            watch.wrong("every valid request makes a call that ends", call, "it was never requested")
        elif not calls[call].ended:
            watch.wrong("every valid request makes a call that ends", call, "it has no terminal event")
    for call, account in calls.items():
        if call not in world.calls and account.requested:
            watch.wrong("nothing but requests makes calls", call, "nobody asked for it")
    rejected = Counter(world.rejected())
    for where in world.bad | set(rejected):
        if rejected[where] != (1 if where in world.bad else 0):
            watch.wrong("every invalid command is rejected once", str(where), f"rejected {rejected[where]} times")
    for room, _ in world.livekit.live_legs:
        watch.wrong("no leg outlives its agent", room, "a leg is left at the end")
    for dialer in world.dialers:
        for key in dialer.shared.pacer.holding():
            watch.wrong("no slot is held for a call that is over", key, f"{dialer.process.name} holds it at the end")
    if world.hooks.forged_taken:
        watch.wrong("a forged webhook is refused", "hooks", f"{world.hooks.forged_taken} were taken")
    _replay(world, watch)


def _replay(world: World, watch: Watch) -> None:
    """The last snapshots are what the log folds to (promise 5)."""
    for partition in world.group.partitions:
        last: dict[bytes, bytes] = {}
        for stored in world.broker.committed(CALLEES.name, partition):
            if stored.key != OFFSETS_KEY and stored.value is not None:
                last[stored.key] = stored.value
        for key, value in last.items():
            folded = watch.model.people[key.decode()].folded
            if decode_snapshot(value) != (folded or Callee(callee_key=key.decode())):
                watch.wrong("replay of the log gives the same state", key.decode(), "the snapshot says otherwise")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No logs, and no collector in the middle of it."""
    before, collecting = logging.root.manager.disable, gc.isenabled()
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        yield
    finally:
        logging.disable(before)
        if collecting:
            gc.enable()
