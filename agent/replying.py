"""A reply on its way: the agent API's tokens become sentences, and sentences sound, while the first is already spoken.

Another try is made only where no sound came of the one before; its tokens are forgotten then.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Literal

from livekit.agents import APIError
from livekit.agents.llm import ChatContext, FunctionToolCall

from agent.agent_api import AgentApi, code_of
from agent.sentences import Sentences
from agent.speech import Speaker, SpeechFailed
from agent.utterance import Utterance


@dataclass(slots=True, kw_only=True)
class Reply:
    """What became of one request for a reply, and when; times are monotonic seconds, 0 for what never came."""

    asked_at: float
    calls: list[FunctionToolCall] = field(default_factory=list)
    failure: Failure | None = None
    token_at: float = 0.0
    sentence_at: float = 0.0
    sound_at: float = 0.0
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Whose doing, and how; what was spoken before stands."""

    service: Literal["speak", "agent_api"]
    code: str


async def reply(api: AgentApi, context: ChatContext, speaker: Speaker, utterance: Utterance) -> Reply:
    """Ask for a reply and speak it into the utterance, which is finished when this returns."""
    coming = Reply(asked_at=time.monotonic())
    try:
        while True:
            coming.tries += 1
            try:
                await _once(api, context, speaker, utterance, coming)
            except APIError as error:
                coming.failure = Failure(service="agent_api", code=code_of(error))
            except SpeechFailed as error:
                coming.failure = Failure(service="speak", code=error.code)
                return coming
            else:
                coming.failure = None
                return coming
            if utterance.frames or coming.tries >= api.definition.tries:
                return coming
    finally:
        utterance.finish()


async def _once(api: AgentApi, context: ChatContext, speaker: Speaker, utterance: Utterance, coming: Reply) -> None:
    """Make one try. Raises: APIError, SpeechFailed."""
    sentences = Sentences()
    coming.calls = []
    async with api.chat(chat_ctx=context) as stream:
        async for chunk in stream:
            if chunk.delta is None:
                continue
            coming.token_at = coming.token_at or time.monotonic()
            coming.calls += chunk.delta.tool_calls
            for sentence in sentences.add(chunk.delta.content or ""):
                await _speak(sentence, speaker, utterance, coming)
    if rest := sentences.rest():
        await _speak(rest, speaker, utterance, coming)


async def _speak(sentence: str, speaker: Speaker, utterance: Utterance, coming: Reply) -> None:
    coming.sentence_at = coming.sentence_at or time.monotonic()
    utterance.begin(sentence)
    async with contextlib.aclosing(speaker.pieces(sentence)) as pieces:
        async for pcm in pieces:
            coming.sound_at = coming.sound_at or time.monotonic()
            utterance.feed(pcm)
    utterance.end()
