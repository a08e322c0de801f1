"""A world of three dialers: what they share, what befalls them by the seed's plan, and how it heals.

Every dialer is composed as `dialer/app.py` composes it, of the production's own parts; Kafka, LiveKit, phones, agents and
the campaign service are doubles on virtual time.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from dialer.app import _Sight
from dialer.campaigns import Campaigns, NotFound, Unreachable
from dialer.control import ControlReader
from dialer.effector import Runner, Shared
from dialer.intake import Intake
from dialer.log import Record
from dialer.outcomes import Outcomes
from dialer.owner import Owner
from dialer.ownership import Parts
from dialer.pacer import Pacer
from dialer.requests import SEND_TIMEOUT_S, NotAccepted
from dialer.telephony import RoomRequest, Trunk
from runtime.seal import BriefBox, MasterKey
from schemas.campaign import Campaign, load_campaign
from schemas.envelope import Envelope, encode, headers_of
from schemas.steps import Step
from schemas.topics import COMMANDS, CONTROL, REJECTED, STOPS, Topic
from schemas.values import call_id, partition_of, request_hash
from tests.doubles.memory_feed import published
from tests.doubles.telephony import TelephonyDouble
from tests.doubles.world import BRIEF, MASTER, PEPPER, TRUNK, command, variables
from tests.simulation import plan as p
from tests.simulation.doors import KafkaDoor
from tests.simulation.faults import AT_STEPS
from tests.simulation.kafka import SESSION_TIMEOUT_S, Group, SimBroker, SimLog
from tests.simulation.line import Line, Weather
from tests.simulation.loop import Life, SeededLoop
from tests.simulation.outside import Hooks, Post, TravellingAgents, better
from tests.simulation.process import START, WORLD, Process, SimClock
from tests.simulation.watch import Watch

CALLER: Final = Trunk(
    name=TRUNK, address="127.0.0.1:5060", numbers=("+12125550100",), calls_per_s=30, concurrency_max=60
)
ENDS_WITHIN_S: Final = 1200.0
"""Virtual time in which every call has ended once the world is healed."""
LOOK_EVERY_S: Final = 1.0
IDLE_FACTOR: Final = 10.0
QUICK: Final[dict[str, Any]] = {
    "type": "one_way",
    "message": "Hello {first_name}, your prescription is ready at {store}.",
    "retry_after_s": {"busy": 5, "no_answer": 8, "trunk_failed": 4, "agent_lost": 5},
    "attempts_max": 3,
    "ring_timeout_s": 15,
    "max_call_duration_s": 20,
    "trunk": TRUNK,
}


def _campaigns() -> dict[str, Campaign]:
    unknown = {"unknown": {"after_s": 20}}
    named = {"rx-refill": {}, "rx-unknown": unknown, "rx-looked-up": {}}
    return {name: load_campaign({"id": name} | QUICK | more) for name, more in named.items()}


class Shelf:
    """`dialer.campaigns.Source`: one campaign must be looked up, and the service is away now and then."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ids(self) -> tuple[str, ...]:
        return ("rx-refill", "rx-unknown")

    async def get(self, campaign_id: str) -> Campaign | NotFound | Unreachable:
        await asyncio.sleep(0.01)
        if campaign_id not in self.ids() and not self._world.healed and self._world.chance.random() < 0.3:
            return Unreachable("transport")
        return CAMPAIGNS.get(campaign_id, NotFound())

    async def close(self) -> None:
        return None


CAMPAIGNS: Final = _campaigns()


class SimRequests:
    """`dialer.requests.Requests` of one process."""

    def __init__(self, broker: SimBroker, process: Process) -> None:
        self._broker, self._process = broker, process

    async def send(self, topic: Topic, callee_key: str, envelope: Envelope) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._process.ask(
                    lambda: self._broker.send(topic, callee_key, encode(envelope), headers_of(envelope)),
                    arrives=self._broker.arrives,
                )
        except TimeoutError:
            raise NotAccepted("TimeoutError") from None


