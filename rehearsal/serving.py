"""Serve an aiohttp application on loopback until SIGTERM or SIGINT, then shut it down in order."""

from __future__ import annotations

import asyncio
import signal

from aiohttp import web

SHUTDOWN_S = 15.0


async def start(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    """Start serving on 127.0.0.1; returns the runner (`await runner.cleanup()` ends it) and the port in use."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, int(runner.addresses[0][1])


async def _serve(app: web.Application, port: int, name: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for asked in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked, stop.set)
    runner, bound = await start(app, port)
    print(f"{name} listening on http://127.0.0.1:{bound}", flush=True)
    await stop.wait()
    await runner.cleanup()


def run(app: web.Application, port: int, name: str) -> None:
    """Serve until a signal; prints one line with the address when ready."""
    asyncio.run(_serve(app, port, name))
