"""How a conversation goes, without a room: the real voice, brain and pace of speech; what the callee says is told to it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from livekit import rtc

from agent import phrases
from agent.agent_api import AgentApi, Caller
from agent.callee_turns import MISSED_MIN_S
from agent.ending import Ended
from agent.exchange import SILENT_LINE_S, Exchange, Sentence
from agent.history import History
from agent.leg import Ending, Leg
from agent.recogniser import Heard, RecogniserFailed, SpeechEnded, SpeechStarted
from agent.speech import SAMPLE_RATE, speaker
from agent.two_way import TwoWay, World
from agent.voice import Voice
from rehearsal import faults, serving
from rehearsal.brain import Brain, read_dialogues
from rehearsal.speech import Speech
from runtime.seal import aad, data_key, open_value
from runtime.settings import Secret, Settings
from schemas import conversation, facts, values
from schemas.brief import Brief
from schemas.conversation import Conversation, Silence

pytestmark = [pytest.mark.slow, pytest.mark.realtime]
"""Conversations at the pace of speech."""

GREETING = "Hello Ann, is this a good time?"
OFFER = "Good. Would Tuesday at ten in the morning suit you?"
CALLEE = values.callee_key("+12125550123", b"pepper")
CALL_ID = values.call_id(CALLEE, values.request_hash("rx", "1"))
WAIT_S = 30.0


@dataclass
class Stand:
    """One conversation that runs, and the hands on its callee."""

    brief: Brief
    exchange: Exchange
    leg: Leg
    two_way: TwoWay
    told: list[tuple[type, dict[str, Any]]] = field(default_factory=list)
    pressed: list[str] = field(default_factory=list)
    transfers: list[str] = field(default_factory=list)
    suppressed: int = 0
    running: asyncio.Task[None] | None = None

    @property
    def words(self) -> list[tuple[str, str]]:
        """Return who said what, as it is on the log."""
        key = data_key("d1", base64.urlsafe_b64decode(self.brief.data_key))
        found = []
        for kind, fields in self.told:
            if kind is facts.TurnTaken:
                words = open_value(key, fields["text"], aad(CALLEE, kind.TYPE, "text"))
                assert words is not None
                found.append((fields["speaker"], words.decode()))
        return found

    def facts(self, kind: type) -> list[dict[str, Any]]:
        """Return what was told of a kind."""
        return [fields for told, fields in self.told if told is kind]

    async def until(self, holds: Callable[[], Any], timeout_s: float = WAIT_S) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                assert self.running is not None
                if self.running.done():
                    assert holds(), f"it ended: {self.running!r} {self.words}"
                    return
                await asyncio.sleep(0.01)

    async def until_said(self, words: str) -> None:
        """Wait until the agent's turn is on the log."""
        await self.until(lambda: ("agent", words) in self.words)

    async def until_heard(self, ms: int) -> None:
        """Wait until so much of what is being said was played."""
        await self.until(lambda: self.exchange.playing is not None and self.exchange.playing.played_ms >= ms)

    async def until_silent(self) -> None:
        """Wait until nothing is sent any more: soon, or it is no barge-in."""
        await self.until(lambda: self.exchange._voice.source.queued_duration == 0, 0.3)

    def begins(self) -> None:
        """Let the callee begin to speak."""
        self.exchange.turns.take_sound(SpeechStarted(time.monotonic()))

    def stops(self) -> None:
        """Let the callee stop."""
        self.exchange.turns.take_sound(SpeechEnded(time.monotonic()))

    def utters(self, text: str) -> None:
        """Let words of the callee's be settled."""
        now = time.monotonic()
        self.exchange.turns.take_sound(Heard(text, now, now - 0.5, now - 0.1))

    def says(self, text: str) -> None:
        """Let the callee say something, all at once."""
        self.begins()
        self.utters(text)
        self.stops()

    async def ended(self) -> str:
        """Wait for the end; returns the reason."""
        assert self.running is not None
        with pytest.raises(Ended) as ended:
            await asyncio.wait_for(self.running, WAIT_S)
        return self.two_way.ended(ended.value).reason