class Dialer:
    """One dialer process, composed as in `dialer/app.py`."""

    def __init__(self, world: World, process: Process) -> None:
        clock, self.process = process.clock, process
        self.control = ControlReader("memory", clock)  # type: ignore[arg-type]
        campaigns = Campaigns(Shelf(world), published, clock, 30.0)
        self.shared = Shared(
            clock=clock,
            telephony=Line(world.livekit, process, world.weather, world.watch),
            campaigns=campaigns,
            outcomes=Outcomes(SimRequests(world.broker, process), clock),  # type: ignore[arg-type]
            brief_box=world.box,
            agent_name="outbound-dialer",
            trunks={TRUNK: CALLER},
            trunk_ids={},
            session_timeout_s=SESSION_TIMEOUT_S,
            dials_max=50,
            sight=_Sight(lambda: self.intake, self.control, clock),  # type: ignore[arg-type]
            pacer=Pacer([CALLER], 60, clock, lambda kind, key: self.shared.granted(kind, key)),
        )
        parts = Parts(
            clock=clock,
            pepper=PEPPER,
            master=MasterKey(MASTER),
            memory=timedelta(days=35),
            campaigns=campaigns,
            batch_max=2000,
            inbox_max=10_000,
            effects=lambda ownership: Runner(ownership, self.shared),
        )
        logs = SimLog(world.broker, process)
        total = len(world.group.partitions)
        self.intake = Intake(
            "memory",
            "dialer",
            SESSION_TIMEOUT_S,
            lambda partition: Owner(partition, logs, parts, self.intake, clock),
            lambda owned: self.shared.pacer.set_share(owned, total),
            clock,
        )

    async def start(self) -> None:
        """Start as the production does."""
        await self.control.start()
        self.shared.trunk_ids[TRUNK] = await self.shared.telephony.ensure_trunk(CALLER)
        await self.shared.campaigns.warm()
        self.process.clock.spawn(self.shared.pacer.run(), "pacer")
        await self.intake.start()


