"""Kills a process where it hurts: by SIGKILL, while at least three calls are dialing, ringing or talking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import aiohttp

from rehearsal.drive import Drive
from rehearsal.network import Network
from rehearsal.supervisor import Supervisor

LIVE_MIN: Final = 3
BUSY_TIMEOUT_S: Final = 120.0
RESTART_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.1
_REQUEST_TIMEOUT_S: Final = 2.0
_LIVE: Final = frozenset({"dialing", "ringing", "active"})


async def kill_amid_calls(
    network: Network, supervisor: Supervisor, drive: Drive, say: Callable[[str], None], kills: int, name: str = "dialer"
) -> list[str]:
    """Kill it so often, each time amid live calls and after it has dialed again; return what could not be done."""
    dials_before = 0
    for number in range(1, kills + 1):
        live = await _busy(network, drive, dials_before)
        if live < LIVE_MIN:
            return [
                f"kill {number} was not done: {live} calls were live, {LIVE_MIN} are asked for; make the run larger"
            ]
        pid = supervisor.kill(name)
        after = await _live(network)
        say(f"kill {number} of {kills}: {name} (pid {pid}) killed with {live} calls live, {after} right after")
        dials_before = len(drive.dials())
        try:
            await supervisor.wait_ready(name, not_pid=pid, timeout_s=RESTART_TIMEOUT_S)
        except TimeoutError:
            return [f"{name} was not ready {RESTART_TIMEOUT_S:g} s after kill {number}; see logs/{name}.log"]
    return []


async def _busy(network: Network, drive: Drive, dials_before: int) -> int:
    """Wait until the dialer has dialed since its start and enough calls are live; return how many are."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        live = await _live(network)
        if live >= LIVE_MIN and len(drive.dials()) > dials_before:
            return live
        if time.monotonic() > deadline or not drive.unfinished():
            return min(live, LIVE_MIN - 1)
        await asyncio.sleep(_POLL_S)


async def _live(network: Network) -> int:
    """Count the legs that the carrier has, by its own account."""
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(f"{network.carrier_url}/rehearsal/calls") as page,
    ):
        return sum(leg["status"] in _LIVE for leg in await page.json())
