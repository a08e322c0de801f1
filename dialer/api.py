"""The write side's HTTP: place, cancel, suppress; the kill switch; LiveKit's webhooks; health; the read side's routes.

A request is answered 202 once the broker has acknowledged it on its topic: from then on it is not lost. The number is
translated here; what goes to `dialer.stops` names callees by pseudonym only. Source: design §9.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from dialer.control_desk import ControlDesk, ControlView, MembersUnknown, ResumeDialling, StopDialling, read_word
from dialer.requests import NotAccepted, Requests
from dialer.traceparent import well_formed
from dialer.translate import canonical_stop, stop_key
from dialer.webhooks import BODY_BYTES_MAX, Forged, Webhooks
from runtime import problems
from runtime.clock import Clock
from runtime.http_server import key_check
from runtime.metrics import exposition
from schemas import commands as c
from schemas import topics
from schemas.codec import adapter, decode_command
from schemas.envelope import Envelope
from schemas.responses import PROBLEM_TYPE, Accepted, Problem
from schemas.values import (
    Invalid,
    call_id,
    callee_key,
    is_phone_number_like,
    parse_number,
    request_hash,
    split_call_id,
)

PREFIX: Final = "/microservices/outbound-dialer"
QUERY_TIMEOUT_S: Final = 2.0
BODY_MAX: Final = c.RECORD_BYTES_MAX
SOURCE: Final = "/api"
_AGAIN: Final = {"Retry-After": "1"}
_STOP_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
DESCRIPTION: Final = """Places, cancels and suppresses calls: writes each request to its Kafka topic and answers 202 with
the call's id once the broker has acknowledged it. `GET /v1/*` is passed on to the read side."""


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """What the API needs of the process."""

    requests: Requests
    control: ControlDesk
    webhooks: Webhooks
    pepper: bytes
    clock: Clock
    query_url: str
    api_keys: Collection[str]
    not_ready: Callable[[], Mapping[str, str]]


def create_app(parts: ApiParts) -> FastAPI:
    """Return the application; every route stands at the root and under the historical prefix."""
    app = FastAPI(title="Outbound dialer", version="1", description=DESCRIPTION)
    problems.install(app)
    keyed = [Depends(key_check(parts.api_keys))]
    for prefix, shown in (("", True), (PREFIX, False)):
        app.include_router(_requests(parts), prefix=prefix, dependencies=keyed, include_in_schema=shown)
        app.include_router(_control(parts), prefix=prefix, dependencies=keyed, include_in_schema=shown)
        app.include_router(_operations(parts), prefix=prefix, include_in_schema=shown)
        app.include_router(_queries(parts), prefix=prefix, include_in_schema=False)
    return app


def _says(description: str) -> dict[str, Any]:
    return {"model": Problem, "description": description, "content": {PROBLEM_TYPE: {}}}


def _body_of(cls: type[Any]) -> dict[str, Any]:
    schema = adapter(cls).json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    for name, definition in definitions.items():
        for value in schema["properties"].values():
            for option in [value, *value.get("anyOf", [])]:
                if option.get("$ref") == f"#/components/schemas/{name}":
                    option.pop("$ref")
                    option.update(definition)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _json(request: Request) -> dict[str, Any]:
    body = await request.body()
    if len(body) > BODY_MAX:
        raise Invalid("body", "too_large")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Invalid("body", "not_json") from None
    if not isinstance(document, dict):
        raise Invalid("body", "wrong_type")
    return document


