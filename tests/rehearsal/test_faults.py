"""Faults come on order, and the same order brings the same faults."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from rehearsal import faults, serving
from rehearsal.faults import Fault, Kind, Rule, Script, script_from


def script(kind: Kind, **fields: float) -> Script:
    return Script(rules=(Rule(at="here", fault=Fault(kind=kind, **fields), nth=frozenset([1])),))


async def ask(with_faults: Script) -> tuple[int | None, int, float]:
    """One request to a server under a script: (status or None for a cut, how often it was handled, seconds)."""
    handled = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal handled
        handled += 1
        assert await request.text() == "body"
        return web.Response(text="done")

    app = web.Application(middlewares=[faults.middleware(with_faults, lambda _: "here")])
    app.router.add_post("/", handle)
    runner, port = await serving.start(app, 0)
    started = time.monotonic()
    try:
        async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/", data="body") as answer:
            status: int | None = answer.status
    except aiohttp.ClientError:
        status = None
    finally:
        await runner.cleanup()
    return status, handled, time.monotonic() - started


@pytest.mark.parametrize(
    ("kind", "status", "handled", "waits"),
    [
        (Kind.DELAY, 200, 1, True),
        (Kind.DROP, None, 0, False),
        (Kind.FAIL, 503, 0, False),
        (Kind.DUPLICATE, 200, 2, False),
        (Kind.LATE, 200, 1, True),
        (Kind.LOSE_ANSWER, None, 1, False),
    ],
)
async def test_each_fault_does_what_it_says(kind: Kind, status: int | None, handled: int, waits: bool) -> None:
    """What the caller sees, and how often the thing was really done."""
    seen, done, seconds = await asyncio.wait_for(ask(script(kind, delay_s=0.3)), 10)
    assert (seen, done) == (status, handled)
    assert (seconds >= 0.3) is waits


async def test_without_a_script_nothing_fails() -> None:
    """The default."""
    assert (await ask(Script()))[:2] == (200, 1)


def test_the_same_seed_gives_the_same_faults(tmp_path: Path) -> None:
    """And another seed others."""
    path = tmp_path / "faults.yaml"

    def struck(seed: int) -> list[bool]:
        path.write_text(f"seed: {seed}\nrules:\n  - {{at: 'carrier.*', chance: 0.3, fault: drop}}\n")
        told = script_from(path)
        return [told.strike("carrier.CreateRoom") is not None for _ in range(200)]

    assert struck(7) == struck(7) != struck(8)
    assert 30 < sum(struck(7)) < 90


def test_rules_count_their_own_place_and_keep_their_bound(tmp_path: Path) -> None:
    """`nth` counts matching requests only; `times_max` bounds what strikes."""
    path = tmp_path / "faults.json"
    path.write_text('{"rules": [{"at": "a", "nth": 2, "fault": "fail", "status": 500, "code": "internal"},'
                    ' {"at": "b*", "chance": 1.0, "fault": "late", "delay_s": 3, "times_max": 2}]}')  # fmt: skip
    told = script_from(path)
    assert [told.strike(place) for place in ("a", "c")] == [None, None]
    assert told.strike("a") == Fault(kind=Kind.FAIL, status=500, code="internal")
    assert [fault and fault.kind for fault in (told.strike("bx") for _ in range(3))] == [Kind.LATE, Kind.LATE, None]


@pytest.mark.parametrize(
    "row",
    [{"at": "a"}, {"fault": "drop"}, {"at": "a", "fault": "explode"}, {"at": "a", "fault": "drop", "when": 1},
     {"at": "a", "fault": "delay", "delay_s": 1e9}, {"at": "a", "fault": "fail", "status": 200},
     {"at": "a", "fault": "drop", "chance": 2}],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant_is_refused(row: dict[str, object]) -> None:
    """Refused when the script is read, not when it should strike."""
    with pytest.raises(ValueError, match=r"rule|valid Kind"):
        Rule.of(row)
