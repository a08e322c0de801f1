"""Carries out a proof's plan: waits for enough calls in flight, kills or pauses, and waits until what was struck is back."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rehearsal import prove_group
from rehearsal.prove_flight import Flight
from rehearsal.prove_network import Proof
from rehearsal.prove_owners import Owners
from rehearsal.prove_plan import TAKEOVER, Disturbance, How, Victim
from rehearsal.run_env import SESSION_TIMEOUT_S
from rehearsal.supervisor import Supervisor
from schemas.steps import Step

PAUSE_S: Final = SESSION_TIMEOUT_S + 3.0
"""How long a process is stopped: longer than the group waits for it."""
TAKEN_TIMEOUT_S: Final = 10.0
"""How long an order waits for a process to pass its step."""
BACK_TIMEOUT_S: Final = 60.0
BUSY_TIMEOUT_S: Final = 60.0
SPARE: Final = 1.5
"""So many times as many calls as must be in flight are waited for before a strike."""
OWNED_TIMEOUT_S: Final = 30.0
SETTLED_TIMEOUT_S: Final = 30.0
"""Longer than an agent's silence (15 s) and the fence after it."""
ALONE: Final = frozenset({Victim.AGENT, Victim.LIVEKIT})
"""What is struck only when everything struck before is decided again, and nothing else before what it met is."""
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When something was struck (Unix time); the calls in flight then, counted by phase; those that were dialed."""

    at: float
    phases: Mapping[str, int]
    on_the_phone: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """One kill or pause as it was done. `step` is empty where nothing was waited for."""

    how: How
    victim: Victim
    process: str
    step: str
    moment: Moment
    decided_again_s: float | None = None
    """Dialers: until each partition it had was owned again."""

    @property
    def in_flight(self) -> int:
        """Return how many calls were in flight."""
        return sum(self.moment.phases.values())


@dataclass(kw_only=True)
class Disturber:
    """Strikes one after the other; `struck` is what was done, `missed` what could not be."""

    proof: Proof
    supervisor: Supervisor
    flight: Flight
    say: Callable[[str], None]
    in_flight_min: int
    struck: list[Struck] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._owners = Owners(self.proof.run_dir / "logs", self.proof.dialers)
        self._turns = {
            Victim.DIALER: itertools.cycle(self.proof.dialers),
            Victim.AGENT: itertools.cycle(self.proof.agents),
        }
        self.proof.orders.mkdir(exist_ok=True)

    async def run(self, plan: list[Disturbance]) -> None:
        """Do all of it. Returns early only where calls in flight are missing: they have run out."""
        for one, following in itertools.pairwise([*plan, None]):
            assert one is not None
            if one.victim is Victim.DIALER:
                await self._group_at_rest(after=self.struck[-1].victim if self.struck else None)
            if not await self._busy():
                left = len(plan) - one.number + 1
                self.missed.append(
                    f"{left} kills and pauses were not done: fewer than {self.in_flight_min} calls in flight"
                )
                return
            try:
                if one.how is How.PAUSE:
                    await self._pause(one)
                elif one.step is not None:
                    await self._kill_at(one.step)
                else:
                    await self._kill(one.victim, self._name(one.victim))
            except TimeoutError:
                self.missed.append(
                    f"nothing was ready again {BACK_TIMEOUT_S:g} s after {one.how} {one.number} ({one.victim})"
                )
                return
            if ALONE & {one.victim, following.victim if following else None}:
                await self._settled()

    # -- kills --------------------------------------------------------------------------------------------------------

    async def _kill(self, victim: Victim, name: str) -> None:
        await self.supervisor.wait_ready(name, timeout_s=BACK_TIMEOUT_S)
        await self._busy()  # being ready again took its time
        had = self._owners.partitions(name) if victim is Victim.DIALER else frozenset()
        moment, pid = self._moment(), self.supervisor.kill(name)
        await self._recovered(victim, name, "", moment, pid, had)

    async def _kill_at(self, step: Step) -> None:
        """Let the next dialer that passes the step die there; take-over steps are brought about by another kill."""
        order = self._order(step, "kill")
        if step in TAKEOVER:
            name = self._name(Victim.DIALER)
            await self.supervisor.wait_ready(name, timeout_s=BACK_TIMEOUT_S)
            self.struck.append(Struck(how=How.KILL, victim=Victim.DIALER, process=name, step="", moment=self._moment()))
            self.supervisor.kill(name)
        taken = await self._taken(order, step, "kill")
        if taken is None:
            self.say(f"nobody passed {step} within {TAKEN_TIMEOUT_S:g} s; a dialer is killed anywhere")
            await self._kill(Victim.DIALER, self._name(Victim.DIALER))
            return
        name, pid, moment = taken
        had = self._owners.partitions(name) if step not in TAKEOVER else frozenset()
        await self._recovered(Victim.DIALER, name, step.value, moment, pid, had)

    async def _recovered(
        self, victim: Victim, name: str, step: str, moment: Moment, pid: int, had: frozenset[int]
    ) -> None:
        where = f" at {step}" if step else ""
        self.say(f"kill of {name} (pid {pid}){where} with {sum(moment.phases.values())} calls in flight")
        again_s = await self._owners.owned_again(had, moment.at, OWNED_TIMEOUT_S) if had else None
        self.struck.append(
            Struck(how=How.KILL, victim=victim, process=name, step=step, moment=moment, decided_again_s=again_s)
        )
        awaited = {Victim.DIALER: self.proof.dialers, Victim.PROJECTIONS: ()}.get(victim, (name,))
        for process in awaited:  # nobody waits for the read side; its next kill does
            await self.supervisor.wait_ready(process, not_pid=pid, timeout_s=BACK_TIMEOUT_S)

    # -- pauses -------------------------------------------------------------------------------------------------------

    async def _pause(self, one: Disturbance) -> None:
        if one.step is None:
            name = self._name(one.victim)
            await self.supervisor.wait_ready(name, timeout_s=BACK_TIMEOUT_S)
            moment = self._moment()
            pid = self.supervisor.kill(name, signal.SIGSTOP)
        else:
            taken = await self._taken(self._order(one.step, "stop"), one.step, "stop")
            if taken is None:
                self.missed.append(f"nobody passed {one.step} to be paused there")
                return
            name, pid, moment = taken
        where = f" at {one.step}" if one.step else ""
        self.say(
            f"pause of {name} (pid {pid}){where}, {PAUSE_S:g} s, with {sum(moment.phases.values())} calls in flight"
        )
        try:
            await asyncio.sleep(PAUSE_S)
        finally:
            self.supervisor.kill(name, signal.SIGCONT)
        self.struck.append(Struck(how=How.PAUSE, victim=one.victim, process=name, step=one.step or "", moment=moment))

    # -- what all need ------------------------------------------------------------------------------------------------

    def _moment(self) -> Moment:
        return Moment(at=time.time(), phases=self.flight.phases(), on_the_phone=frozenset(self.flight.on_the_phone()))

    def _name(self, victim: Victim) -> str:
        return next(self._turns[victim]) if victim in self._turns else _NAMES[victim]

    def _order(self, step: Step, word: str) -> Path:
        """Put an order where the dialers look: whole, by a rename."""
        order = self.proof.orders / step.value
        draft = order.with_suffix(".draft")
        draft.write_text(word)
        draft.rename(order)
        return order

    async def _taken(self, order: Path, step: Step, word: str) -> tuple[str, int, Moment] | None:
        """Wait until a dialer took the order: (process, pid, when); None: nobody did, it is withdrawn."""
        deadline = time.monotonic() + TAKEN_TIMEOUT_S
        while _is_there(order):
            if time.monotonic() > deadline and _withdraw(order):
                return None
            if self.flight.phases().total() < self.in_flight_min and step not in TAKEOVER and _withdraw(order):
                if not await self._busy():  # calls ended meanwhile: the strike waits for others
                    return None
                self._order(step, word)
                deadline = time.monotonic() + TAKEN_TIMEOUT_S
            await asyncio.sleep(_POLL_S)
        moment = self._moment()
        taken = max((self.proof.orders / "done").glob(f"{step.value}-*"), key=lambda path: path.stat().st_ctime)
        pid = int(taken.name.removeprefix(f"{step.value}-").split("-")[0])
        name = next(event.name for event in reversed(self.supervisor.history) if event.pid == pid)
        return name, pid, moment

    async def _settled(self) -> None:
        """Let every call that the last strike met on the phone be decided again.

        An agent, or its room, that dies together with the dialer leaves nobody who could tell: that is true, and
        proves nothing, so agents and LiveKit are struck alone.
        """
        if not self.struck:
            return
        at, met = self.struck[-1].moment.at, self.struck[-1].moment.on_the_phone
        deadline = time.monotonic() + SETTLED_TIMEOUT_S
        while any(self.flight.last_decision_at(call) <= at for call in met):
            if time.monotonic() > deadline:
                self.say(f"some calls that the last strike met were not decided again within {SETTLED_TIMEOUT_S:g} s")
                return
            await asyncio.sleep(_POLL_S)

    async def _group_at_rest(self, after: Victim | None) -> None:
        """Let a rebalance come to its end: a dialer that dies amid it is a second failure."""
        for_s = prove_group.AFTER_BROKER_S if after is Victim.BROKER else 0.0
        if not await prove_group.at_rest(self.proof.base.bootstrap, self.proof.ports, for_s=for_s):
            self.say(f"the dialers' group was not at rest within {prove_group.STABLE_TIMEOUT_S:g} s")

    async def _busy(self) -> bool:
        """Wait until calls are in flight, some to spare: until the strike some of them end."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while self.flight.phases().total() < self.in_flight_min * SPARE:
            if time.monotonic() > deadline:
                return self.flight.phases().total() >= self.in_flight_min
            await asyncio.sleep(_POLL_S)
        return True


def _is_there(order: Path) -> bool:
    return order.exists()


def _withdraw(order: Path) -> bool:
    """Take an order back; False where a dialer has taken it already."""
    try:
        order.unlink()
    except FileNotFoundError:
        return False
    return True


_NAMES: Final = {Victim.PROJECTIONS: "projections", Victim.LIVEKIT: "livekit", Victim.BROKER: "kafka"}
