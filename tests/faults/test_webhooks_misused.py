"""Webhooks are hints: forged, replayed and in storms they change nothing that they should not, and memory stays bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from dialer.api import ApiParts, create_app
from dialer.control_desk import ControlDesk
from dialer.control_words import Words
from dialer.webhooks import Webhooks
from schemas.topics import OBSERVATIONS
from schemas.values import partition_of, room_name
from tests.doubles.agents import Script
from tests.doubles.telephony import BUSY, Phone
from tests.doubles.world import ANN, PEPPER, World, id_of, key_of
from tests.shell.test_webhooks import AGENT, KEY, SECRET, callee, event, token

STORM = 1_500
CALL = id_of(ANN)


def receiver(world: World, seen_max: int = 10_000) -> tuple[httpx.AsyncClient, Webhooks]:
    """The HTTP receiver in front of a world's broker."""

    async def nobody() -> tuple[str, ...]:
        return ()

    async def refuse(_key: bytes, _value: bytes | None) -> int:
        raise AssertionError("a webhook says nothing on control")

    webhooks = Webhooks(KEY, SECRET, seen_max=seen_max)
    parts: dict[str, Any] = {
        "requests": world.requests,
        "control": ControlDesk(Words(), refuse, nobody, world.clock),
        "webhooks": webhooks,
        "pepper": PEPPER,
        "clock": world.clock,
        "query_url": "http://127.0.0.1:9",
        "api_keys": [],
        "not_ready": dict,
    }
    transport = httpx.ASGITransport(app=create_app(ApiParts(**parts)))
    return httpx.AsyncClient(transport=transport, base_url="http://dialer"), webhooks


async def send(client: httpx.AsyncClient, content: bytes, authorization: str) -> int:
    answer = await client.post("/v1/livekit/webhook", content=content, headers={"authorization": authorization})
    return answer.status_code


def observed(world: World) -> int:
    return len(world.broker.committed(OBSERVATIONS.name, partition_of(key_of(ANN))))


async def test_a_storm_of_new_replayed_and_forged_webhooks_writes_each_new_one_once() -> None:
    """A third of each at once: what is forged is refused, what is replayed is left out, the memory of ids is bounded."""
    world = World()
    await world.start(ANN)
    before = observed(world)
    client, webhooks = receiver(world, seen_max=STORM)
    async with client:
        new = [event("room_finished", room_name(CALL, 1), event_id=f"EV_{n}") for n in range(STORM // 3)]
        assert set(await asyncio.gather(*(send(client, body, token(body)) for body in new))) == {200}
        forged = [(body, token(body, secret="t" * 40)) for body in new]
        assert set(await asyncio.gather(*(send(client, *pair) for pair in forged))) == {401}
        assert set(await asyncio.gather(*(send(client, body, token(body)) for body in new))) == {200}
    assert observed(world) - before == len(new)
    assert len(webhooks._seen) <= STORM
    await world.close()


@pytest.mark.parametrize("answered", [False, True])
async def test_webhooks_of_an_attempt_that_is_over_do_not_touch_the_next(answered: bool) -> None:
    """Replayed under new ids, signed, amid the second attempt: nothing falls, nobody is rung again."""
    world = World()
    await world.start(ANN)
    world.telephony.script(ANN, Phone(answer=BUSY), Phone(rings_for_s=1.0 if answered else 10.0))
    world.agents.default = Script(speaks_for_s=30.0)
    world.place()
    await world.until(lambda: len(world.telephony.live_legs) == 1 and len(world.telephony.invites) == 2, 400)
    await world.clock.advance(3.0)
    client, _ = receiver(world)
    old = room_name(CALL, 1)
    async with client:
        for number in range(20):
            for body in (
                event("room_finished", old, event_id=f"EV_f{number}"),
                event("participant_left", old, callee("USER_REJECTED"), event_id=f"EV_l{number}"),
                event("participant_left", old, AGENT, event_id=f"EV_a{number}"),
                event("participant_joined", old, callee(), event_id=f"EV_j{number}"),
            ):
                assert await send(client, body, token(body)) == 200
    await world.clock.advance(1.0)
    assert len(world.telephony.live_legs) == 1
    await world.clock.advance(120)
    assert world.last(CALL, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 2
    await world.close()


async def test_a_webhook_that_lies_about_a_live_room_costs_at_most_that_attempt() -> None:
    """Signed and wrong (LiveKit reorders and repeats): one terminal event, and no attempt has two INVITEs."""
    for name, participant in (("room_finished", None), ("participant_left", callee()), ("participant_left", AGENT)):
        world = World()
        await world.start(ANN)
        world.telephony.phone_default = Phone(rings_for_s=5.0)
        world.place()
        await world.until_told(CALL, "callee_ringing")
        client, _ = receiver(world)
        async with client:
            body = event(name, room_name(CALL, 1), participant, event_id="EV_lie")
            assert await send(client, body, token(body)) == 200
        await world.clock.advance(2 * 3600)
        ends = [told for told in world.told(CALL) if told in {"call_ended", "call_refused"}]
        assert ends == ["call_ended"], name
        attempts = [i.attempt_id for i in world.telephony.invites]
        assert len(attempts) == len(set(attempts))
        assert world.telephony.rooms == {}
        await world.close()
