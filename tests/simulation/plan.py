"""From a seed to a script: who is called, what they answer, what is stopped, and which faults strike where.

Faults at steps are dealt from the whole table in turn, so that seeds together fill every cell; all else is drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any, Final

from dialer.callee.sip import SIP_TABLE, classify
from dialer.telephony import DialAnswer
from schemas.steps import Step
from schemas.values import Invalid, callee_key, parse_number, partition_of
from tests.doubles.agents import TALKS, Script
from tests.doubles.telephony import Phone
from tests.doubles.world import PEPPER
from tests.simulation.faults import AT_STEPS, EXCLUDED

CALLS: Final = 48
CALLEES: Final = 12
PARTITIONS_USED: Final = 4
DIALERS: Final = 3
PLACED_WITHIN_S: Final = 25.0
FAULTS_WITHIN_S: Final = 50.0
HEALED_AT_S: Final = 55.0
STEP_FAULTS: Final = 8
TAKEOVERS: Final = frozenset({Step.TAKEOVER_FENCED, Step.TAKEOVER_RESTORED, Step.TAKEOVER_RESUMED})


@dataclass(frozen=True, slots=True)
class Person:
    """A callee: the number, its key, its partition."""

    number: str
    key: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One request: to whom, when, under which name and campaign, how often sent, and how."""

    person: Person
    request: str
    campaign: str
    at_s: float
    again_at_s: tuple[float, ...] = ()
    conflict_at_s: float | None = None
    stray: bool = False
    priority: int = 5
    expires_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A cancel of a call, a suppression of a person or its lifting, asked for at a time."""

    kind: str
    at_s: float
    call: int = 0
    person: Person | None = None
    by_commands: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """A fault at the n-th passing of a step."""

    step: Step
    kind: str
    nth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a seed says."""

    seed: int
    placed: tuple[Placed, ...]
    stops: tuple[Stop, ...]
    armed: tuple[Armed, ...]
    rebalances: tuple[float, ...]
    crashes: tuple[float, ...]
    bad_commands: tuple[tuple[float, bytes], ...]
    weather: float
    outside: dict[str, Any] = field(default_factory=dict)


@cache
def people() -> tuple[Person, ...]:
    """Find people who share a few partitions."""
    found: dict[int, list[Person]] = {}
    for n in range(100, 1000):
        try:
            number = parse_number(f"+1212555{n:04d}").e164
        except Invalid:
            continue
        key = callee_key(number, PEPPER)
        found.setdefault(partition_of(key), []).append(Person(number, key, partition_of(key)))
    fullest = sorted(found, key=lambda p: (-len(found[p]), p))[:PARTITIONS_USED]
    return tuple(person for p in sorted(fullest) for person in found[p][:4])


@cache
def cells() -> tuple[tuple[Step, str], ...]:
    """Name every pair of step and fault that applies."""
    return tuple(pair for pair in product(Step, AT_STEPS) if pair not in EXCLUDED)


def plan_of(seed: int) -> Plan:
    """Draw everything."""
    chance = random.Random(f"plan {seed}")
    persons = chance.sample(people(), CALLEES)
    placed = tuple(_placed(chance, n, persons) for n in range(CALLS))
    return Plan(
        seed=seed,
        placed=placed,
        stops=_stops(chance, persons),
        armed=_armed(seed, chance),
        rebalances=tuple(chance.uniform(5, FAULTS_WITHIN_S) for _ in range(chance.choice((1, 1, 2)))),
        crashes=tuple(chance.uniform(3, FAULTS_WITHIN_S) for _ in range(chance.choice((0, 1)))),
        bad_commands=tuple(
            (chance.uniform(0, FAULTS_WITHIN_S), chance.choice(BAD)) for _ in range(chance.choice((0, 1, 2)))
        ),
        weather=chance.choice((0.0, 0.02, 0.05, 0.1)),
    )


BAD: Final = (
    b"no json at all",
    b'{"specversion":"1.0","type":"dialer.command.place_call.v1","source":"/x","id":"b1","data":{"request_id":"r"}}',
    b'{"specversion":"1.0","type":"dialer.command.place_call.v9","source":"/x","id":"b2","data":{}}',
    b'{"specversion":"1.0","type":"dialer.command.place_call.v1","source":"/x","id":"b3","data":{"to":"12"}}',
)