def _requests(parts: ApiParts) -> APIRouter:
    router = APIRouter(
        prefix="/v1",
        tags=["requests"],
        responses={
            422: _says("A field that breaks a rule, by name"),
            503: _says("Kafka did not acknowledge; try again"),
        },
    )

    @router.post("/calls", status_code=202, summary="Place a call", openapi_extra=_body_of(c.PlaceCall))
    async def place_call(request: Request) -> Response:
        """Take a request to ring someone; the same (campaign_id, request_id, to) again is the same call."""
        data = await _json(request)
        command = decode_command(c.PlaceCall.TYPE, data)
        assert isinstance(command, c.PlaceCall)
        key = callee_key(parse_number(command.to).e164, parts.pepper)
        call = call_id(key, request_hash(command.campaign_id, command.request_id))
        envelope = _envelope(parts, c.PlaceCall.TYPE, f"{call}/{parts.clock.random_bytes(6).hex()}", command, request)
        return await _accept(parts, topics.COMMANDS, key, envelope, call)

    @router.delete("/calls/{call}", status_code=202, summary="Cancel a call, or hang it up")
    async def cancel_call(call: str, request: Request) -> Response:
        """Cancel: before the INVITE there will be none, after it the leg is hung up."""
        split_call_id(call)
        return await _stop(parts, c.CancelCall(call_id=call), request)

    @router.post(
        "/suppressions", status_code=202, summary="Ring this person no more", openapi_extra=_body_of(c.SuppressCallee)
    )
    async def suppress(request: Request) -> Response:
        """Suppress a callee by `to` or `callee_key`."""
        command = decode_command(c.SuppressCallee.TYPE, await _json(request))
        assert isinstance(command, c.SuppressCallee)
        return await _stop(parts, command, request)

    @router.delete("/suppressions/{callee}", status_code=202, summary="This person may be rung again")
    async def lift(callee: str, request: Request) -> Response:
        """Lift a suppression by callee_key, or by the number itself."""
        named = {"to": callee} if callee.startswith("+") else {"callee_key": callee}
        command = decode_command(c.LiftSuppression.TYPE, named)
        assert isinstance(command, c.LiftSuppression)
        return await _stop(parts, command, request)

    return router


def _envelope(parts: ApiParts, kind: str, request_id: str, data: object, request: Request) -> Envelope:
    return Envelope(
        type=kind,
        source=SOURCE,
        id=request_id,
        data=data,
        time=parts.clock.now(),
        traceparent=well_formed(request.headers.get("traceparent")),
    )


def _stop_id(given: str | None) -> str | None:
    """Check what will be the record's id: a stop that was accepted must not be rejected for it afterwards."""
    if given is None:
        return None
    if not _STOP_ID.fullmatch(given):
        raise Invalid("idempotency-key", "pattern")
    if is_phone_number_like(given):
        raise Invalid("idempotency-key", "phone_number")
    return given


async def _stop(parts: ApiParts, command: c.Stop, request: Request) -> Response:
    stop = canonical_stop(command, parts.pepper)
    key = stop_key(stop)
    data = {k: v for k, v in asdict(stop).items() if v is not None}
    stop_id = _stop_id(request.headers.get("idempotency-key")) or parts.clock.random_bytes(12).hex()
    envelope = _envelope(parts, stop.TYPE, stop_id, data, request)
    return await _accept(parts, topics.STOPS, key, envelope, getattr(stop, "call_id", None))


async def _accept(parts: ApiParts, topic: topics.Topic, key: str, envelope: Envelope, call: str | None) -> Response:
    try:
        await parts.requests.send(topic, key, envelope)
    except NotAccepted:
        return _not_accepted()
    headers = {} if call is None else {"Location": f"/v1/calls/{call}"}
    accepted = Accepted(call_id=call, callee_key=key)
    return Response(orjson.dumps(accepted), status_code=202, media_type="application/json", headers=headers)


