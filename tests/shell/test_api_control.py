"""The kill switch over HTTP: what it takes, what it writes, and when it says that all obey."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest

from dialer.api import PREFIX, ApiParts, create_app
from dialer.control_desk import ControlDesk, MembersUnknown
from dialer.control_words import SEEN_PREFIX, Seen, Words, encode_seen
from dialer.requests import NotAccepted
from dialer.webhooks import Webhooks
from schemas.responses import PROBLEM_TYPE
from schemas.values import PARTITIONS
from tests.doubles.clock import VirtualClock
from tests.doubles.world import PEPPER
from tests.shell.test_webhooks import KEY, SECRET


@dataclass
class Desk:
    """The routes over a topic in memory, with the members a test names."""

    words: Words = field(default_factory=Words)
    live: list[str] = field(default_factory=list)
    written: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    away: bool = False

    async def send(self, key: bytes, value: bytes | None) -> int:
        if self.away:
            raise NotAccepted("away")
        self.written.append((key, value))
        self.words.take(key, value, len(self.written) - 1)
        return len(self.written) - 1

    async def members(self) -> tuple[str, ...]:
        if self.away:
            raise MembersUnknown("away")
        return tuple(self.live)

    def confirm(self, dialer: str, applied: int, silent: tuple[int, ...] = ()) -> None:
        self.words.take(SEEN_PREFIX + dialer.encode(), encode_seen(Seen(applied=applied, silent=silent)), 1000)

    def client(self, **over: Any) -> httpx.AsyncClient:
        desk = ControlDesk(self.words, self.send, self.members, VirtualClock())
        parts: dict[str, Any] = {
            "requests": None,
            "control": desk,
            "webhooks": Webhooks(KEY, SECRET),
            "pepper": PEPPER,
            "clock": VirtualClock(),
            "query_url": "http://127.0.0.1:9",
            "api_keys": [],
            "not_ready": dict,
        }
        transport = httpx.ASGITransport(app=create_app(ApiParts(**{**parts, **over})))
        return httpx.AsyncClient(transport=transport, base_url="http://dialer")


@pytest.mark.parametrize(
    ("path", "body", "key", "value"),
    [
        ("stop", {"all": True}, b"*", {"state": "stopped"}),
        ("stop", {"all": True, "now": True}, b"*", {"state": "stopped", "hang_up": True}),
        ("stop", {"campaign_id": "rx-refill"}, b"rx-refill", {"state": "stopped"}),
        ("resume", {"campaign_id": "rx-refill"}, b"rx-refill", {"state": "running"}),
        ("resume", {"all": True}, b"*", {"state": "running"}),
    ],
)
@pytest.mark.parametrize("prefix", ["", PREFIX])
async def test_a_word_is_a_value_on_the_topic(
    prefix: str, path: str, body: dict[str, Any], key: bytes, value: dict[str, Any]
) -> None:
    """202 once it is acknowledged, with the place to ask who obeys."""
    desk = Desk()
    async with desk.client() as client:
        answer = await client.post(f"{prefix}/v1/control/{path}", json=body)
    assert answer.status_code == 202
    assert answer.headers["location"] == "/v1/control?after=0"
    ((written, content),) = desk.written
    assert written == key
    assert orjson.loads(content or b"") == {"at": "2026-11-22T15:00:00+00:00"} | value


@pytest.mark.parametrize(
    ("path", "body", "name", "rule"),
    [
        ("stop", {}, "campaign_id", "all_or_one_campaign"),
        ("stop", {"all": True, "campaign_id": "a"}, "campaign_id", "all_or_one_campaign"),
        ("stop", {"campaign_id": "$layout"}, "campaign_id", "pattern"),
        ("stop", {"campaign_id": "+12125550123"}, "campaign_id", "pattern"),
        ("stop", {"campaign_id": 7}, "campaign_id", "wrong_type"),
        ("stop", {"all": "yes"}, "all", "wrong_type"),
        ("stop", {"all": True, "later": True}, "later", "unknown_field"),
        ("resume", {"all": True, "now": True}, "now", "unknown_field"),
    ],
)
async def test_a_word_that_breaks_a_rule_is_refused_by_name(
    path: str, body: dict[str, Any], name: str, rule: str
) -> None:
    """Nothing is written; nobody stops `$layout`."""
    desk = Desk()
    async with desk.client() as client:
        answer = await client.post(f"/v1/control/{path}", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM_TYPE)
    assert (answer.json()["field"], answer.json()["rule"]) == (name, rule)
    assert desk.written == []


async def test_it_is_confirmed_when_every_live_dialer_obeys() -> None:
    """The dead are not waited for; who is up and has said nothing is."""
    desk = Desk(live=["a", "b"])
    async with desk.client() as client:
        after = (await client.post("/v1/control/stop", json={"all": True})).json()["after"]

        async def told() -> httpx.Response:
            return await client.get(f"/v1/control?after={after}")

        desk.confirm("a", after)
        desk.confirm("dead", after - 1)
        found = (await told()).json()
        assert not found["confirmed"]
        assert found["dialers"] == [
            {"dialer": "a", "applied": after, "confirmed": True},
            {"dialer": "b", "applied": None, "confirmed": False},
        ]
        desk.confirm("b", after - 1)
        assert not (await told()).json()["confirmed"]
        desk.confirm("b", after)
        found = (await told()).json()
        assert found["confirmed"]
        assert found["said"] == [{"key": "*", "state": "stopped", "hang_up": False, "offset": after}]
        ahead = (await client.get(f"/v1/control?after={after + 1}")).json()
        assert not ahead["confirmed"], "a word that is not read back is not obeyed"


async def test_a_hang_up_is_confirmed_when_all_partitions_are_silent() -> None:
    """A partition that nobody owns may have a phone on the line."""
    desk = Desk(live=["a", "b"])
    async with desk.client() as client:
        after = (await client.post("/v1/control/stop", json={"all": True, "now": True})).json()["after"]
        desk.confirm("a", after, tuple(range(12)))
        desk.confirm("b", after, tuple(range(12, PARTITIONS - 1)))
        found = (await client.get("/v1/control")).json()
        assert (found["confirmed"], found["loud_partitions"]) == (False, [PARTITIONS - 1])
        desk.confirm("b", after, tuple(range(12, PARTITIONS)))
        assert (await client.get("/v1/control")).json()["confirmed"]
        desk.live = ["a"]
        found = (await client.get("/v1/control")).json()
        assert not found["confirmed"], "what a dialer said that is gone does not count"


async def test_a_kafka_that_is_away_is_said() -> None:
    """Nothing is taken to be stopped that is not."""
    desk = Desk(away=True)
    async with desk.client() as client:
        for answer in (
            await client.post("/v1/control/stop", json={"all": True}),
            await client.get("/v1/control"),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_with_keys_the_kill_switch_needs_one() -> None:
    """To stop, to resume, and to look."""
    desk = Desk()
    async with desk.client(api_keys=["k1"]) as client:
        for method, path in (("POST", "stop"), ("POST", "resume")):
            assert (await client.request(method, f"/v1/control/{path}", json={"all": True})).status_code == 401
        assert (await client.get("/v1/control")).status_code == 401
        good = await client.get("/v1/control", headers={"authorization": "Bearer k1"})
        assert good.status_code == 200


async def test_the_openapi_document_shows_the_kill_switch() -> None:
    """With bodies and the answer."""
    async with Desk().client() as client:
        document = (await client.get("/openapi.json")).json()
    paths = document["paths"]
    assert {"/v1/control/stop", "/v1/control/resume", "/v1/control"} <= set(paths)
    body = paths["/v1/control/stop"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"all", "campaign_id", "now"}
