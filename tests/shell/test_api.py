"""The write side's HTTP over ASGI with a real broker: accepted means on its topic; a refusal names field and rule only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web
from aiokafka import TopicPartition

from dialer.api import PREFIX, ApiParts, create_app
from dialer.control_desk import ControlDesk
from dialer.control_words import Words
from dialer.requests import NotAccepted, Requests
from dialer.topic_setup import create_or_verify
from dialer.webhooks import Webhooks
from rehearsal.ports import free_port
from runtime.clock import SystemClock
from runtime.kafka import assigned_consumer
from schemas.responses import PROBLEM_TYPE
from schemas.topics import COMMANDS, OBSERVATIONS, STOPS, Topic
from schemas.values import partition_of, room_name
from tests.doubles.world import PEPPER, id_of, key_of
from tests.shell.test_webhooks import KEY, SECRET, event, token

pytestmark = pytest.mark.broker
CANARY = "+12125550199"
CALL = id_of(CANARY, "refill-1")
BODY = {"request_id": "refill-1", "campaign_id": "rx-refill", "to": CANARY, "variables": {"first_name": "Canaryname"}}


@dataclass
class Api:
    """The application, and what stands behind it."""

    client: httpx.AsyncClient
    bootstrap: str
    waiting: dict[str, str]
    ends: dict[str, int] = field(default_factory=dict)

    async def mark(self) -> None:
        """Remember where the topics end for the canary's partition."""
        self.ends = {t.name: (await self._read(t, None))[0] for t in (COMMANDS, STOPS, OBSERVATIONS)}

    async def written(self, topic: Topic) -> list[tuple[bytes, dict[str, Any]]]:
        """Return (key, envelope) of what was written to the canary's partition since `mark`."""
        return (await self._read(topic, self.ends[topic.name]))[1]

    async def _read(self, topic: Topic, start: int | None) -> tuple[int, list[tuple[bytes, dict[str, Any]]]]:
        tp = TopicPartition(topic.name, partition_of(key_of(CANARY)))
        consumer = assigned_consumer(self.bootstrap, "test", read_committed=False, fetch_max_wait_ms=10)
        await consumer.start()
        try:
            end = (await consumer.end_offsets([tp]))[tp]
            found: list[tuple[bytes, dict[str, Any]]] = []
            if start is not None:
                consumer.assign([tp])
                consumer.seek(tp, start)
                while await consumer.position(tp) < end:
                    for record in (await consumer.getmany(tp, timeout_ms=50)).get(tp, ()):
                        found.append((record.key, orjson.loads(record.value)))
            return end, found
        finally:
            await consumer.stop()


@pytest.fixture
async def requests(kafka_bootstrap: str) -> AsyncIterator[Requests]:
    await create_or_verify(kafka_bootstrap)
    requests = Requests(kafka_bootstrap)
    await requests.start()
    yield requests
    await requests.close()


async def nobody_up() -> tuple[str, ...]:
    return ()


def client_of(requests: Requests, query_url: str = "", **over: Any) -> httpx.AsyncClient:
    parts: Mapping[str, Any] = {
        "requests": requests,
        "control": ControlDesk(Words(), requests.send_control, nobody_up, SystemClock()),
        "webhooks": Webhooks(KEY, SECRET),
        "pepper": PEPPER,
        "clock": SystemClock(),
        "query_url": query_url or f"http://127.0.0.1:{free_port()}",
        "api_keys": [],
        "not_ready": dict,
    }
    transport = httpx.ASGITransport(app=create_app(ApiParts(**{**parts, **over})))
    return httpx.AsyncClient(transport=transport, base_url="http://dialer")


@pytest.fixture
async def api(requests: Requests, kafka_bootstrap: str) -> AsyncIterator[Api]:
    waiting: dict[str, str] = {}
    async with client_of(requests, not_ready=lambda: waiting) as client:
        api = Api(client, kafka_bootstrap, waiting)
        await api.mark()
        yield api


@pytest.mark.parametrize("prefix", ["", PREFIX])
async def test_a_request_is_accepted_once_it_is_on_its_topic(api: Api, prefix: str) -> None:
    """202, `Location`, the call's id; the record at its canonical key and partition."""
    answer = await api.client.post(f"{prefix}/v1/calls", json=BODY)
    assert answer.status_code == 202
    assert answer.json() == {"call_id": CALL, "callee_key": key_of(CANARY)}
    assert answer.headers["location"] == f"/v1/calls/{CALL}"
    ((key, envelope),) = await api.written(COMMANDS)
    assert key.decode() == key_of(CANARY)
    assert (envelope["type"], envelope["source"]) == ("dialer.command.place_call.v1", "/api")
    assert envelope["data"]["to"] == CANARY