@asynccontextmanager
async def talking(
    model: str = "scheduler",
    *,
    transfer: str | None = None,
    greeting: str = GREETING,
    answered_s: float = 0.0,
    **more: Any,
) -> AsyncIterator[Stand]:
    """Have a conversation run, the callee just answered."""
    brain, brain_port = await serving.start(Brain(faults.Script(), read_dialogues()).app(), 0)
    speech, speech_port = await serving.start(Speech(faults.Script()).app(), 0)
    api = conversation.AgentApi(url=f"http://127.0.0.1:{brain_port}/v1", model=model, timeout_s=1.5, failures_max=2)
    brief = Brief(
        call_id=CALL_ID,
        attempt=1,
        campaign_id="rx",
        campaign_hash="h",
        type="two_way",
        language="en-US",
        message=greeting,
        callee_identity=values.callee_identity(CALL_ID, 1),
        ring_timeout_s=30,
        max_call_duration_s=60,
        data_key_id="d1",
        data_key=base64.urlsafe_b64encode(bytes(32)).decode(),
        conversation=Conversation(**{"agent_api": api, "transfer_to": {"desk": "tel:+12125550100"}, **more}),
    )
    settings = Settings(speak_url=f"ws://127.0.0.1:{speech_port}/v1/speak")
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=500)
    leg = Leg(rtc.Room(), brief.callee_identity, lambda *_, **__: None)
    leg.answered_at = time.monotonic() - answered_s
    async with aiohttp.ClientSession() as http, speaker("en-US", settings) as voice:
        known = phrases.phrases("en-US", brief.conversation.phrases)
        sentences = {name: Sentence(text=text, sound=await voice.whole(text)) for name, text in known.items()}
        opening = Sentence(text=greeting, sound=await voice.whole(greeting))
        told: list[tuple[type, dict[str, Any]]] = []

        def say(kind: type, **fields: Any) -> None:
            told.append((kind, fields))

        history = History(brief, say)
        exchange = Exchange(leg, Voice(source, None), history, sentences)  # type: ignore[arg-type]
        caller = Caller(campaign_id="rx", call_id=CALL_ID, attempt=1, language="en-US", destinations=("desk",))
        stand: Stand

        async def press(digits: str) -> None:
            stand.pressed.append(digits)

        async def transferred(destination: str) -> str | None:
            stand.transfers.append(destination)
            return transfer

        def suppress() -> None:
            stand.suppressed += 1

        world = World(say=say, press=press, transfer=transferred, suppress=suppress)
        two_way = TwoWay(brief, exchange, history, AgentApi(api, caller, Secret(""), http), voice, world)
        stand = Stand(brief, exchange, leg, two_way, told)
        leg.answered_at = time.monotonic() - answered_s
        stand.running = asyncio.create_task(two_way.hold(opening))
        try:
            yield stand
        finally:
            stand.running.cancel()
            await asyncio.gather(stand.running, return_exceptions=True)
            await asyncio.gather(brain.cleanup(), speech.cleanup())


async def test_a_greeting_is_told_when_it_was_played_whole() -> None:
    """A hello over the greeting is no interruption: the greeting is its answer."""
    async with talking() as call:
        call.says("Hello?")
        await call.until(lambda: call.facts(facts.ConversationStarted))
        started = call.facts(facts.ConversationStarted)[0]
        assert started["greeting_ms"] > 2000 and started["answer_to_audio_ms"] < 500
        assert call.words == [("callee", "Hello?"), ("agent", GREETING)]
        call.says("Yes, please.")
        await call.until_said(OFFER)
        assert call.words[2:] == [("callee", "Yes, please."), ("agent", OFFER)]
        reply = next(f for f in call.facts(facts.TurnTaken) if f.get("reply_ms"))
        assert 0 < reply["reply_ms"] < 1500 and reply["spoken_ms"] > 2000


