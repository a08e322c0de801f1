"""The read side's HTTP: what happened to this call, to these calls; is the read side up, is it up to date.

Errors are `application/problem+json`. A call that is not projected yet is 404 with `Retry-After: 1`. Where API keys are
set, `/v1/*` asks for one as `Authorization: Bearer KEY`. Source: design §9; RFC 9457, RFC 6750.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Response

from projections import cursor as cursors
from projections.store import Queries
from runtime import problems
from runtime.http_server import key_check
from runtime.metrics import exposition
from schemas.outcomes import Status
from schemas.responses import PROBLEM_TYPE, CallPage, CallView, Problem, Timeline
from schemas.values import CampaignId, split_call_id

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 500
DESCRIPTION: Final = """What happened to each call, as the read models know it: folded from the log `dialer.events`,
usually a few milliseconds behind it. Places and cancels calls: `dialer serve`, on its own port."""

NotReady = Mapping[str, str]
"""What is not ready -> why; empty: all is."""
CallIdPath = Annotated[str, Path(description="26 characters of callee, a dash, 16 of request: the answer of POST")]


def create_app(queries: Queries, not_ready: Callable[[], NotReady], api_keys: Collection[str] = ()) -> FastAPI:
    """Return the application over a store."""
    app = FastAPI(title="Outbound dialer: read side", version="1", description=DESCRIPTION)
    problems.install(app)
    app.include_router(_calls(queries), dependencies=[Depends(key_check(api_keys))])
    app.include_router(_operations(not_ready))
    return app


def _says(description: str) -> dict[str, Any]:
    return {"model": Problem, "description": description, "content": {PROBLEM_TYPE: {}}}


def _calls(queries: Queries) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["calls"], responses={422: _says("A malformed value, by field and rule")})
    absent: dict[int | str, dict[str, Any]] = {404: _says("Not projected yet; ask again after `Retry-After` seconds")}

    @router.get("/calls/{call_id}", response_model=CallView, responses=absent, summary="Where a call stands")
    async def get_call(call_id: CallIdPath) -> CallView | Response:
        """Return one call: status, outcome, attempts, dials and times; `sequence` grows with every change."""
        split_call_id(call_id)
        return await queries.call(call_id) or _not_projected()

    @router.get("/calls/{call_id}/events", response_model=Timeline, responses=absent, summary="A call's whole history")
    async def get_events(call_id: CallIdPath) -> Timeline | Response:
        """Return every record of the call on the log, in order; what is sealed is shown as the word `sealed`."""
        split_call_id(call_id)
        events = await queries.timeline(call_id)
        return Timeline(call_id=call_id, events=events) if events else _not_projected()

    @router.get("/calls", response_model=CallPage, summary="Calls, newest first")
    async def list_calls(
        campaign_id: Annotated[CampaignId | None, Query(description="only this campaign's")] = None,
        status: Annotated[Status | None, Query(description="only calls that stand there")] = None,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="calls a page")] = LIMIT_DEFAULT,
        cursor: Annotated[str | None, Query(max_length=200, description="`cursor` of the page before")] = None,
    ) -> CallPage:
        """Return a page of calls. Calls that come meanwhile do not shift the pages after it."""
        after = cursors.read(cursor) if cursor else None
        calls = await queries.page(campaign_id=campaign_id, status=status, after=after, limit=limit + 1)
        more = len(calls) > limit
        return CallPage(calls=calls[:limit], cursor=cursors.write(cursors.key_of(calls[limit - 1])) if more else None)

    return router


def _operations(not_ready: Callable[[], NotReady]) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/health", summary="Is the process alive")
    async def get_health() -> dict[str, str]:
        """Answer while the process can answer."""
        return {"status": "ok"}

    @router.get("/ready", summary="Are the read models up to date", responses={503: _says("Not yet, and why")})
    async def get_ready() -> Response:
        """Answer 200 once every model is near the log's end in every partition, 503 until then."""
        waiting = dict(not_ready())
        if waiting:
            return problems.problem(503, "not-ready", "some parts are behind the log", waiting=waiting)
        return Response('{"status":"ready"}', media_type="application/json")

    @router.get("/metrics", summary="Metrics, Prometheus' text format", response_class=Response)
    async def get_metrics() -> Response:
        """Return all metrics of this process."""
        return Response(exposition(), media_type="text/plain; version=0.0.4")

    return router


def _not_projected() -> Response:
    return problems.problem(
        404, "not-found", "no such call, or it is not projected yet", headers={"Retry-After": "1"}, field="call_id"
    )
