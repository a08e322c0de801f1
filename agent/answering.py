"""One turn's answer: asked of the agent API, spoken as it comes, and the wait for it not left silent."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from agent.agent_api import AgentApi
from agent.callee_turns import Turn
from agent.exchange import Exchange, Said
from agent.history import History
from agent.replying import Reply, reply
from agent.speech import Speaker
from agent.utterance import Utterance
from runtime.logs import Log
from schemas.brief import Brief

WAIT_AT_S: Final = 2.2
"""Silence after the callee's last word until the agent asks for a moment; 4 s would be a defect."""
WAIT_AGAIN_S: Final = 2.5

log = Log("agent.answering")


class Answering:
    """How one conversation gets its answers."""

    def __init__(self, exchange: Exchange, history: History, api: AgentApi, speaker: Speaker, brief: Brief) -> None:
        self._exchange, self._history, self._api, self._speaker = exchange, history, api, speaker
        self._brief = brief

    async def answer(self, turn: Turn) -> tuple[Reply | None, Said]:
        """Ask for a reply and speak it; None where the callee spoke again, before it or into it."""
        self._api.turn += 1
        utterance = Utterance(self._exchange.news)
        replying = asyncio.create_task(reply(self._api, self._history.context, self._speaker, utterance), name="reply")
        replying.add_done_callback(lambda _: self._exchange.news.set())
        try:
            if not await self._until_sound(utterance, replying, turn):
                return None, Said()
            said = await self._exchange.say(utterance, spoken_for=turn.ended_at) if utterance.frames else Said()
            if utterance.frames and not said.whole:
                return None, said
            coming = await replying
        finally:
            replying.cancel()
            await asyncio.gather(replying, return_exceptions=True)
        self._log(turn, coming, said)
        return coming, said

    async def _until_sound(self, utterance: Utterance, replying: asyncio.Task[Reply], turn: Turn) -> bool:
        """Wait for the reply's first sound, not in silence; False where the callee said more meanwhile."""
        exchange = self._exchange
        ask_at = max(turn.ended_at, exchange.sound_at) + WAIT_AT_S
        while exchange.turns.speaking or not (utterance.frames or replying.done()):
            if exchange.turns.words_come:
                return False
            if time.monotonic() >= ask_at and not exchange.turns.speaking:
                await exchange.phrase("wait", spoken_for=turn.ended_at)
                ask_at = time.monotonic() + WAIT_AGAIN_S
                continue
            await exchange.wait(None if exchange.turns.speaking else ask_at)
        return not exchange.turns.words_come

    def _log(self, turn: Turn, coming: Reply, said: Said) -> None:
        """Say how long what took; no word of it."""
        if not said.began_at:
            return

        def ms(begin: float, end: float) -> int:
            return round((end - begin) * 1000)

        log.info(
            "replied",
            call_id=self._brief.call_id,
            attempt=self._brief.attempt,
            reply_ms=ms(turn.ended_at, said.began_at),
            heard_ms=ms(turn.ended_at, turn.heard_at),
            turn_ms=ms(turn.heard_at, coming.asked_at),
            api_ms=ms(coming.asked_at, coming.token_at),
            sentence_ms=ms(coming.token_at, coming.sentence_at),
            speech_ms=ms(coming.sentence_at, coming.sound_at),
            play_ms=ms(coming.sound_at, said.began_at),
            tries=coming.tries,
        )
