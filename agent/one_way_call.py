"""A one-way call put together: what it may say is synthesised before anybody is rung; an opt-out ends it wherever it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agent import one_way, phrases
from agent.ending import Reason
from agent.exchange import TAIL_S
from agent.history import History
from agent.line import Line
from agent.opting_out import OptingOut
from agent.speech import Spoken, synthesize
from agent.suppressing import suppress
from runtime.settings import Settings
from schemas.brief import Brief
from schemas.facts import OptOutHeard


class OneWayCall:
    """One call, ready to be dialled; `goodbye` is said to who opts out, None where nobody could."""

    def __init__(self, brief: Brief, settings: Settings, script: one_way.Script, goodbye: Spoken | None) -> None:
        self._brief, self._settings, self._script, self._goodbye = brief, settings, script, goodbye
        self._opted_out = False

    async def run(self, line: Line) -> Reason:
        """Take the call from readiness to its end; whoever is still on the line then is hung up on by the caller."""
        if self._goodbye is None:
            return await self._deliver(line, None)
        opting_out = OptingOut(self._brief, History(self._brief, line.reporter.say))
        line.room.on("sip_dtmf_received", opting_out.pressed)
        delivering = asyncio.create_task(self._deliver(line, opting_out), name="deliver")
        try:
            endings: set[asyncio.Future[Any]] = {delivering, opting_out.heard}
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            if not opting_out.heard.done():
                return delivering.result()
        finally:
            line.room.off("sip_dtmf_received", opting_out.pressed)
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
        return await self._let_go(line, opting_out.heard.result(), self._goodbye)

    async def apologise(self, line: Line) -> None:
        """Say nothing: who hears half a message is rung again, or not."""

    async def aftermath(self) -> None:
        """Tell the dialer's API of an opt-out, too: after the call, for a suppression takes down what rings or talks."""
        if self._opted_out:
            await suppress(self._brief.call_id, self._settings)

    async def _deliver(self, line: Line, opting_out: OptingOut | None) -> Reason:
        on_words = None if opting_out is None else opting_out.words
        attending = one_way.attend(line.room, self._brief, self._settings, on_words)
        return await one_way.run(
            self._brief, line.leg, line.voice, self._script, line.reporter, line.recorder, attending
        )

    async def _let_go(self, line: Line, evidence: str, goodbye: Spoken) -> Reason:
        """Tell of an opt-out twice, on the log and to the dialer's API, and acknowledge it."""
        line.reporter.say(OptOutHeard, evidence=evidence)
        self._opted_out = True
        line.voice.source.clear_queue()
        played = await line.voice.play(goodbye, line.leg.over, lambda: None)
        if played.whole:
            await line.leg.lasts(TAIL_S)
        return "opted_out"


@contextlib.asynccontextmanager
async def prepared(brief: Brief, settings: Settings) -> AsyncIterator[OneWayCall]:
    """Have all that it may say as sound. Raises: SpeechFailed."""
    if not one_way.listens(brief) and brief.conversation.opt_out_key is None:
        yield OneWayCall(brief, settings, await one_way.prepare(brief, settings), None)
        return
    goodbye = phrases.phrases(brief.language, brief.conversation.phrases)["opt_out"]
    script, spoken = await asyncio.gather(
        one_way.prepare(brief, settings), synthesize(goodbye, brief.language, settings)
    )
    yield OneWayCall(brief, settings, script, spoken)