def _control(parts: ApiParts) -> APIRouter:
    away = "Kafka did not acknowledge, or does not say who is up; try again"
    says: dict[int | str, dict[str, Any]] = {422: _says("A field that breaks a rule, by name"), 503: _says(away)}
    router = APIRouter(prefix="/v1/control", tags=["kill switch"], responses=says)

    async def said(cls: type[StopDialling | ResumeDialling], request: Request) -> Response:
        word = read_word(cls, await _json(request))
        try:
            offset = await parts.control.say(word)
        except NotAccepted:
            return _not_accepted()
        body = orjson.dumps({"after": offset, **asdict(word)})
        return Response(body, 202, {"Location": f"/v1/control?after={offset}"}, "application/json")

    @router.post("/stop", status_code=202, summary="Stop dialling", openapi_extra=_body_of(StopDialling))
    async def stop(request: Request) -> Response:
        """Dial nobody from now on, of all campaigns or of one; with `now` hang up what rings or talks, too."""
        return await said(StopDialling, request)

    @router.post("/resume", status_code=202, summary="Dial again", openapi_extra=_body_of(ResumeDialling))
    async def resume(request: Request) -> Response:
        """Take back what was said of all campaigns, or of one; each is taken back by itself."""
        return await said(ResumeDialling, request)

    @router.get("", summary="What is stopped, and which dialers obey", response_model=ControlView)
    async def view(after: int | None = None) -> ControlView | Response:
        """Tell what holds; `confirmed` says that every live dialer obeys the word at offset `after`."""
        try:
            return await parts.control.view(after)
        except MembersUnknown:
            return problems.problem(503, "dialers-unknown", "Kafka does not say which dialers are up", _AGAIN)

    return router


def _not_accepted() -> Response:
    return problems.problem(503, "not-accepted", "Kafka did not acknowledge the request; send it again", headers=_AGAIN)


def _operations(parts: ApiParts) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.post("/v1/livekit/webhook", summary="LiveKit's webhooks, verified by their token")
    async def webhook(request: Request) -> Response:
        """Take a webhook as a hint: what it says goes to `dialer.observations`."""
        body = await request.body()
        if len(body) > BODY_BYTES_MAX:
            return problems.problem(413, "too-large", "a webhook is never that large")
        try:
            envelope = parts.webhooks.translate(body, request.headers.get("authorization", ""))
        except Forged:
            return problems.problem(401, "forged", "not signed by LiveKit with our key")
        if envelope is not None and envelope.subject is not None:
            try:
                await parts.requests.send(topics.OBSERVATIONS, split_call_id(envelope.subject)[0], envelope)
            except NotAccepted:
                return problems.problem(503, "not-accepted", "Kafka did not acknowledge")
            parts.webhooks.produced(envelope)
        return Response(status_code=200)

    @router.get("/health", summary="Is the process alive")
    async def health() -> dict[str, str]:
        """Answer while the process can answer."""
        return {"status": "ok"}

    @router.get("/ready", summary="Can it dial", responses={503: _says("Not yet, and why")})
    async def ready() -> Response:
        """Answer 200 once partitions are owned, trunks ensured, stops and control read; 503 until then."""
        waiting = dict(parts.not_ready())
        if waiting:
            return problems.problem(503, "not-ready", "some parts are not ready", waiting=waiting)
        return Response('{"status":"ready"}', media_type="application/json")

    @router.get("/metrics", summary="Metrics, Prometheus' text format", response_class=Response)
    async def metrics() -> Response:
        """Return all metrics of this process."""
        return Response(exposition(), media_type="text/plain; version=0.0.4")

    return router


def _queries(parts: ApiParts) -> APIRouter:
    router = APIRouter()
    client = httpx.AsyncClient(base_url=parts.query_url, timeout=QUERY_TIMEOUT_S)

    @router.get("/v1/{path:path}")
    async def query(path: str, request: Request) -> Response:
        """Pass a read on, so that users see one address."""
        kept = {k: v for k, v in request.headers.items() if k in {"authorization", "accept", "traceparent"}}
        try:
            # httpx counts its limit anew for every chunk: the whole answer has 2 s
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                asked = httpx.QueryParams(request.url.query)
                answer = await client.get(f"/v1/{quote(path)}", params=asked, headers=kept)
        except (httpx.HTTPError, TimeoutError):
            return problems.problem(
                503, "read-side-away", "the read side does not answer; requests are still taken", {"Retry-After": "2"}
            )
        shown = {k: v for k, v in answer.headers.items() if k in {"retry-after", "www-authenticate"}}
        return Response(answer.content, answer.status_code, shown, answer.headers.get("content-type"))

    return router