async def test_the_callees_words_stop_the_agents() -> None:
    """Barge-in: silence at once; what was heard until then is what the log and the agent API are told."""
    async with talking(answered_s=10) as call:
        await call.until_heard(1500)
        call.begins()
        await call.until_silent()
        call.utters("Who is this?")
        call.stops()
        await call.until(lambda: len(call.words) >= 2)
        speaker_, words = call.words[0]
        assert speaker_ == "agent" and GREETING.startswith(words) and 0 < len(words) < len(GREETING)
        assert not call.facts(facts.ConversationStarted)
        await call.until(lambda: call.words[-1][1].startswith("I am calling from the clinic"))


async def test_a_cough_only_holds_the_agents_words() -> None:
    """Speech without words: the agent waits, and goes on where it was; the greeting was heard whole."""
    async with talking(answered_s=10) as call:
        await call.until_heard(1000)
        call.begins()
        await call.until_silent()
        call.stops()
        await call.until(lambda: call.facts(facts.ConversationStarted))
        assert call.words == [("agent", GREETING)]


async def test_a_callee_who_says_nothing_is_asked_and_then_left() -> None:
    """The silence prompt after its time, then a polite end; who answers the prompt is talked with."""
    async with talking(silence=Silence(prompt_after_s=2, prompts_max=1)) as call:
        await call.until_said("Are you still there?")
        quiet_from = time.monotonic()
        assert await call.ended() == "conversed"
        assert call.words[-1] == ("agent", "I have to end the call now. Goodbye.")
        assert time.monotonic() - quiet_from > 2
    async with talking(silence=Silence(prompt_after_s=2, prompts_max=1)) as call:
        await call.until_said("Are you still there?")
        call.says("Yes, please.")
        await call.until_said(OFFER)


async def test_who_was_not_understood_is_asked_to_say_it_again() -> None:
    """Speech without a word, long enough for one: no silent line until the silence prompt; a cough is let pass."""
    again = "I am sorry, I did not get that. Could you say it again, please?"
    async with talking(silence=Silence(prompt_after_s=10, prompts_max=1)) as call:
        await call.until_said(GREETING)
        call.exchange.turns.take_sound(SpeechStarted(time.monotonic() - MISSED_MIN_S))
        call.stops()
        quiet_from = time.monotonic()
        await call.until(lambda: call.exchange.playing is not None)
        assert time.monotonic() - quiet_from < SILENT_LINE_S
        await call.until_said(again)
        call.says("Yes, please.")
        await call.until_said(OFFER)
        call.begins()
        call.stops()
        assert not call.exchange.turns.missed


async def test_who_asks_not_to_be_called_again_is_not() -> None:
    """Spoken into the greeting: told with the pattern's id, posted, acknowledged aloud, and the call ends."""
    async with talking() as call:
        await call.until_heard(500)
        call.says("Please stop calling me.")
        assert await call.ended() == "opted_out"
        assert call.facts(facts.OptOutHeard) == [{"evidence": "en-stop-calling"}] and call.suppressed == 1
        assert call.words[1:] == [
            ("callee", "Please stop calling me."),
            ("agent", "I understand. We will not call you again. Goodbye."),
        ]


async def test_the_opt_out_key_is_an_opt_out_and_other_keys_are_a_turn() -> None:
    """Keys are told sealed; what was pressed reaches the agent API as a turn."""
    async with talking(opt_out_key="9") as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.two_way.key("1")
        await call.until_said("Thank you for pressing the key.")
        assert ("callee", "[keys: 1]") in call.words
        call.two_way.key("9")
        assert await call.ended() == "opted_out"
        assert call.facts(facts.OptOutHeard) == [{"evidence": "opt_out_key"}]
        assert len(call.facts(facts.DtmfReceived)) == 2


