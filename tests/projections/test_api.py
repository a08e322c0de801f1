"""The read side's HTTP over a real store: answers, refusals, readiness."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from projections import call_status, timeline
from projections.api import create_app
from projections.logged import read
from projections.sqlite import SqliteStore
from projections.store import Change, ModelName, Side
from tests.projections.records import LogBuilder, busy_then_delivered, call, delivered, refused

WAITING: dict[str, str] = {}


async def fill(store: SqliteStore, numbers: range, start: int = 0) -> None:
    builder = LogBuilder()
    stories = {n: builder.add(call(n), *(delivered, busy_then_delivered, refused)[n % 3](call(n))) for n in numbers}
    rows = [call_status.fold(None, [read(r) for r in records]) for records in stories.values()]
    events = [timeline.fold(read(r)) for records in stories.values() for r in records]
    moves = {0: (start, start + 1)}
    await store.write(
        Side.LIVE, Change(model=ModelName.CALL_STATUS, moves=moves, calls=[r for r in rows if r is not None])
    )
    await store.write(
        Side.LIVE, Change(model=ModelName.TIMELINE, moves=moves, events=[e for e in events if e is not None])
    )


@pytest.fixture
async def client(store: SqliteStore) -> AsyncIterator[httpx.AsyncClient]:
    await fill(store, range(12))
    transport = httpx.ASGITransport(create_app(store, lambda: WAITING))
    async with httpx.AsyncClient(transport=transport, base_url="http://read") as opened:
        yield opened


async def test_a_call_is_shown_as_it_stands(client: httpx.AsyncClient) -> None:
    """The whole row, times in UTC."""
    body = (await client.get(f"/v1/calls/{call(1)}")).json()
    assert (body["call_id"], body["status"], body["outcome"], body["dials"]) == (call(1), "ended", "delivered", 2)
    assert body["requested_at"].endswith("Z")


async def test_a_call_that_is_not_projected_yet_says_when_to_ask_again(client: httpx.AsyncClient) -> None:
    """404 with Retry-After, as a problem; for its events too."""
    for path in (f"/v1/calls/{call(999)}", f"/v1/calls/{call(999)}/events"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (404, "1")
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/calls/not-a-call", "call_id"),
        ("/v1/calls/not-a-call/events", "call_id"),
        ("/v1/calls?cursor=bm9uc2Vuc2U", "cursor"),
        ("/v1/calls?cursor=%F0%9F%98%80", "cursor"),
        ("/v1/calls?limit=0", "query.limit"),
        ("/v1/calls?limit=501", "query.limit"),
        ("/v1/calls?status=sleeping", "query.status"),
        ("/v1/calls?campaign_id=Not%20One", "query.campaign_id"),
    ],
)
async def test_a_malformed_value_is_refused_by_the_name_of_its_field(
    client: httpx.AsyncClient, path: str, field: str
) -> None:
    """422, a problem with field and rule, never with the value."""
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert "not-a-call" not in answer.text
    assert "sleeping" not in answer.text


async def test_a_calls_events_are_its_history_with_the_sealed_values_hidden(client: httpx.AsyncClient) -> None:
    """In order; what is sealed is the word."""
    body = (await client.get(f"/v1/calls/{call(1)}/events")).json()
    sequences = [event["sequence"] for event in body["events"]]
    assert body["call_id"] == call(1)
    assert sequences == sorted(sequences) == list(range(1, 23))
    assert body["events"][0]["data"]["to"] == "sealed"


async def test_pages_follow_the_cursor_to_the_end_while_calls_come_in(
    client: httpx.AsyncClient, store: SqliteStore
) -> None:
    """Every call that was there at the start once, newest first; the last page has no cursor."""
    seen: list[str] = []
    cursor: str | None = None
    for turn in range(10):
        params = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        body = (await client.get("/v1/calls", params=params)).json()
        seen += [found["call_id"] for found in body["calls"]]
        cursor = body["cursor"]
        if cursor is None:
            break
        await fill(store, range(100 + turn, 101 + turn), start=1 + turn)
    was_there = [found for found in seen if found in {call(n) for n in range(12)}]
    assert was_there == [call(n) for n in reversed(range(12))]


async def test_calls_are_listed_by_campaign_and_status(client: httpx.AsyncClient) -> None:
    """Both filters."""
    body = (await client.get("/v1/calls", params={"campaign_id": "rx-refill", "status": "refused"})).json()
    assert {found["call_id"] for found in body["calls"]} == {call(n) for n in range(12) if n % 3 == 2}
    assert (await client.get("/v1/calls", params={"campaign_id": "no-such"})).json() == {"calls": [], "cursor": None}


async def test_readiness_names_what_is_behind(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 as a problem until all parts are near the end; liveness does not care."""
    assert (await client.get("/ready")).status_code == 200
    monkeypatch.setitem(WAITING, "timeline", "5000 records behind in one partition")
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["waiting"]) == (503, WAITING)
    assert (await client.get("/health")).json() == {"status": "ok"}


async def test_metrics_and_a_described_api_are_served(client: httpx.AsyncClient) -> None:
    """Prometheus' text; OpenAPI with a summary and a description for every route."""
    assert "dialer_projection_lag_records" in (await client.get("/metrics")).text
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/v1/calls", "/v1/calls/{call_id}", "/v1/calls/{call_id}/events", "/health", "/ready"} <= set(paths)
    assert all(route["get"]["summary"] and route["get"]["description"] for route in paths.values())


async def test_where_keys_are_set_the_calls_need_one_and_the_probes_do_not(store: SqliteStore) -> None:
    """Bearer; 401 as a problem."""
    transport = httpx.ASGITransport(create_app(store, dict, ["k-1", "k-2"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://read") as client:
        refusal = await client.get("/v1/calls")
        assert (refusal.status_code, refusal.headers["www-authenticate"]) == (401, "Bearer")
        assert (await client.get("/v1/calls", headers={"Authorization": "Bearer nope"})).status_code == 401
        assert (await client.get("/v1/calls", headers={"Authorization": "Bearer k-2"})).status_code == 200
        assert (await client.get("/health")).status_code == 200
