"""An opt-out, told to the dialer's API as well: a broker that is away cannot lose it, nor can an API that is."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from runtime.logs import Log
from runtime.settings import Settings
from schemas.values import callee_of

PAUSES_S: Final = (0.0, 0.5, 2.0)
"""Before each try."""
TIMEOUT_S: Final = 3.0
TOGETHER_S: Final = 12.0
"""All tries at most."""
REASON: Final = "opt_out"
_REFUSED: Final = frozenset({400, 401, 403, 404, 422})
"""Answers that another try does not change."""

log = Log("agent.suppressing")


async def suppress(call_id: str, settings: Settings) -> bool:
    """Ask the dialer to ring this person no more; False when it did not take it. The fact on the log asks as well."""
    body = {"callee_key": callee_of(call_id), "reason": REASON}
    headers = {"Authorization": f"Bearer {settings.api_key.reveal()}"} if settings.api_key else {}
    why = ""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as http:
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                async with http.post(f"{settings.url.rstrip('/')}/v1/suppressions", json=body) as answer:
                    if answer.status == 202:
                        return True
                    why = f"status_{answer.status}"
                    if answer.status in _REFUSED:
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                why = type(error).__name__
    log.warning("an opt-out did not reach the dialer's API; the fact must do", why=why, call_id=call_id)
    return False
