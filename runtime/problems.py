"""HTTP errors of every process: `application/problem+json`, naming field and rule, never the value (RFC 9457)."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from schemas.responses import PROBLEM_TYPE
from schemas.values import Invalid


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """Return one problem as a response; `type` is a urn made of the title."""
    body = {"type": f"urn:outbound-dialer:problem:{title}", "title": title, "status": status, "detail": detail} | more
    return Response(orjson.dumps(body), status_code=status, media_type=PROBLEM_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every refusal of this app as a problem."""

    @app.exception_handler(Invalid)
    async def refuse(_: Request, error: Invalid) -> Response:
        return problem(422, "invalid-input", f"{error.field}: {error.rule}", field=error.field, rule=error.rule)

    @app.exception_handler(RequestValidationError)
    async def validate(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(422, "invalid-input", f"{where}: {first['type']}", field=where, rule=str(first["type"]))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return problem(error.status_code, "http-error", str(error.detail), headers=headers)
