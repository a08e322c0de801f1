"""Serves an ASGI application by uvicorn inside a process that owns its signals itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from projections.errors import ProjectionsError

SHUTDOWN_S: Final = 5
REQUESTS_MAX: Final = 256
"""Requests in the house at once; more are answered 503."""


class HttpServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the composition root decides when to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything else starts. Raises: ProjectionsError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ProjectionsError(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            "set DIALER_PROJECTIONS_HOST and DIALER_PROJECTIONS_PORT"
        ) from None
    return listening


def server(app: FastAPI) -> HttpServer:
    """Return a server; `serve([socket])` runs it until `should_exit` is set."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=REQUESTS_MAX,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
    return HttpServer(config)
