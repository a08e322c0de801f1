"""The campaign service's HTTP: `GET {url}/campaigns/v1/{id}`, bounded in time, size and number.

200 is a definition, 404 means that there is none; anything else means that nobody can say. Source: design §5.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import aiohttp

TIMEOUT_S: Final = 5.0
REQUESTS_MAX: Final = 8
BODY_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The definition's bytes; None where there is none. `failed` says in one word why nobody can say."""

    body: bytes | None = None
    failed: str = ""


class CampaignService:
    """The client; connects with the first request."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._turns = asyncio.Semaphore(REQUESTS_MAX)

    async def get(self, campaign_id: str) -> Answer:
        """Ask for one definition."""
        async with self._turns:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._get(campaign_id)
            except TimeoutError:
                return Answer(failed="timeout")
            except aiohttp.ClientError:
                return Answer(failed="transport")

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, campaign_id: str) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        url = f"{self._url}/campaigns/v1/{campaign_id}"
        async with self._session.get(url, headers={"Accept": "application/json"}) as answer:
            if answer.status == 404:
                return Answer()
            if answer.status != 200:
                return Answer(failed="status")
            body = await answer.content.read(BODY_BYTES_MAX + 1)
            while len(body) <= BODY_BYTES_MAX and (more := await answer.content.read(BODY_BYTES_MAX + 1 - len(body))):
                body += more
            return Answer(failed="too_large") if len(body) > BODY_BYTES_MAX else Answer(body)
