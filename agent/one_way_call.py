"""A one-way call put together: what it may say is synthesised before anybody is rung."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from agent import one_way
from agent.ending import Reason
from agent.line import Line
from runtime.settings import Settings
from schemas.brief import Brief


class OneWayCall:
    """One call, ready to be dialled."""

    def __init__(self, brief: Brief, settings: Settings, script: one_way.Script) -> None:
        self._brief, self._settings, self._script = brief, settings, script

    async def run(self, line: Line) -> Reason:
        """Take the call from readiness to its end; whoever is still on the line then is hung up on by the caller."""
        attending = one_way.attend(line.room, self._brief, self._settings)
        return await one_way.run(
            self._brief, line.leg, line.voice, self._script, line.reporter, line.recorder, attending
        )

    async def apologise(self, line: Line) -> None:
        """Say nothing: who hears half a message is rung again, or not."""

    async def aftermath(self) -> None:
        """Wait for nothing."""


@contextlib.asynccontextmanager
async def prepared(brief: Brief, settings: Settings) -> AsyncIterator[OneWayCall]:
    """Have all that it may say as sound. Raises: SpeechFailed."""
    yield OneWayCall(brief, settings, await one_way.prepare(brief, settings))
