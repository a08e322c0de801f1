"""Bad inputs and bad clocks around a whole dialer on virtual time: what is good goes on, what is bad is told, nothing breaks."""

from __future__ import annotations

import statistics
import time
from datetime import datetime, timedelta
from typing import Final

import orjson
import pytest

from dialer.callee.state import CALLS_OPEN_MAX
from schemas.topics import COMMANDS, OBSERVATIONS, STOPS, Topic
from tests.doubles.telephony import BUSY, Phone
from tests.doubles.world import ANN, BOB, World, command, id_of, key_of

DEEP: Final = b'{"data":' * 2000 + b"1" + b"}" * 2000
POISON: Final[dict[str, bytes | None]] = {
    "nothing": None,
    "no bytes": b"",
    "no text": b"\xff\xfe\x00",
    "a number": b"1",
    "nested deeply": DEEP,
    "a huge number": b'{"specversion":"1.0","data":' + b"9" * 5000 + b"}",
    "not a number": b'{"specversion":"1.0","data":NaN}',
    "a lone surrogate": b'{"specversion":"1.0","type":"\\ud800","source":"/x","id":"1","data":{}}',
    "a megabyte": b'{"specversion":"1.0","type":"' + b"x" * 1_000_000 + b'"}',
    "no data": b'{"specversion":"1.0","type":"dialer.command.place_call.v1","source":"/x","id":"1"}',
    "data of another shape": command("place_call", "c", {"request_id": [], "campaign_id": {}, "to": 7}),
    "a year 9999": command("place_call", "c", {"request_id": "r", "campaign_id": "c", "to": ANN}, time="9999-12-31T23:59:59Z"),
    "a time of none": command("place_call", "c", {"request_id": "r", "campaign_id": "c", "to": ANN}, time="then"),
    "an end of time": command(
        "place_call", "c", {"request_id": "r", "campaign_id": "c", "to": ANN, "not_before": "0001-01-01T00:00:00+23:59"}
    ),
    "an unknown command": command("place_calls", "c", {}),
    "a later version": orjson.dumps(
        {"specversion": "1.0", "type": "dialer.command.place_call.v9", "source": "/x", "id": "1", "data": {}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("topic", [COMMANDS, STOPS, OBSERVATIONS], ids=lambda t: t.name)
async def test_a_poisonous_record_among_good_ones_is_told_and_passed(topic: Topic) -> None:
    """Whatever it is: one rejection at most, the call after it is made, and the owner is the same as before."""
    world = World()
    await world.start(ANN)
    before = world.ownership()
    for number, value in enumerate(POISON.values()):
        for header in ([], [("ce_type", b"\xff"), ("ce_id", b"")], [("content-type", b"\xff")]):
            world.broker.send(topic, key_of(ANN), value, header)
        world.broker.send(COMMANDS, key_of(ANN), value=None)
        world.stop("cancel_call", f"stop-{number}", call_id=id_of(ANN, f"gone-{number}"))
    call = world.place()
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert world.ownership() is before
    assert len(world.telephony.invites) == 1
    rejected = world.rejected()
    assert len({(r["topic"], r["partition"], r["offset"]) for r in rejected}) == len(rejected), "each is told once"
    told = orjson.dumps(rejected).decode()
    assert "2125550" not in told
    await world.close()


@pytest.mark.parametrize("jump_s", [-86_400, -3600, -5, 5, 3600, 86_400])
@pytest.mark.parametrize(
    "moment", ["call_requested", "room_created", "dial_started", "callee_ringing", "call_answered"]
)
async def test_a_wall_clock_that_jumps_rings_nobody_twice_and_loses_nobody(moment: str, jump_s: int) -> None:
    """Set by an hour in the midst of a call: one end, no attempt with two INVITEs, and the log's time never goes back."""
    world = World()
    await world.start(ANN)
    world.telephony.phone_default = Phone(rings_for_s=4.0)
    world.telephony.script(ANN, Phone(answer=BUSY, rings_for_s=2.0))
    call = world.place(not_after="2026-11-25T00:00:00Z")
    await world.until_told(call, moment if moment != "call_answered" else "retry_scheduled")
    real = world.clock.now

    def jumped() -> datetime:
        return real() + timedelta(seconds=jump_s)

    world.clock.now = jumped  # type: ignore[method-assign]
    await world.clock.advance(2 * 86_400 + 600)
    ends = [name for name in world.told(call) if name in {"call_ended", "call_refused"}]
    assert ends == ["call_ended"]
    attempts = [i.attempt_id for i in world.telephony.invites]
    assert len(attempts) == len(set(attempts))
    assert world.telephony.rooms == {}
    times = [
        datetime.fromisoformat(event["time"]) for event in world.log(call) if event["type"].startswith("dialer.event")
    ]
    assert times == sorted(times)
    await world.close()


async def test_a_clock_that_is_off_from_the_brokers_dials_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages mean nothing then: withdrawn with the reason, and made once the clock is right."""
    world = World()
    await world.start(ANN)
    world.broker.ahead_s = 10.0
    call = world.place()
    await world.clock.advance(30)
    assert world.last(call, "dial_withdrawn")["reason"] == "clock"
    assert world.telephony.invites == []
    await world.close()


CHUNK: Final = 1_000
"""Requests that come within a second: a broker's stamps follow its clock."""


@pytest.mark.parametrize(
    "count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)], ids=lambda count: f"{count}-requests"
)
async def test_one_number_with_very_many_requests_is_bounded_and_holds_up_nobody(count: int) -> None:
    """Twenty wait, the rest is rejected one by one, and another person's call goes through amid them."""
    world = World()
    await world.start(ANN, BOB)
    took_s: list[float] = []
    other = ""
    for first in range(0, count, CHUNK):
        began = time.process_time()
        for n in range(first, first + CHUNK):
            world.place(request=f"r-{n}", not_before="2026-11-22T20:00:00Z", not_after="2026-11-22T22:00:00Z")
        other = other or world.place(BOB)
        await world.clock.advance(1.0)
        took_s.append(time.process_time() - began)
    await world.clock.advance(60)
    assert world.last(other, "call_ended")["outcome"] == "delivered"
    callee = world.ownership().committed(key_of(ANN))
    assert callee is not None
    assert len(callee.calls) == CALLS_OPEN_MAX
    rules = [r["rule"] for r in world.rejected()]
    assert rules == ["too_many"] * (count - CALLS_OPEN_MAX)
    early, late = (statistics.median(part) / CHUNK for part in (took_s[:3], took_s[-3:]))
    print(f"{count:,} requests of one number: {early * 1e6:.0f} µs each at first, {late * 1e6:.0f} µs at last")
    assert late <= 2 * early
    assert len(callee.closed) + len(callee.calls) <= CALLS_OPEN_MAX
    await world.close()
