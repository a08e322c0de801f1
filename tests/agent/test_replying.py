"""The agent API over real HTTP: what comes of its streams, its tool calls and its faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from livekit.agents.llm import ChatContext

from agent.agent_api import AgentApi, Caller
from agent.replying import Reply, reply
from agent.speech import speaker
from agent.tools import EndCall, SendDtmf, Transfer, Unknown, action_of
from agent.utterance import Utterance
from rehearsal import faults, serving
from rehearsal.brain import Brain, read_dialogues
from rehearsal.speech import Speech
from runtime.settings import Secret, Settings
from schemas import conversation

CALLER = Caller(campaign_id="rx", call_id="callee-r", attempt=2, language="en-US", destinations=("desk",))


@dataclass
class Bench:
    """A brain, a speech service, and an agent API that talks to the brain."""

    api: AgentApi
    http: aiohttp.ClientSession
    brain_url: str
    settings: Settings

    async def ask(self, words: str) -> tuple[Reply, Utterance]:
        """Let the callee have said something; returns the reply and what is spoken of it."""
        context = ChatContext.empty()
        context.add_message(role="user", content=words)
        self.api.turn += 1
        utterance = Utterance(asyncio.Event())
        async with speaker("en-US", self.settings) as voice:
            return await reply(self.api, context, voice, utterance), utterance

    async def seen(self) -> list[dict[str, Any]]:
        """Return what the brain was asked, turn by turn."""
        async with self.http.get(f"{self.brain_url}/rehearsal/calls") as answer:
            return list((await answer.json())["turns"])


@asynccontextmanager
async def bench(model: str = "scheduler", rules: tuple[dict[str, Any], ...] = (), **api: Any) -> AsyncIterator[Bench]:
    """Start both services on loopback."""
    script = faults.Script(rules=tuple(faults.Rule.of(rule) for rule in rules))
    brain, brain_port = await serving.start(Brain(script, read_dialogues()).app(), 0)
    speech, speech_port = await serving.start(Speech(faults.Script()).app(), 0)
    definition = conversation.AgentApi(
        **{"url": f"http://127.0.0.1:{brain_port}/v1", "model": model, "timeout_s": 0.5, "tries": 2, **api}
    )
    settings = Settings(speak_url=f"ws://127.0.0.1:{speech_port}/v1/speak")
    async with aiohttp.ClientSession() as http:
        try:
            yield Bench(
                AgentApi(definition, CALLER, Secret("k"), http), http, f"http://127.0.0.1:{brain_port}", settings
            )
        finally:
            await asyncio.gather(brain.cleanup(), speech.cleanup())


async def test_a_reply_is_spoken_and_its_tools_are_read() -> None:
    """Words become sound; the pieces of a tool call become one call."""
    async with bench() as b:
        answer, spoken = await b.ask("Could I talk to a person?")
        assert answer.failure is None and answer.tries == 1
        assert [action_of(call) for call in answer.calls] == [Transfer("desk")]
        assert spoken.said(60_000) == "One moment, I will connect you." and spoken.frames > 20
        assert answer.asked_at < answer.token_at <= answer.sentence_at < answer.sound_at
        answer, spoken = await b.ask("Please press the extension.")
        assert [action_of(call) for call in answer.calls] == [SendDtmf("42#")] and not spoken.frames


async def test_a_turn_keeps_its_key_over_its_tries() -> None:
    """A turn that fails is asked for again under the same key; the next turn has another."""
    async with bench("scheduler+error-1") as b:
        answer, _ = await b.ask("Yes, please.")
        assert answer.failure is not None and answer.tries == 2
        answer, _ = await b.ask("Goodbye.")
        assert (
            answer.failure is None and answer.tries == 1 and [action_of(call) for call in answer.calls] == [EndCall()]
        )
        turns = await b.seen()
    assert [(turn["key"], turn["requests"]) for turn in turns] == [("callee-r-2-1", 2), ("callee-r-2-2", 1)]
    assert turns[0]["roles"] == ["system", "user"]


async def test_a_connection_that_is_cut_is_made_again() -> None:
    """The first request finds nobody: the second try is the answer, and nobody hears of the first."""
    async with bench(rules=({"at": "brain.chat", "nth": [1], "fault": "drop"},)) as b:
        answer, spoken = await b.ask("Yes, please.")
        assert answer.failure is None and answer.tries == 2
        assert spoken.said(60_000) == "Good. Would Tuesday at ten in the morning suit you?"


@pytest.mark.parametrize(
    ("fault", "code"),
    [("error", "status_500"), ("timeout", "timeout"), ("garbage", "garbage"), ("stall", "timeout")],
)
async def test_a_fault_that_lasts_is_told_by_a_code(fault: str, code: str) -> None:
    """After the last try the reply has failed, and how is said in a word of ours."""
    async with bench(f"scheduler+{fault}") as b:
        answer, spoken = await b.ask("Yes, please.")
        assert answer.failure is not None and (answer.failure.service, answer.failure.code) == ("agent_api", code)
        assert answer.tries == 2 and not spoken.frames and spoken.finished


async def test_what_was_spoken_is_not_said_again() -> None:
    """A stream that is cut after its first sentence: that sentence stands, and no other try is made."""
    async with bench("talker+cut") as b:
        answer, spoken = await b.ask("Hello")
        assert answer.failure is not None and answer.failure.code == "cut" and answer.tries == 1
        assert spoken.said(60_000).startswith("Let me tell you about our opening hours in detail.")
        assert (await b.seen())[0]["requests"] == 1


async def test_slow_tokens_are_waited_for_as_long_as_they_come() -> None:
    """The limit is on each token, not on the whole."""
    async with bench("scheduler+slow") as b:
        answer, spoken = await b.ask("Yes, please.")
        assert answer.failure is None and spoken.said(60_000).startswith("Good. Would")


async def test_an_api_that_is_not_there_has_failed() -> None:
    """Nobody listens: a code, after both tries."""
    async with bench() as b:
        b.api.definition = replace(b.api.definition, url="http://127.0.0.1:9/v1")
        answer, _ = await b.ask("Yes")
        assert answer.failure is not None and answer.failure.code == "connection" and answer.tries == 2


async def test_a_voice_that_is_gone_is_not_the_apis_failure() -> None:
    """Synthesis that fails in mid-call is told as such."""
    async with bench() as b:
        b.settings = replace(b.settings, speak_url="ws://127.0.0.1:9/v1/speak")
        answer, spoken = await b.ask("Yes")
        assert answer.failure is not None and answer.failure.service == "speak"
        assert spoken.finished and not spoken.frames


async def test_tools_that_are_not_to_be_had_are_refused() -> None:
    """Unknown tools and arguments that cannot be meant are values, not errors."""
    from livekit.agents.llm import FunctionToolCall

    def action(name: str, arguments: str) -> object:
        return action_of(FunctionToolCall(name=name, arguments=arguments, call_id="1"))

    assert action("end_call", "") == EndCall()
    assert action("send_dtmf", '{"digits": "12a"}') == Unknown("bad_arguments")
    assert action("transfer_call", "{not json") == Unknown("bad_arguments")
    assert action("buy_a_car", "{}") == Unknown("no_such_tool")