async def test_the_same_request_again_is_the_same_call(api: Api) -> None:
    """However the number is written; another request is another call."""
    first = await api.client.post("/v1/calls", json=BODY)
    again = await api.client.post("/v1/calls", json=BODY | {"to": "+1 (212) 555-0199"})
    other = await api.client.post("/v1/calls", json=BODY | {"request_id": "refill-2"})
    assert first.json()["call_id"] == again.json()["call_id"] != other.json()["call_id"]


async def test_a_traceparent_is_passed_on_where_it_is_one(api: Api) -> None:
    """What is none must not make an accepted request bad input."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for text in (trace, "x" * 400):
        assert (await api.client.post("/v1/calls", json=BODY, headers={"traceparent": text})).status_code == 202
    assert [e.get("traceparent") for _, e in await api.written(COMMANDS)] == [trace, None]


async def test_a_cancel_goes_to_stops(api: Api) -> None:
    """By the call's id; the answer says where the call can be looked at."""
    answer = await api.client.delete(f"/v1/calls/{CALL}")
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/calls/{CALL}")
    ((key, envelope),) = await api.written(STOPS)
    assert key.decode() == key_of(CANARY)
    assert envelope["data"] == {"call_id": CALL, "reason": "requested"}


@pytest.mark.parametrize("named", [{"to": CANARY}, {"callee_key": key_of(CANARY)}])
async def test_a_suppression_names_its_callee_by_pseudonym(api: Api, named: dict[str, str]) -> None:
    """The number is translated here and goes no further."""
    answer = await api.client.post("/v1/suppressions", json=named | {"reason": "asked"})
    assert answer.status_code == 202
    assert answer.json() == {"call_id": None, "callee_key": key_of(CANARY)}
    lifted = await api.client.delete("/v1/suppressions/" + next(iter(named.values())))
    assert lifted.status_code == 202
    (_, stop), (_, lift) = await api.written(STOPS)
    assert stop["data"] == {"callee_key": key_of(CANARY), "scope": "all", "reason": "asked"}
    assert lift["data"] == {"callee_key": key_of(CANARY), "scope": "all", "reason": "requested"}
    assert CANARY[1:] not in str((stop, lift))


async def test_a_stop_may_be_sent_again_under_its_idempotency_key(api: Api) -> None:
    """The key is the record's id; one that could not be an id is refused, not accepted and lost."""
    for _ in range(2):
        await api.client.delete(f"/v1/calls/{CALL}", headers={"idempotency-key": "stop-7"})
    assert [e["id"] for _, e in await api.written(STOPS)] == ["stop-7"] * 2
    for bad, rule in (("a b", "pattern"), ("x" * 129, "pattern"), ("212-555-0199", "phone_number")):
        answer = await api.client.delete(f"/v1/calls/{CALL}", headers={"idempotency-key": bad})
        assert_problem(answer, 422, "idempotency-key", rule)


