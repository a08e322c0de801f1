"""LiveKit's own answering machine detection with our rules in it, over the same openings, in simulated time.

Its class `AMD` needs a session and real time: 2,000 openings would take half a day. So its classifier is driven directly
(`livekit/agents/voice/amd/classifier.py`, where all of its decisions are), on an event loop whose time is simulated, with
an LLM in its place that answers by our rules. What drives it is the replay's recogniser, Silero's 0.55 s of silence for
the end of speech, and the session's 0.5 s for the end of a turn. Source: reference/livekit.md 2.7.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast

import orjson
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, llm
from livekit.agents.voice.amd import classifier

from agent.answerer.rules import Heard, normalised, rules_of
from bench.amd.grammar import Opening
from bench.amd.replaying import Judged, happenings, utterances
from schemas.facts import AnswererCategory

VAD_SILENCE_S: Final = 0.55
ENDPOINTING_S: Final = 0.5
HUMAN_SILENCE_S: Final = 1.2
"""Raised from its 0.5 s, else speech of 2.5 s or less is a person before its words are there."""
PATIENCE_S: Final = 45.0
_LABELS: Final[dict[AnswererCategory, str]] = {"call-screening": "machine-ivr"}
"""Its prompt counts screeners as menus."""


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: time goes on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in simulated time."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now


class _Rules(llm.LLM[Any]):
    """Our rules where its language model would be: one tool call with the label."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self.language = language

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Answer(llm.LLMStream):
    async def _run(self) -> None:
        said = self._chat_ctx.items[-1]
        assert isinstance(said, llm.ChatMessage)
        text = normalised(said.text_content or "")
        found = rules_of(cast(_Rules, self._llm).language).judge(Heard(text=text))
        label = _LABELS.get(found.category, found.category)
        call = llm.FunctionToolCall(
            call_id="1", name="save_prediction", arguments=orjson.dumps({"label": label}).decode()
        )
        delta = llm.ChoiceDelta(role="assistant", tool_calls=[call])
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


@dataclass(frozen=True, slots=True)
class _Told:
    """One thing told to the classifier."""

    at: float
    tell: Callable[[], None]


def judge_all(openings: list[Opening], chances: list[random.Random]) -> list[Judged]:
    """Let it judge every opening, one after the other."""
    loop = _Loop()
    kept, classifier.time = classifier.time, SimpleNamespace(time=loop.time)  # type: ignore[attr-defined, assignment]
    try:
        return [loop.run_until_complete(_judge(o, c)) for o, c in zip(openings, chances, strict=True)]
    finally:
        classifier.time = kept  # type: ignore[attr-defined]
        loop.close()


async def _judge(opening: Opening, chance: random.Random) -> Judged:
    loop = asyncio.get_running_loop()
    began = loop.time()
    model = _Rules(opening.language)
    amd = classifier._AMDClassifier(model, human_silence_threshold=HUMAN_SILENCE_S, wait_until_finished=True)
    verdict: asyncio.Future[Any] = loop.create_future()

    def predicted(event: classifier.AMDPredictionEvent) -> None:
        if not verdict.done():
            verdict.set_result(event)

    amd.on("amd_prediction", predicted)
    amd.start_detection_timer()
    amd.start_listening()
    handles = [loop.call_at(began + told.at, told.tell) for told in _script(amd, opening, chance)]
    event = await asyncio.wait_for(verdict, PATIENCE_S)
    at = loop.time() - began
    for handle in handles:
        handle.cancel()
    await amd.close()
    ends = [end for _, _, end in utterances(opening)]
    before = [end for end in ends if end <= at]
    latency_s = None if not ends else at - before[-1] if before else 0.0
    return Judged(opening=opening, category=event.category.value, rule=event.reason, latency_s=latency_s)


def _script(amd: classifier._AMDClassifier, opening: Opening, chance: random.Random) -> list[_Told]:
    words = [h for h in happenings(opening, chance) if h.kind == "words"]
    found = [_Told(h.at, partial(amd.push_text, h.text)) for h in words]
    spoken = [(start, end) for _, start, end in utterances(opening)]
    for i, (start, end) in enumerate(spoken):
        goes_on_at = spoken[i + 1][0] if i + 1 < len(spoken) else float("inf")
        found.append(_Told(start + 0.05, amd.on_user_speech_started))
        if goes_on_at - end > VAD_SILENCE_S:
            found.append(_Told(end + VAD_SILENCE_S, partial(amd.on_user_speech_ended, VAD_SILENCE_S)))
        if goes_on_at - end > VAD_SILENCE_S + ENDPOINTING_S:
            found.append(_Told(end + VAD_SILENCE_S + ENDPOINTING_S, amd.on_end_of_turn))
    return found