def _placed(chance: random.Random, n: int, persons: list[Person]) -> Placed:
    person = persons[n % len(persons)] if chance.random() < 0.6 else chance.choice(persons)
    at_s = chance.uniform(0.0, PLACED_WITHIN_S)
    again = tuple(at_s + chance.uniform(0.0, 40.0) for _ in range(chance.choice((0, 0, 0, 1, 2))))
    return Placed(
        person=person,
        request=f"refill-{n}",
        campaign=chance.choice(("rx-refill", "rx-refill", "rx-unknown", "rx-looked-up")),
        at_s=at_s,
        again_at_s=again,
        conflict_at_s=at_s + chance.uniform(1.0, 40.0) if chance.random() < 0.06 else None,
        stray=chance.random() < 0.1,
        priority=chance.choice((1, 5, 5, 9)),
        expires_s=chance.uniform(5, 60) if chance.random() < 0.08 else None,
    )


def _stops(chance: random.Random, persons: list[Person]) -> tuple[Stop, ...]:
    found = [
        Stop(
            kind="cancel_call",
            at_s=chance.uniform(0, FAULTS_WITHIN_S),
            call=chance.randrange(CALLS),
            by_commands=chance.random() < 0.2,
        )
        for _ in range(chance.choice((1, 2, 3)))
    ]
    for person in chance.sample(persons, chance.choice((0, 1, 2))):
        at_s = chance.uniform(0, FAULTS_WITHIN_S)
        found.append(Stop(kind="suppress_callee", at_s=at_s, person=person, by_commands=chance.random() < 0.2))
        if chance.random() < 0.4:
            found.append(Stop(kind="lift_suppression", at_s=at_s + chance.uniform(1, 20), person=person))
    return tuple(found)


def _armed(seed: int, chance: random.Random) -> tuple[Armed, ...]:
    table = cells()
    order = list(table)
    random.Random("cells").shuffle(order)
    dealt = [order[(seed * STEP_FAULTS + n) % len(order)] for n in range(STEP_FAULTS)]
    return tuple(
        Armed(step=step, kind=kind, nth=chance.randint(1, 2) if step in TAKEOVERS else chance.randint(1, 8))
        for step, kind in dealt
    )


@cache
def sip_answers() -> tuple[tuple[str, DialAnswer, bool], ...]:
    """Return an answer for every row of the SIP table: (row, answer, whether an INVITE goes out)."""
    found = []
    for row in SIP_TABLE:
        statuses: tuple[int | None, ...] = (None,) if row.statuses is None else tuple(sorted(row.statuses))
        code = min(row.codes) if row.codes else "internal"
        phrase = row.phrases[0] if row.phrases else "so the carrier says"
        status = next(s for s in statuses if classify(s, code, phrase) is row)
        found.append((row.rule, DialAnswer(result="failed", sip_status=status, code=code, phrase=phrase), row.sent))
    return tuple(found)


def phone_of(chance: random.Random) -> Phone:
    """Draw how a phone takes a ring."""
    drawn = chance.random()
    if drawn < 0.6:
        talks = chance.uniform(0.2, 2.0) if chance.random() < 0.15 else None
        return Phone(rings_for_s=chance.uniform(0.5, 6.0), talks_for_s=talks)
    if drawn < 0.65:
        return Phone(rings_for_s=None)
    _, answer, _ = chance.choice([row for row in sip_answers() if row[2]])
    return Phone(answer=answer, rings_for_s=chance.choice((0.0, chance.uniform(0.2, 5.0))))


def talk_of(chance: random.Random) -> str:
    """Draw how an answered call goes: mostly its message is delivered."""
    return chance.choice(list(TALKS)) if chance.random() < 0.4 else "delivers"


def refusal_of(chance: random.Random) -> DialAnswer | None:
    """Draw, now and then, an answer for which no INVITE goes out."""
    if chance.random() < 0.06:
        return chance.choice([answer for _, answer, sent in sip_answers() if not sent])
    return None


def script_of(chance: random.Random) -> Script:
    """Draw how an agent behaves."""
    drawn = chance.random()
    ready_s, speaks_s = chance.uniform(0.1, 1.0), chance.uniform(1.0, 3.0)
    if drawn < 0.86:
        return Script(ready_after_s=ready_s, speaks_for_s=speaks_s)
    if drawn < 0.89:
        return Script(comes=False)
    if drawn < 0.92:
        return Script(ready_after_s=chance.uniform(5, 40), speaks_for_s=speaks_s)
    moment = chance.choice(("ready", "dialing", "ringing", "active"))
    if drawn < 0.96:
        return Script(ready_after_s=ready_s, crashes_on=moment)
    return Script(ready_after_s=ready_s, falls_silent_on=moment)