def assert_problem(answer: httpx.Response, status: int, name: str | None = None, rule: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_TYPE
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:outbound-dialer:problem:")
    if name is not None:
        assert (problem["field"], problem["rule"]) == (name, rule)
    for secret in ("2125550199", "212555019", "Canary"):
        assert secret not in answer.text


@pytest.mark.parametrize(
    ("body", "name", "rule"),
    [
        ({"to": "+1212555019"}, "to", "too_short"),
        ({"to": "+1212555019CANARY"}, "to", "letters"),
        ({"to": "2125550199"}, "to", "not_international"),
        ({"to": "+1900" + CANARY[5:]}, "to", "premium"),
        ({"to": 12125550199}, "to", "wrong_type"),
        ({"to": None}, "to", "wrong_type"),
        ({"request_id": "2125550199"}, "request_id", "phone_number"),
        ({"request_id": CANARY}, "request_id", "pattern"),
        ({"campaign_id": "2125550199"}, "campaign_id", "phone_number"),
        ({"campaign_id": "Canaryname"}, "campaign_id", "pattern"),
        ({"variables": {"first_name": ["Canaryname"]}}, "variables.first_name", "wrong_type"),
        ({"variables": "Canaryname 2125550199"}, "variables", "wrong_type"),
        ({"timezone": "Canaryname/2125550199"}, "timezone", "unknown_time_zone"),
        ({"not_before": "Canaryname"}, "not_before", "wrong_type"),
        ({"not_after": "2026-11-22T15:00:00"}, "not_after", "timezone_aware"),
        ({"priority": 2125550199}, "priority", "less_than_equal"),
        ({"consent": {"id": "c-1"}}, "consent.kind", "missing"),
        ({"not_afer": "2125550199"}, "not_afer", "unknown_field"),
    ],
)
async def test_a_bad_field_is_named_with_its_rule_and_never_its_value(
    api: Api, body: dict[str, Any], name: str, rule: str
) -> None:
    """Nothing of it is written either."""
    answer = await api.client.post("/v1/calls", json=BODY | body)
    if rule == "wrong_type" and answer.json()["rule"].endswith("_parsing"):
        rule = answer.json()["rule"]
    assert_problem(answer, 422, name, rule)
    assert await api.written(COMMANDS) == []


@pytest.mark.parametrize(
    ("content", "rule"), [(b"{", "not_json"), (b"[]", "wrong_type"), (b'"' + b"x" * 262_144 + b'"', "too_large")]
)
async def test_a_body_that_is_no_object_is_refused(api: Api, content: bytes, rule: str) -> None:
    """Before anything in it is looked at."""
    assert_problem(await api.client.post("/v1/calls", content=content), 422, "body", rule)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("DELETE", f"/v1/calls/{CANARY}", "call_id"),
        ("DELETE", f"/v1/calls/{CALL[:-1]}", "call_id"),
        ("DELETE", f"/v1/calls/{CALL.upper()}", "call_id"),
        ("DELETE", "/v1/suppressions/2125550199", "callee_key"),
        ("DELETE", "/v1/suppressions/Canaryname", "callee_key"),
    ],
)
async def test_a_malformed_id_is_refused(api: Api, method: str, path: str, name: str) -> None:
    """422 that names it."""
    assert_problem(await api.client.request(method, path), 422, name, "pattern")


async def test_a_suppression_of_nobody_is_refused(api: Api) -> None:
    """One of the two names is needed."""
    assert_problem(await api.client.post("/v1/suppressions", json={}), 422, "callee_key", "missing")


async def test_errors_of_the_router_are_problems_too(api: Api) -> None:
    """No other error format, from the first version on."""
    assert_problem(await api.client.put("/v1/calls"), 405)
    assert_problem(await api.client.get("/nowhere"), 404)