async def test_an_agent_api_that_is_slow_is_waited_for_aloud() -> None:
    """The line is not silent for 4 s: a moment is asked for, and again, until the API's last try has failed."""
    async with talking("scheduler+timeout-1") as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Yes, please.")
        await call.until_said("One moment, please.")
        wait = call.facts(facts.TurnTaken)[-1]
        assert 2000 < wait["reply_ms"] < 4000
        await call.until_said("I am sorry, I did not get that. Could you say it again, please?")
        call.says("Yes, please.")
        await call.until_said(OFFER)
        assert not call.facts(facts.AgentApiFailed)


async def test_an_agent_api_that_fails_again_and_again_ends_the_call() -> None:
    """The first failed turn is excused for; the last one in a row is told, with a goodbye."""
    async with talking("scheduler+error") as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Yes, please.")
        await call.until_said("I am sorry, I did not get that. Could you say it again, please?")
        call.says("Yes, please.")
        assert await call.ended() == "failed"
        assert call.facts(facts.AgentApiFailed) == [{"service": "agent_api", "code": "status_500"}]
        assert call.words[-1] == ("agent", "I have to end the call now. Goodbye.")


async def test_a_transfer_is_made_or_talked_about() -> None:
    """A taken transfer ends the call; a refused one is told to the agent API, which goes on."""
    async with talking() as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Can I talk to a person?")
        assert await call.ended() == "transferred"
        assert call.transfers == ["tel:+12125550100"] and call.facts(facts.CallTransferred) == [{}]
        assert call.words[-1] == ("agent", "One moment, I will connect you.")
    async with talking(transfer="sip_486") as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Can I talk to a person?")
        await call.until(lambda: call.words[-1][1].startswith("I am sorry, nobody can take your call"))
        assert not call.facts(facts.CallTransferred)


async def test_keys_are_pressed_for_the_agent_api() -> None:
    """DTMF goes out, and the API hears of it before anything is said."""
    async with talking() as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Please press my extension.")
        await call.until_said("I have pressed the keys for you.")
        assert call.pressed == ["42#"]


async def test_a_callee_who_goes_before_a_turn_hung_up_and_after_one_conversed() -> None:
    """Only who never said anything hung up on us."""
    async with talking() as call:
        await call.until_heard(1000)
        call.leg._end(Ending.CALLEE_LEFT)
        assert await call.ended() == "callee_left"
        assert 500 < call.facts(facts.CalleeHungUp)[0]["spoken_ms"] < 1500
    async with talking() as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Yes, please.")
        await call.until_said(OFFER)
        call.leg._end(Ending.CALLEE_LEFT)
        assert await call.ended() == "conversed" and not call.facts(facts.CalleeHungUp)


async def test_who_goes_on_talking_is_answered_once() -> None:
    """Words that come before the reply's first sound replace it: one answer, to all that was said."""
    async with talking("scheduler+slow") as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Well.")
        await call.until(lambda: call.words[-1] == ("callee", "Well."))
        call.says("Yes, please.")
        await call.until_said(OFFER)
        assert [words for speaker_, words in call.words if speaker_ == "callee"] == ["Well.", "Yes, please."]
        assert [words for speaker_, words in call.words if speaker_ == "agent" and words == OFFER] == [OFFER]


async def test_a_recogniser_that_fails_ends_the_call_politely() -> None:
    """Who cannot hear says so by a fact, and says goodbye."""
    async with talking() as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))

        async def deaf() -> None:
            raise RecogniserFailed("connection")

        call.two_way.listening = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        call.exchange.news.set()
        assert await call.ended() == "failed"
        assert call.facts(facts.AgentApiFailed) == [{"service": "listen", "code": "connection"}]
        assert call.words[-1] == ("agent", "I have to end the call now. Goodbye.")


async def test_the_agent_api_ends_the_call_without_a_word() -> None:
    """`end_call` without anything said: the agent says goodbye itself."""
    async with talking("silent-end") as call:
        await call.until(lambda: call.facts(facts.ConversationStarted))
        call.says("Yes.")
        assert await call.ended() == "conversed"
        assert call.words[-1] == ("agent", "I have to end the call now. Goodbye.")
