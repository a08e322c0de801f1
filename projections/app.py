"""The read side put together: store, one runner a model, audit publisher and HTTP, in one process and one loop.

Whichever part ends first ends all: nothing runs on beside a dead one. Source: design §7, §9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from projections.api import create_app
from projections.audit_publisher import AuditPublisher
from projections.events_log import EventsLog
from projections.rebuild import rebuild
from projections.runner import READY_LAG_MAX, Runner
from projections.sqlite import SqliteStore
from projections.store import ModelName
from runtime.clock import Clock
from runtime.http_server import HttpServer, api_keys_of, bind, server
from runtime.logs import Log
from runtime.settings import Settings

CLOSE_TIMEOUT_S: Final = 10.0

log = Log("projections.app")


async def serve(settings: Settings, clock: Clock, stop: asyncio.Event, *, audit: bool = True) -> None:
    """Run the read side until `stop` is set. Raises: ProjectionsError, SettingsError; any other error is a bug."""
    keys = api_keys_of(settings.api_keys, settings.projections_host, "DIALER_PROJECTIONS_HOST")
    listening = bind(
        settings.projections_host, settings.projections_port, "DIALER_PROJECTIONS_HOST and DIALER_PROJECTIONS_PORT"
    )
    store = await SqliteStore.open(settings.store_path)
    runners = [
        Runner(model, store, EventsLog(settings.kafka_bootstrap, f"dialer-{model.value}", clock), clock)
        for model in ModelName
    ]
    publisher = AuditPublisher(settings.kafka_bootstrap, clock) if audit else None
    http = server(create_app(store, lambda: not_ready(runners, publisher), keys))
    parts: dict[str, Coroutine[Any, Any, Any]] = {f"run {r.model.value}": _run(r) for r in runners}
    if publisher is not None:
        parts["publish the audit"] = publisher.run()
    parts["serve HTTP"] = http.serve([listening])
    parts["wait for the end"] = stop.wait()
    host, port = listening.getsockname()[:2]
    log.info("the read side starts", url=f"http://{host}:{port}", store=settings.store_path, audit=audit)
    try:
        await first_of(parts, http)
    finally:
        listening.close()
        await store.close()


def not_ready(runners: list[Runner], publisher: AuditPublisher | None) -> Mapping[str, str]:
    """Name what is behind, and how far."""
    lags = {runner.model.value: runner.lag for runner in runners}
    if publisher is not None:
        lags["audit"] = publisher.lag
    return {
        name: "not measured yet" if lag is None else f"{max(lag.values())} records behind in one partition"
        for name, lag in lags.items()
        if lag is None or max(lag.values()) > READY_LAG_MAX
    }


async def _run(runner: Runner) -> None:
    await runner.start()
    try:
        await runner.run()
    finally:
        await runner.stop()


async def first_of(parts: Mapping[str, Coroutine[Any, Any, Any]], http: HttpServer) -> None:
    """Run all until the first one ends, then end the others; raise what it raised."""
    tasks = [asyncio.create_task(work, name=name) for name, work in parts.items()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        log.info("the read side ends", first=sorted(task.get_name() for task in done))
        for task in done:
            task.result()
    finally:
        http.should_exit = True
        for task in tasks:
            if task.get_name() != "serve HTTP":
                task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)


async def rebuild_all(settings: Settings, clock: Clock, models: list[ModelName]) -> dict[ModelName, int]:
    """Rebuild these models one after the other; return the records folded. Raises: ProjectionsError."""
    store = await SqliteStore.open(settings.store_path)
    try:
        return {
            model: await rebuild(
                model, store, EventsLog(settings.kafka_bootstrap, f"dialer-rebuild-{model.value}", clock), clock
            )
            for model in models
        }
    finally:
        await store.close()
