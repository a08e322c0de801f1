"""What a proof does to its processes: kills and pauses, spread evenly over processes and steps, in an order drawn by a seed.

Pure: the same figures and the same seed give the same plan, so that a failure can be run again.
"""

from __future__ import annotations

import enum
import itertools
import random
from dataclasses import dataclass
from typing import Final

from schemas.steps import Step


class How(enum.StrEnum):
    """What is done to a process."""

    KILL = "kill"
    """SIGKILL; the supervisor starts it again."""
    PAUSE = "pause"
    """SIGSTOP, for longer than the session timeout, then SIGCONT: a zombie."""


class Victim(enum.StrEnum):
    """Which kind of process; of several, the next in turn."""

    DIALER = "dialer"
    AGENT = "agent"
    PROJECTIONS = "projections"
    LIVEKIT = "livekit"
    BROKER = "broker"


ROUND: Final = (
    Victim.DIALER,
    Victim.AGENT,
    Victim.DIALER,
    Victim.LIVEKIT,
    Victim.DIALER,
    Victim.BROKER,
    Victim.DIALER,
    Victim.PROJECTIONS,
)
"""Whose turn it is: the three dialers together have half, since they have the named steps; 320 kills are 10 at each step."""
TAKEOVER: Final = (Step.TAKEOVER_FENCED, Step.TAKEOVER_RESTORED, Step.TAKEOVER_RESUMED)
"""Steps that are passed only when partitions change hands: another dialer is killed to bring that about."""
ZOMBIE_STEPS: Final = (
    Step.DIAL_GATED,
    Step.COMMIT_SENT,
    Step.DIAL_SENT,
    Step.COMMIT_SENDING,
    Step.FENCE_ANSWERED,
    Step.ROOM_ASKING,
    Step.BATCH_DECIDED,
    Step.EFFECTS_STARTED,
)
"""Where a dialer is paused, in turn: first where it would hurt most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """One thing to do; `step` is where a dialer is struck, None for the processes that have no named steps."""

    number: int
    how: How
    victim: Victim
    step: Step | None = None


def plan(kills: int, pauses: int, seed: int) -> list[Disturbance]:
    """Return so many kills and pauses: victims by `ROUND`, dialers at one step after the other, pauses between the kills."""
    chance = random.Random(seed)
    steps = list(Step)
    chance.shuffle(steps)
    killed, paused = _rows(How.KILL, kills, steps), _rows(How.PAUSE, pauses, list(ZOMBIE_STEPS))
    chance.shuffle(killed)
    every = len(killed) // (len(paused) + 1) + 1
    for place, pause in enumerate(paused, 1):
        killed.insert(min(len(killed), place * every), pause)
    return [
        Disturbance(number=number, how=how, victim=victim, step=step)
        for number, (how, victim, step) in enumerate(killed, 1)
    ]


def _rows(how: How, count: int, steps: list[Step]) -> list[tuple[How, Victim, Step | None]]:
    victims, turn = itertools.cycle(ROUND), itertools.cycle(steps)
    rows = (next(victims) for _ in range(count))
    return [(how, victim, next(turn) if victim is Victim.DIALER else None) for victim in rows]
