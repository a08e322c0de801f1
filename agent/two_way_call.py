"""A two-way call put together: what it needs is had before anybody is rung, then it is answered, heard, held and ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

import aiohttp
from livekit import rtc

from agent import phrases, recogniser, tools, transferring
from agent.agent_api import AgentApi, Caller
from agent.attending import Attending
from agent.ear import Ear
from agent.ending import Ended, Reason, reached, reason_of
from agent.exchange import TAIL_S, Exchange, Sentence
from agent.history import History
from agent.leg import Leg
from agent.line import Line
from agent.phrases import Name
from agent.reception import Policy, Reception
from agent.recogniser import Sound
from agent.speech import Speaker, Spoken, speaker
from agent.suppressing import suppress
from agent.two_way import GOODBYE_S, LISTENER_TIMEOUT_S, TwoWay, World
from runtime.settings import Settings
from schemas.brief import Brief


class TwoWayCall:
    """One call, ready to be dialled."""

    def __init__(
        self,
        brief: Brief,
        settings: Settings,
        voice: Speaker,
        http: aiohttp.ClientSession,
        greeting: Sentence,
        sentences: dict[Name, Sentence],
        policy: Policy,
    ) -> None:
        self._brief, self._settings, self._speaker, self._http = brief, settings, voice, http
        self._greeting, self._sentences, self._policy = greeting, sentences, policy
        self._opted_out = False

    async def run(self, line: Line) -> Reason:
        """Take the call from readiness to its end; whoever is still on the line then is hung up on by the caller."""
        brief = self._brief
        ear = Ear.attach(line.room, brief.callee_identity)
        attending = Attending(ear, self._settings, brief.language) if brief.conversation.machine != "off" else None
        try:
            await reached(line.leg, brief.ring_timeout_s)
            ear.open()
            if attending is not None:
                attending.start(understands=False)
            return await self._talk(line, ear, attending)
        except Ended as ended:
            return ended.reason
        finally:
            if attending is not None:
                await attending.close()
            await ear.close()

    async def apologise(self, line: Line) -> None:
        """Say goodbye after a bug."""
        if line.leg.answered.is_set() and not line.leg.over.done():
            line.voice.source.clear_queue()
            await line.voice.play(self._sentences["goodbye"].sound, line.leg.over, lambda: None)
            await line.leg.lasts(TAIL_S)

    async def aftermath(self) -> None:
        """Tell the dialer's API of an opt-out, too: after the call, for a suppression takes down what rings or talks."""
        if self._opted_out:
            await suppress(self._brief.call_id, self._settings)

    async def _talk(self, line: Line, ear: Ear, attending: Attending | None) -> Reason:
        brief = self._brief
        history = History(brief, line.reporter.say)
        exchange = Exchange(line.leg, line.voice, history, self._sentences)
        two_way = TwoWay(brief, exchange, history, self._api(), self._speaker, self._world(line))
        hearers = [exchange.turns.take_sound]
        if attending is not None:
            hearers.append(attending.take)
            two_way.reception = Reception(attending, self._policy, line.voice, line.leg, line.reporter)
        sounds = ear.listen(self._settings, brief.language)
        two_way.listening = asyncio.create_task(_listen(sounds, hearers, line.leg), name="listen")
        two_way.listening.add_done_callback(lambda _: exchange.news.set())

        def pressed(event: rtc.SipDTMF) -> None:
            if event.participant is not None and event.participant.identity == brief.callee_identity:
                two_way.key(event.digit)

        line.room.on("sip_dtmf_received", pressed)
        try:
            try:
                async with asyncio.timeout(max(GOODBYE_S, brief.max_call_duration_s - GOODBYE_S)):
                    if not await line.recorder.answered(line.voice):
                        return reason_of(line.leg, "failed")
                    if not await line.voice.has_listener(line.leg.over, LISTENER_TIMEOUT_S):
                        return reason_of(line.leg, "failed")
                    await two_way.hold(self._greeting)
            except TimeoutError:
                await two_way.time_is_up()
        except Ended as ended:
            return two_way.ended(ended).reason
        finally:
            line.room.off("sip_dtmf_received", pressed)
            two_way.listening.cancel()
            await asyncio.gather(two_way.listening, return_exceptions=True)
        raise AssertionError("a conversation ends by saying why")

    def _api(self) -> AgentApi:
        brief, definition = self._brief, self._brief.conversation.agent_api
        assert definition is not None, "a two-way campaign has one (schemas/campaign)"
        caller = Caller(
            campaign_id=brief.campaign_id,
            call_id=brief.call_id,
            attempt=brief.attempt,
            language=brief.language,
            destinations=tuple(sorted(brief.conversation.transfer_to)),
        )
        return AgentApi(definition, caller, self._settings.agent_api_key, self._http)

    def _world(self, line: Line) -> World:
        async def press(digits: str) -> None:
            await tools.press(line.room, digits)

        async def transfer(destination: str) -> str | None:
            identity = self._brief.callee_identity
            return await transferring.transfer(line.room.name, identity, destination, self._settings)

        def suppressed() -> None:
            self._opted_out = True

        return World(say=line.reporter.say, press=press, transfer=transfer, suppress=suppressed)


@contextlib.asynccontextmanager
async def prepared(brief: Brief, settings: Settings) -> AsyncIterator[TwoWayCall]:
    """Have every fixed sentence as sound and the recogniser's word, before anybody is rung.

    Raises: SpeechFailed, RecogniserFailed.
    """
    texts = phrases.phrases(brief.language, brief.conversation.phrases)
    async with speaker(brief.language, settings) as voice:

        async def sentence(text: str) -> Sentence:
            return Sentence(text=text, sound=await voice.whole(text))

        async def spoken(text: str | None) -> Spoken | None:
            return await voice.whole(text) if text and brief.conversation.machine != "off" else None

        (greeting, *known), voicemail, introduction, _ = await asyncio.gather(
            asyncio.gather(sentence(brief.message), *(sentence(text) for text in texts.values())),
            spoken(brief.words.voicemail),
            spoken(brief.words.introduction),
            recogniser.check(settings, brief.language),
        )
        policy = Policy(
            machine=brief.conversation.machine, voicemail=voicemail, introduction=introduction or greeting.sound
        )
        sentences = dict(zip(texts, known, strict=True))
    async with speaker(brief.language, settings) as voice, aiohttp.ClientSession() as http:
        yield TwoWayCall(brief, settings, voice, http, greeting, sentences, policy)


async def _listen(sounds: AsyncGenerator[Sound, None], hearers: Sequence[Callable[[Sound], None]], leg: Leg) -> None:
    """Let everybody hear for as long as there is sound. Raises: RecogniserFailed."""
    async with contextlib.aclosing(sounds):
        async for sound in sounds:
            for hear in hearers:
                hear(sound)
    await leg.over  # the track ended before the leg did: nothing more is heard, and silence says so