async def test_with_keys_every_request_needs_one(requests: Requests) -> None:
    """401 as a problem; health, readiness, metrics and webhooks have other doors."""
    async with client_of(requests, api_keys=["k1", "k2"]) as client:
        calls = [
            client.post("/v1/calls", json=BODY),
            client.delete(f"/v1/calls/{CALL}"),
            client.post("/v1/suppressions", json={}),
            client.delete(f"/v1/suppressions/{key_of(CANARY)}"),
            client.post("/v1/calls", json=BODY, headers={"authorization": "Bearer k3"}),
            client.post("/v1/calls", json=BODY, headers={"authorization": "Basic k1"}),
            client.post("/v1/calls", json=BODY, headers={"authorization": "Bearer ключ".encode()}),
            client.post(f"{PREFIX}/v1/calls", json=BODY),
        ]
        for answer in await asyncio.gather(*calls):
            assert_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        for key in ("k1", "k2"):
            answer = await client.post("/v1/calls", json=BODY, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 202
        assert (await client.get("/health")).status_code == 200


async def test_a_signed_webhook_becomes_an_observation_once(api: Api) -> None:
    """Repeated by LiveKit it is left out; forged it is refused."""
    body = event("room_finished", room_name(CALL, 1))
    forged = await api.client.post("/v1/livekit/webhook", content=body, headers={"authorization": token(b"other")})
    assert_problem(forged, 401)
    assert_problem(await api.client.post("/v1/livekit/webhook", content=body), 401)
    for path in ("/v1/livekit/webhook", f"{PREFIX}/v1/livekit/webhook"):
        answer = await api.client.post(path, content=body, headers={"authorization": token(body)})
        assert answer.status_code == 200
    ((key, envelope),) = await api.written(OBSERVATIONS)
    assert key.decode() == key_of(CANARY)
    assert (envelope["type"], envelope["subject"]) == ("livekit.observation.room_finished.v1", CALL)


async def test_a_webhook_that_is_far_too_large_is_refused(api: Api) -> None:
    """Before its token is looked at."""
    assert_problem(await api.client.post("/v1/livekit/webhook", content=b"x" * 300_000), 413)


async def test_ready_says_what_it_waits_for(api: Api) -> None:
    """503 with every reason, 200 without any."""
    api.waiting |= {"partitions": "3 being taken over"}
    answer = await api.client.get("/ready")
    assert_problem(answer, 503)
    assert answer.json()["waiting"] == {"partitions": "3 being taken over"}
    api.waiting.clear()
    assert (await api.client.get("/ready")).json() == {"status": "ready"}
    assert (await api.client.get(f"{PREFIX}/ready")).status_code == 200


async def test_metrics_are_prometheus_text(api: Api) -> None:
    """Base units, no ids."""
    answer = await api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE dialer_commit_seconds histogram" in answer.text


async def test_a_broker_that_is_away_is_a_503_that_says_so() -> None:
    """Not accepted: nobody may think it was."""

    class Away:
        async def send(self, *_: Any) -> None:
            raise NotAccepted("KafkaConnectionError")

        send_control = send

    async with client_of(Away()) as client:  # type: ignore[arg-type]
        for path, asked in (("/v1/calls", BODY), ("/v1/control/stop", {"all": True})):
            answer = await client.post(path, json=asked)
            assert_problem(answer, 503)
            assert answer.headers["retry-after"] == "1"


# ---- the read side, passed through -------------------------------------------------------------------------------


@pytest.fixture
async def query_url() -> AsyncIterator[str]:
    """A read side that says what it was asked, and can be slow."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("slow"):
            trickle = web.StreamResponse()
            await trickle.prepare(request)
            for _ in range(20):
                await trickle.write(b" ")
                await asyncio.sleep(0.5)
            return trickle
        told = {"path": request.path_qs, "authorization": request.headers.get("authorization")}
        status = 404 if request.path.endswith("gone") else 200
        return web.json_response(told, status=status, headers={"Retry-After": "1", "X-Secret": "no"})

    app = web.Application()
    app.router.add_get("/v1/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.mark.parametrize("prefix", ["", PREFIX])
async def test_reads_are_passed_on(requests: Requests, query_url: str, prefix: str) -> None:
    """Path, every parameter, the caller's key; status and body come back, and only the headers that concern users."""
    async with client_of(requests, query_url, api_keys=["k1"]) as client:
        path = f"{prefix}/v1/calls?campaign_id=rx&status=ended&status=refused"
        answer = await client.get(path, headers={"authorization": "Bearer q"})
        told = answer.json()
        assert told["path"] == "/v1/calls?campaign_id=rx&status=ended&status=refused"
        assert told["authorization"] == "Bearer q"
        assert "x-secret" not in answer.headers
        gone = await client.get(f"{prefix}/v1/calls/gone")
        assert (gone.status_code, gone.headers["retry-after"]) == (404, "1")


async def test_a_read_side_that_is_away_is_a_503(requests: Requests) -> None:
    """Requests are still taken."""
    async with client_of(requests) as client:
        assert_problem(await client.get(f"/v1/calls/{CALL}"), 503)
        assert (await client.post("/v1/calls", json=BODY)).status_code == 202


async def test_a_read_side_that_trickles_is_given_2_s_in_all(requests: Requests, query_url: str) -> None:
    """Then a problem, not a hanging client."""
    async with client_of(requests, query_url) as client:
        began = asyncio.get_running_loop().time()
        assert_problem(await client.get("/v1/slow"), 503)
        assert 1.5 < asyncio.get_running_loop().time() - began < 4.0


async def test_the_openapi_document_names_every_route(api: Api) -> None:
    """With the request bodies of the contract and the problems each may answer."""
    document = (await api.client.get("/openapi.json")).json()
    named = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert named == {
        ("POST", "/v1/calls"),
        ("DELETE", "/v1/calls/{call}"),
        ("POST", "/v1/suppressions"),
        ("DELETE", "/v1/suppressions/{callee}"),
        ("POST", "/v1/control/stop"),
        ("POST", "/v1/control/resume"),
        ("GET", "/v1/control"),
        ("POST", "/v1/livekit/webhook"),
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
    }
    placed = document["paths"]["/v1/calls"]["post"]
    schema = placed["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) == {"request_id", "campaign_id", "to"}
    assert "$ref" not in orjson.dumps(schema).decode()
    assert PROBLEM_TYPE in placed["responses"]["422"]["content"]
    assert (await api.client.get("/docs")).status_code == 200