class World:
    """Everything there is, for one seed."""

    def __init__(self, seed: int, loop: SeededLoop, note: Callable[[str], None] | None = None) -> None:
        self.plan, self.loop, self.note = p.plan_of(seed), loop, note
        self.chance = random.Random(f"world {seed}")
        self._latency = random.Random(f"latency {seed}").random
        self._talks = random.Random(f"talks {seed}")
        self.clock = SimClock(loop, None, random.Random(f"bytes {seed}"))
        self.broker = SimBroker(self.clock)
        partitions = tuple(sorted({person.partition for person in p.people()}))
        self.group = Group(partitions, loop.time, self.broker.arrives)
        self.kafka = KafkaDoor(self.broker, self.group)
        self.livekit = TelephonyDouble(self.clock)  # type: ignore[arg-type]
        self.livekit.trunks[TRUNK] = ("ST_1", CALLER)
        self.box = BriefBox({"b1": BRIEF})
        self.weather = Weather(self.chance, self.plan.weather)
        self.post = Post(loop, self.broker, self.chance)
        self.hooks = Hooks(self.post, self.clock.now)
        self.agents = TravellingAgents(self.livekit, self.broker, self.box, self.clock)  # type: ignore[arg-type]
        self.agents.post = self.post
        self.watch = Watch(self)
        self._wire()
        self.dialers: list[Dialer] = []
        self.gone: list[Dialer] = []
        self.coverage: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.no_agents = 0
        self.healed = False
        self.healed_at_s = float("inf")
        self.calls: dict[str, p.Placed] = {}
        self.bad: set[tuple[str, int, int]] = set()
        self._armed: dict[Step, list[list[Any]]] = {}
        for armed in self.plan.armed:
            self._armed.setdefault(armed.step, []).append([armed.nth, armed.kind])
        self._incarnations = self._asked = 0

    def _wire(self) -> None:
        agents_see = self.livekit.seen

        def seen(room: str, identity: str, status: str) -> None:
            self.watch.seen(room, identity, status)
            agents_see(room, identity, status)
            if status == "left":
                self.hooks.left(room, identity)

        take, dispatch = self.livekit.take_room, self.livekit.dispatched

        def take_room(name: str) -> Any:
            answer = take(name)
            if answer == "deleted":
                self.hooks.finished(name)
            return answer

        def dispatched(request: RoomRequest) -> None:
            comes = not self.no_agents
            self.no_agents -= 0 if comes else 1
            script = p.script_of(self.chance) if comes else p.Script(comes=False)
            self.agents.scripts.append(replace(script, talk=p.talk_of(self._talks)))
            dispatch(request)

        self.livekit.seen, self.livekit.dispatched = seen, dispatched
        self.livekit.take_room = take_room  # type: ignore[method-assign]
        self.broker.committed_now = lambda partition, records: self.watch.committed(partition, list(records))
        self.broker.appended = self._appended

    # ---- what faults do ------------------------------------------------------------------------------------------

    def later(self, wait_s: float, work: Callable[[], Any]) -> None:
        """Let the world do something after a while."""
        self.loop.call_later(wait_s, work, context=WORLD)

    def say(self, text: str) -> None:
        if self.note is not None:
            self.note(f"{self.loop.time():10.4f} {text}")

    def start_dialer(self, index: int) -> None:
        """Start a process; a new one has a new name."""
        self._incarnations += 1
        name = f"d{index}.{self._incarnations}"
        process = Process(name, self.loop, self.chance, self.passed, self.latency_s, index)
        dialer = Dialer(self, process)
        self.dialers.append(dialer)
        self.say(f"{process.name} starts")
        process.clock.spawn(dialer.start(), "start")

    def latency_s(self) -> float:
        return 0.0005 + 0.0075 * self._latency()

    def passed(self, process: Process, step: Step, partition: int) -> None:
        """A process passes a named point: whatever is armed there strikes."""
        self.watch.steps += 1
        if self.note is not None:
            self.say(f"{process.name} p{partition} {step.value}")
        armed = self._armed.get(step)
        if not armed or self.healed or (step in p.TAKEOVERS and self.loop.time() < 2.0):
            return
        for one in list(armed):
            one[0] -= 1
            if one[0] <= 0 and process.life is Life.UP:
                armed.remove(one)
                self.strike(one[1], step.value, process, partition)

    def strike(self, kind: str, where: str, process: Process, partition: int) -> None:
        """Let a fault happen, and count its cell."""
        self.coverage[where, kind] += 1
        self.faults[kind] += 1
        self.say(f"FAULT {kind} at {where} of {process.name}, partition {partition}")
        AT_STEPS[kind](self, process, partition)

    def kill(self, process: Process) -> None:
        """Kill -9, and a supervisor that starts another."""
        if process.life is Life.DEAD:
            return
        process.life = Life.DEAD
        process.withheld = []
        self.kafka.consumers.pop(process.name, None)
        dialer = next(d for d in self.dialers if d.process is process)
        self.dialers.remove(dialer)
        self.gone.append(dialer)
        self.later(self.chance.uniform(0.5, 4.0), lambda: self.start_dialer(process.index))

    def pause(self, process: Process, for_s: float) -> None:
        """SIGSTOP, and SIGCONT."""
        if process.life is not Life.UP:
            return
        process.life = Life.PAUSED
        self.later(for_s, lambda: self._wake(process))

    def _wake(self, process: Process) -> None:
        if process.life is Life.PAUSED:
            self.say(f"{process.name} wakes")
            self.loop.release(process)

    def jump(self, process: Process, by_s: float) -> None:
        """Set a process' wall clock, and back after a while."""
        process.clock.skew_s = by_s
        self.later(self.chance.uniform(3.0, 15.0), lambda: setattr(process.clock, "skew_s", 0.0))

    def haunt(self) -> None:
        """livekit-server dies: everybody leaves; some of its rooms stay on the list for a while."""
        for room in list(self.livekit.rooms):
            if self.livekit.rooms[room].is_ghost:
                continue
            job = self.agents.rooms.get(room)
            if job is not None:
                self.agents.leave(job, gap=True)
            self.livekit.haunt(room)
            ghost_s = self.chance.choice((0.0, 3.0, 30.0))
            self.later(ghost_s, lambda room=room: self.livekit.exorcise(room))

    def lose_agent(self, partition: int, *, told: bool) -> None:
        """End an agent of the partition, or of any other where it has none."""
        live = [job for job in self.agents.jobs if job.alive and job.room in self.agents.rooms]
        near = [job for job in live if partition_of(job.room[5:31]) == partition]
        if near or live:
            self.agents.lose(self.chance.choice(near or live), told=told)

    def stop_somebody(self, partition: int, kind: str) -> None:
        """Cancel or suppress; one who is being called in this partition, if there is one."""
        ended = {c for c, call in self.watch.model.calls.items() if call.ended}
        open_calls = [c for c in self.calls if c not in ended]
        near = [c for c in open_calls if partition_of(c[:26]) == partition]
        active = [c for c in near if self.watch.model.calls[c].attempts]
        pool = active or near or open_calls or list(self.calls)
        if pool:
            call = self.chance.choice(pool)
            self.ask_stop(kind, call_id=call) if kind == "cancel_call" else self.ask_stop(kind, callee_key=call[:26])

    def control(self, state: str) -> None:
        """Write the kill switch."""
        self.broker.produce(Record(CONTROL.name, 0, b"*", orjson.dumps({"state": state})))
        if state == "stopped":
            if self.watch.stopped_at is None:
                self.watch.stopped_at = self.loop.time()
        else:
            self.watch.stopped_at = None

    # ---- what is asked -------------------------------------------------------------------------------------------

    def ask_stop(self, kind: str, *, by_commands: bool = False, **data: str) -> None:
        """Ask for a stop, on its own topic or as a pipeline does."""
        key = data["callee_key"] if "callee_key" in data else data["call_id"][:26]
        self._asked += 1
        value = command(kind, f"stop-{self._asked}", data | {"reason": "asked"})
        self._when_up(lambda: self.broker.send(COMMANDS if by_commands else STOPS, key, value))

    def place(self, placed: p.Placed, body: dict[str, Any] | None = None) -> None:
        """Ask for a call as a pipeline does."""
        person = placed.person
        data: dict[str, Any] = {
            "request_id": placed.request,
            "campaign_id": placed.campaign,
            "to": person.number,
            "variables": variables(),
            "priority": placed.priority,
        }
        if placed.expires_s is not None:
            data["not_after"] = (START + timedelta(seconds=placed.at_s + placed.expires_s)).isoformat()
        value = command("place_call", f"cmd-{placed.request}", data | (body or {}))
        partitions = self.group.partitions
        stray = self.chance.choice(partitions) if placed.stray else person.partition
        self._when_up(lambda: self._place(placed, value, stray, conflict=body is not None))

    def _place(self, placed: p.Placed, value: bytes, partition: int, *, conflict: bool) -> None:
        call = call_id(placed.person.key, request_hash(placed.campaign, placed.request))
        if conflict and call not in self.calls:
            return
        self.calls.setdefault(call, placed)
        if conflict and placed.stray:
            return  # which of two strays comes first is nobody's to say
        offset = self.broker.send(COMMANDS, placed.person.key, value, partition=partition)
        if conflict:
            self.bad.add((COMMANDS.name, partition, offset))

    def send_bad(self, value: bytes) -> None:
        """Write a command that must be rejected."""
        partition = self.chance.choice(self.group.partitions)
        self._when_up(
            lambda: self.bad.add(
                (COMMANDS.name, partition, self.broker.send(COMMANDS, None, value, partition=partition))
            )
        )

    def _when_up(self, work: Callable[[], Any]) -> None:
        away_s = self.broker.arrives()
        self.later(away_s, lambda: self._when_up(work)) if away_s else work()

    def _appended(self, topic: str, value: bytes | None) -> None:
        if topic == STOPS.name and value is not None:
            self.watch.stop_accepted(orjson.loads(value))

    # ---- the course of it ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live through the plan, heal, and wait until everything has ended or should have."""
        for index in range(p.DIALERS):
            self.start_dialer(index)
        self._schedule()
        while self.loop.time() < p.HEALED_AT_S:
            await self._look()
        self.heal()
        until = self.loop.time() + ENDS_WITHIN_S
        while self.loop.time() < until and not self.at_rest():
            await self._look()
            self.watch.check_healed()
        await asyncio.sleep(15.0)  # late facts, last commits
        await self._look()

    async def _look(self) -> None:
        await asyncio.sleep(LOOK_EVERY_S)
        self.group.expire()
        self.broker.abort_overdue()
        self.watch.check_legs()
        if self.watch.model.is_dialing():
            self.hurry()
        else:
            for dialer in self.dialers:
                dialer.process.clock.idle_factor = IDLE_FACTOR
        for dialer in (*self.dialers, *self.gone):
            for error in dialer.process.clock.failures:
                self.watch.wrong("no process ends by a bug", dialer.process.name, repr(error))
        for error in self.clock.failures:
            raise error

    def _schedule(self) -> None:
        plan, at = self.plan, self.later
        for placed in plan.placed:
            for when in (placed.at_s, *placed.again_at_s):
                at(when, lambda placed=placed: self.place(placed))
            if placed.conflict_at_s is not None:
                at(placed.conflict_at_s, lambda placed=placed: self.place(placed, {"priority": 0}))
        for stop in plan.stops:
            at(stop.at_s, lambda stop=stop: self._stop(stop))
        for when in plan.rebalances:
            at(when, self.group.rebalance)
        for when in plan.crashes:
            at(when, lambda: self.dialers and self.kill(self.chance.choice(self.dialers).process))
        for when, value in plan.bad_commands:
            at(when, lambda value=value: self.send_bad(value))

    def _stop(self, stop: p.Stop) -> None:
        if stop.person is not None:
            self.ask_stop(stop.kind, by_commands=stop.by_commands, callee_key=stop.person.key)
        else:
            placed = self.plan.placed[stop.call]
            call = call_id(placed.person.key, request_hash(placed.campaign, placed.request))
            self.ask_stop(stop.kind, by_commands=stop.by_commands, call_id=call)

    def heal(self) -> None:
        """Let everything outside be well from here on."""
        self.healed, self.healed_at_s = True, self.loop.time()
        self.weather.rate, self.weather.storm = 0.0, ""
        self.broker.away_until_s = 0.0
        self.broker.commit_faults.clear()
        self.no_agents = 0
        better(self.post, self.hooks, healed=True)
        self.control("running")
        for dialer in self.dialers:
            dialer.process.clock.skew_s = 0.0
            self._wake(dialer.process)
        self.say("healed")

    def hurry(self) -> None:
        """An attempt is opened: whatever its gate will ask for is kept fresh."""
        for dialer in self.dialers:
            dialer.process.clock.hurry()

    def at_rest(self) -> bool:
        """Tell whether every call that was asked for has ended."""
        calls = self.watch.model.calls
        return all(call in calls and calls[call].ended for call in self.calls)

    def owns(self, process: Process, call: str) -> bool:
        """Tell whether a process is the last that fenced a call's partition."""
        return self.broker.fenced_by.get(partition_of(call[:26])) == process.name

    def clear(self) -> None:
        """Let go of what takes the most memory, when all is over: no collector runs meanwhile, and worlds are many."""
        self.broker.clear()
        self.watch.model.people.clear()

    def elapsed(self, at: datetime) -> float:
        return (at - START).total_seconds()

    def rejected(self) -> list[tuple[str, int, int]]:
        """Return where the records lay that were rejected."""
        found = [s for q in self.group.partitions for s in self.broker.committed(REJECTED.name, q)]
        told = [orjson.loads(s.value or b"{}")["data"] for s in found]
        return [(d["topic"], d["partition"], d["offset"]) for d in told]
