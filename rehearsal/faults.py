"""Faults on order: a seeded script that the stand-ins consult once a request. Without a script nothing ever fails.

A script is a YAML or JSON file:

    seed: 7
    rules:
      - {at: carrier.CreateSIPParticipant, nth: [2, 5], fault: late, delay_s: 3}   # done, answered 3 s after the fact
      - {at: speech.speak, chance: 0.1, fault: fail, status: 503}
      - {at: "carrier.*", chance: 0.02, fault: drop, times_max: 4}

`at` is the place (`carrier.<Twirp method>`, `speech.speak`, `speech.listen`; `*` matches any run of characters); the
first rule that strikes is taken. The same script and the same order of requests give the same faults.
"""

from __future__ import annotations

import asyncio
import enum
import fnmatch
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web

DELAY_MAX_S = 120.0


class Kind(enum.StrEnum):
    """What goes wrong."""

    DELAY = "delay"  # waits, then does it and answers
    DROP = "drop"  # does nothing, cuts the connection
    FAIL = "fail"  # does nothing, answers an error
    DUPLICATE = "duplicate"  # does it twice, answers once
    LATE = "late"  # does it at once, answers after the fact
    LOSE_ANSWER = "lose_answer"  # does it, cuts the connection instead of answering


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault that strikes now: `delay_s` for DELAY and LATE, `status` and `code` (Twirp's) for FAIL."""

    kind: Kind
    delay_s: float = 1.0
    status: int = 503
    code: str = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where and when a fault strikes: at the nth matching requests (from 1), or by `chance`; `times_max` bounds it."""

    at: str
    fault: Fault
    nth: frozenset[int] = frozenset()
    chance: float = 0.0
    times_max: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Read one row of a script. Raises: ValueError naming what is wrong with it."""
        known = {"at", "fault", "nth", "chance", "times_max", "delay_s", "status", "code"}
        if unknown := sorted(set(row) - known):
            raise ValueError(f"a fault rule has unknown keys: {', '.join(unknown)}")
        if "at" not in row or "fault" not in row:
            raise ValueError("a fault rule needs `at` and `fault`")
        told = {name: row[name] for name in ("delay_s", "status", "code") if name in row}
        fault = Fault(kind=Kind(row["fault"]), **told)
        if (
            not 0 <= fault.delay_s <= DELAY_MAX_S
            or not 0 <= row.get("chance", 0) <= 1
            or not 400 <= fault.status <= 599
        ):
            raise ValueError(
                f"a fault rule is out of bounds: delay_s 0 to {DELAY_MAX_S:g}, chance 0 to 1, status 4xx, 5xx"
            )
        nth = row.get("nth", [])
        return cls(
            at=row["at"],
            fault=fault,
            nth=frozenset([nth] if isinstance(nth, int) else nth),
            chance=float(row.get("chance", 0.0)),
            times_max=row.get("times_max"),
        )


@dataclass(slots=True)
class Script:
    """The rules with their counters; `strike` is asked once a request."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0
    _met: dict[int, int] = field(default_factory=dict)
    _struck: dict[int, int] = field(default_factory=dict)

    def strike(self, place: str) -> Fault | None:
        """The fault that this request at this place meets, if any."""
        for number, rule in enumerate(self.rules):
            if not fnmatch.fnmatchcase(place, rule.at):
                continue
            self._met[number] = met = self._met.get(number, 0) + 1
            drawn = random.Random(f"{self.seed}:{number}:{met}").random()
            if rule.times_max is not None and self._struck.get(number, 0) >= rule.times_max:
                continue
            if met in rule.nth or drawn < rule.chance:
                self._struck[number] = self._struck.get(number, 0) + 1
                return rule.fault
        return None


def script_from(path: Path | None) -> Script:
    """Read a script; None = no faults. Raises: ValueError for a rule that cannot be meant."""
    if path is None:
        return Script()
    text = path.read_text(encoding="utf-8")
    told = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if not isinstance(told, dict) or set(told) - {"seed", "rules"}:
        raise ValueError(f"{path.name}: a fault script holds `seed` and `rules`")
    return Script(rules=tuple(Rule.of(row) for row in told.get("rules", [])), seed=int(told.get("seed", 0)))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _cut(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)  # never leaves: there is no connection any more


async def _under(fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
    match fault.kind:
        case Kind.DELAY:
            await asyncio.sleep(fault.delay_s)
            return await handler(request)
        case Kind.DROP:
            return _cut(request)
        case Kind.FAIL:
            return web.json_response({"code": fault.code, "msg": "a fault on order"}, status=fault.status)
        case Kind.DUPLICATE:
            await request.read()  # kept by aiohttp: both find it there
            first, _ = await asyncio.gather(handler(request), handler(request))
            return first
        case Kind.LATE:
            answer = await handler(request)
            await asyncio.sleep(fault.delay_s)
            return answer
        case Kind.LOSE_ANSWER:
            await handler(request)
            return _cut(request)


def middleware(script: Script, place_of: Callable[[web.Request], str | None]) -> Callable[..., Any]:
    """An aiohttp middleware that lets each request meet its fault; `place_of` None = a place without faults."""

    @web.middleware
    async def meet(request: web.Request, handler: Handler) -> web.StreamResponse:
        place = place_of(request)
        fault = script.strike(place) if place is not None else None
        return await handler(request) if fault is None else await _under(fault, request, handler)

    return meet
