"""The faults that strike at named steps: one table, what each does; and where one cannot apply, why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from schemas.steps import Step
from tests.simulation.loop import Life
from tests.simulation.outside import better, worse

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

Strike = Callable[["World", "Process", int], None]
COMMIT_FAULTS: Final = ("commit_late", "commit_unanswered", "commit_lost", "commit_torn", "commit_aborted")
STORMS: Final = ("late_answer", "late_arrival", "no_answer", "error", "garbage")


def _crash(world: World, process: Process, _partition: int) -> None:
    world.kill(process)


def _pause(world: World, process: Process, _partition: int) -> None:
    world.pause(process, world.chance.uniform(0.5, 8.0))


def _zombie(world: World, process: Process, _partition: int) -> None:
    world.pause(process, world.chance.uniform(12.5, 20.0))


def _fenced(world: World, _process: Process, partition: int) -> None:
    world.broker.start_producer(f"dialer-{partition}")


def _rebalance(world: World, _process: Process, _partition: int) -> None:
    world.group.rebalance()


def _clock_jump(world: World, process: Process, _partition: int) -> None:
    world.jump(process, world.chance.choice((-20.0, -3.0, 3.0, 20.0)))


def _redelivery(world: World, process: Process, partition: int) -> None:
    for consumer in world.kafka.consumers.get(process.name, ()):
        consumer.hand_out_again(partition, world.chance.randint(1, 30))


def _commit(kind: str) -> Strike:
    def strike(world: World, _process: Process, partition: int) -> None:
        world.broker.commit_faults[partition] = kind

    return strike


def _broker_away(world: World, _process: Process, _partition: int) -> None:
    world.broker.away_until_s = world.loop.time() + world.chance.uniform(1.0, 12.0)


def _storm(kind: str) -> Strike:
    def strike(world: World, _process: Process, _partition: int) -> None:
        world.weather.storm, world.weather.storm_until_s = kind, world.loop.time() + world.chance.uniform(0.5, 4.0)

    return strike


def _livekit_crash(world: World, _process: Process, _partition: int) -> None:
    world.haunt()


def _webhooks(world: World, _process: Process, _partition: int) -> None:
    worse(world.post, world.hooks)
    for room in list(world.livekit.rooms):
        world.hooks.forge(room)
    world.later(world.chance.uniform(3, 10), lambda: better(world.post, world.hooks))


def _agent_never(world: World, _process: Process, _partition: int) -> None:
    world.no_agents += world.chance.randint(1, 3)


def _agent_crashes(world: World, _process: Process, partition: int) -> None:
    world.lose_agent(partition, told=True)


def _agent_silent(world: World, _process: Process, partition: int) -> None:
    world.lose_agent(partition, told=False)


def _cancel(world: World, _process: Process, partition: int) -> None:
    world.stop_somebody(partition, "cancel_call")


def _suppress(world: World, _process: Process, partition: int) -> None:
    world.stop_somebody(partition, "suppress_callee")


def _kill_switch(world: World, _process: Process, _partition: int) -> None:
    world.control("stopped")
    world.later(world.chance.uniform(2.0, 8.0), lambda: world.control("running"))


AT_STEPS: Final[dict[str, Strike]] = {
    "crash": _crash,
    "pause": _pause,
    "zombie": _zombie,
    "fenced": _fenced,
    "rebalance": _rebalance,
    "clock_jump": _clock_jump,
    "redelivery": _redelivery,
    **{kind: _commit(kind) for kind in COMMIT_FAULTS},
    "broker_away": _broker_away,
    **{f"livekit_{kind}": _storm(kind) for kind in STORMS},
    "livekit_crash": _livekit_crash,
    "webhooks": _webhooks,
    "agent_never": _agent_never,
    "agent_crash": _agent_crashes,
    "agent_silent": _agent_silent,
    "cancel": _cancel,
    "suppress": _suppress,
    "kill_switch": _kill_switch,
}
"""Every fault kind, by name. Commit faults meet the next commit of the step's partition."""

EXCLUDED: Final[dict[tuple[Step, str], str]] = {}
"""Cells that cannot apply, each with its reason."""

ENDS_PROCESS: Final = frozenset({"crash"})


def is_up(process: Process) -> bool:
    """Tell whether something can still befall a process."""
    return process.life is Life.UP
