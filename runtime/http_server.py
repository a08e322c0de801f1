"""HTTP of every process: uvicorn inside a process that owns its signals itself; API keys; loopback unless keyed.

Source: design §9 (binds 127.0.0.1 by default and refuses another address without API keys); RFC 6750.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException

from runtime.settings import Secret, SettingsError

SHUTDOWN_S: Final = 5
REQUESTS_MAX: Final = 256
"""Requests in the house at once; more are answered 503."""


class HttpServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the composition root decides when to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def is_loopback(host: str) -> bool:
    """Tell whether an address reaches this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def api_keys_of(api_keys: Secret, host: str, host_setting: str) -> list[str]:
    """Return the API keys; none is right on loopback only. Raises: SettingsError."""
    keys = [key for part in api_keys.reveal().split(",") if (key := part.strip())]
    if not keys and not is_loopback(host):
        raise SettingsError(f"{host_setting} is not loopback: set DIALER_API_KEYS, or listen on 127.0.0.1")
    return keys


def key_check(api_keys: Collection[str]) -> Callable[[Request], None]:
    """Return a FastAPI dependency that asks for `Authorization: Bearer KEY`; no keys, no question."""
    known = [key.encode() for key in api_keys]

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = [hmac.compare_digest(given.encode(), key) for key in known]
        if known and (scheme.lower() != "bearer" or not any(right)):
            raise HTTPException(401, "an API key is needed", headers={"WWW-Authenticate": "Bearer"})

    return check


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Take the port before anything else starts. Raises: SettingsError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SettingsError(f"cannot listen on {host}:{port} ({error.strerror}); set {setting}") from None
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
