"""The calls of a proof: as many as asked for, each to another person, personas mixed by weight, nothing drawn by chance.

Numbers are +1 AAA 555 01ee (kept for fiction) over all area codes that are valid; `ee` chooses the persona.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Final

import phonenumbers

from rehearsal.personas import PERSONAS
from rehearsal.scenario import Expected, Request, Role

WEIGHTS: Final = {
    "answers": 14,
    "answers_late": 14,
    "never_sends_audio": 5,
    "hangs_up_early": 3,
    "busy": 1,
    "declines": 1,
    "number_not_found": 1,
    "trunk_overloaded": 1,
}
"""Of forty calls. Who answers is most of it: their calls last, and calls in flight are what is killed into. Of a dial that
is refused at once only its own request knows why, so each one that a killed dialer had under way is unknown."""
REPEATED_EVERY: Final = 20
"""Each so many-th request is sent twice."""


@functools.cache
def area_codes() -> tuple[str, ...]:
    """Return the area codes of the United States in which the fictitious numbers are a person's: no premium, no toll free."""
    codes = (str(code) for code in range(201, 990))
    numbers = ((code, phonenumbers.parse(f"+1{code}5550100")) for code in codes)
    return tuple(
        code
        for code, number in numbers
        if phonenumbers.is_valid_number_for_region(number, "US")
        and phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE
    )


def calls(count: int, campaign_id: str, weights: dict[str, int] = WEIGHTS) -> list[Request]:
    """Return so many requests, each to a number of its own; when those have run out, to the first ones again."""
    numbers = {name: _numbers(name) for name in weights}
    order = itertools.cycle(_spread(weights))
    found: list[Request] = []
    for place in range(count):
        persona = next(order)
        role = Role.REPEATED if place % REPEATED_EVERY == 0 else Role.PERSONA
        data = {
            "request_id": f"proof-{place + 1}",
            "campaign_id": campaign_id,
            "to": next(numbers[persona]),
            "variables": {"first_name": "Ann"},
        }
        found.append(Request(role=role, persona=persona, data=data, expected=Expected(outcome="", dials=1)))
    return found


def _numbers(persona: str) -> Iterator[str]:
    endings = next(one.endings for one in PERSONAS if one.name == persona)
    return itertools.cycle([f"+1{code}55501{ending:02d}" for ending in endings for code in area_codes()])


def _spread(weights: dict[str, int]) -> list[str]:
    """Return each name so often, spread evenly."""
    total = sum(weights.values())
    due = [((place + 0.5) * total / weight, name) for name, weight in weights.items() for place in range(weight)]
    return [name for _, name in sorted(due)]
