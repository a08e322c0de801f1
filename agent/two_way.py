"""A two-way call: greeting, then turn after turn between the callee and the agent API, to a polite end.

The line is never silent for long: an answer that takes its time is announced, one that fails is excused for, a callee
who says nothing is asked. Source: design §6; issue S3.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from livekit.agents.llm import FunctionToolCall

from agent import tools
from agent.agent_api import AgentApi
from agent.answerer.answerer import Verdict
from agent.answering import Answering
from agent.callee_turns import CalleeTurns, Turn
from agent.ending import Ended, Reason, reason_of
from agent.exchange import TAIL_S, Exchange, Said, Sentence
from agent.history import History
from agent.leg import Ending
from agent.opt_out import asked
from agent.phrases import Name
from agent.reception import Reception
from agent.recogniser import Heard, RecogniserFailed
from agent.replying import Reply
from agent.speech import Speaker
from agent.utterance import Utterance
from runtime.logs import Log
from schemas.brief import Brief
from schemas.facts import AgentApiFailed, CalleeHungUp, CallTransferred, ConversationStarted, OptOutHeard

LISTENER_TIMEOUT_S: Final = 5.0
OPENING_S: Final = 2.0
"""After the answer: who begins to speak by then says hello, and does not interrupt."""
ASK_AGAIN_S: Final = 1.0
"""After speech that was not understood: who spoke waits for an answer, and 4 s of silence would be a defect."""
LOOK_EVERY_S: Final = 0.1
TOOL_ROUNDS_MAX: Final = 3
GOODBYE_S: Final = 6.0
"""Kept of the longest call, for a goodbye."""

log = Log("agent.two_way")


class MachineFound(Exception):
    """A machine took the call, or a screener."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.category)
        self.verdict = verdict


class OptedOut(Exception):
    """The callee asked not to be called again; `evidence` is the pattern's id, or the setting."""

    def __init__(self, evidence: str) -> None:
        super().__init__(evidence)
        self.evidence = evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a conversation acts upon outside of itself."""

    say: Callable[..., None]
    """`say(kind, **fields)`, as `Reporter.say`."""
    press: Callable[[str], Awaitable[None]]
    transfer: Callable[[str], Awaitable[str | None]]
    suppress: Callable[[], None]


class TwoWay:
    """One conversation, from the answer on."""

    def __init__(
        self, brief: Brief, exchange: Exchange, history: History, api: AgentApi, speaker: Speaker, world: World
    ) -> None:
        self._brief, self._exchange, self._history = brief, exchange, history
        self._world, self._failures_max = world, api.definition.failures_max
        self._answering = Answering(exchange, history, api, speaker, brief)
        self._evidence: str | None = None
        self._failures = self._prompts = 0
        self._opening_until = exchange.leg.answered_at + OPENING_S
        self.listening: asyncio.Task[None] | None = None
        """What feeds the callee's turns; its failure ends the conversation."""
        self.reception: Reception | None = None
        """What is done with machines, where the campaign wants to know of them."""
        self._watching: asyncio.Task[Verdict] | None = None
        exchange.check = self._check
        exchange.turns.on_words = self._words

    async def hold(self, greeting: Sentence) -> None:
        """Converse until something ends it. Raises: Ended, always; TimeoutError where the caller limits it."""
        try:
            while True:
                self._watch()
                try:
                    await self._greet(greeting)
                    while True:
                        turn = await self._hear()
                        await self._judged()
                        await self._reply(turn)
                except MachineFound as found:
                    await self._meet(found.verdict)
        except OptedOut as opted_out:
            await self._opt_out(opted_out.evidence)
        except RecogniserFailed as failure:
            log.warning("recognition failed", code=failure.code, call_id=self._brief.call_id)
            self._world.say(AgentApiFailed, service="listen", code=failure.code)
            await self.give_up("failed")
        finally:
            if self._watching is not None:
                self._watching.cancel()

    async def give_up(self, reason: Reason) -> NoReturn:
        """Say goodbye and end; who leaves before its end changes nothing. Raises: Ended."""
        await self._last_words("goodbye", reason)

    async def time_is_up(self) -> NoReturn:
        """End the longest call; one that was a conversation stays one. Raises: Ended."""
        if self.opted_out:
            await self.give_up("opted_out")
        await self.give_up("conversed" if self._exchange.turns.turns_taken else "too_long")

    async def _last_words(self, name: Name, reason: Reason) -> NoReturn:
        self._exchange.check = lambda: None
        with contextlib.suppress(Ended):
            await self._exchange.farewell(name)
        raise Ended(reason)

    def ended(self, ended: Ended) -> Ended:
        """Say what the end of the leg means where there was a conversation."""
        over = self._exchange.leg.over
        if ended.reason == "callee_left" and over.done() and over.result() is Ending.CALLEE_LEFT:
            if self._exchange.turns.turns_taken:
                return Ended("conversed")
            self._world.say(CalleeHungUp, spoken_ms=self._exchange.spoken_ms)
        return ended

    @property
    def opted_out(self) -> bool:
        """Tell whether the callee asked not to be called again."""
        return self._evidence is not None

    def key(self, digit: str) -> None:
        """Take a key that the callee pressed."""
        self._history.key(digit)
        if digit == self._brief.conversation.opt_out_key:
            self._evidence = self._evidence or "opt_out_key"
        self._exchange.turns.take_key(digit)

    # -- what ends it -------------------------------------------------------------------------------------------------

    def _words(self, _: Heard) -> None:
        self._evidence = self._evidence or asked(self._exchange.turns.text, self._brief.language)

    def _check(self) -> None:
        """Look for what ends the conversation. Raises: OptedOut, MachineFound, RecogniserFailed."""
        if self._watching is not None and self._watching.done():
            raise MachineFound(self._watching.result())
        if self._evidence is not None:
            raise OptedOut(self._evidence)
        if self.listening is not None and self.listening.done():
            self.listening.result()

    async def _opt_out(self, evidence: str) -> NoReturn:
        self._world.say(OptOutHeard, evidence=evidence)
        self._world.suppress()
        if words := self._exchange.turns.text:
            self._history.callee(words)
        await self._last_words("opt_out", "opted_out")

    # -- machines -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self.reception is not None:
            self._watching = asyncio.create_task(self.reception.machine(), name="watch for a machine")
            self._watching.add_done_callback(lambda _: self._exchange.news.set())

    async def _judged(self) -> None:
        """Wait until it is known who answered: a machine's words are not answered."""
        while self.reception is not None and not self.reception.judged.is_set():
            await self._exchange.wait(time.monotonic() + LOOK_EVERY_S)

    async def _meet(self, verdict: Verdict) -> None:
        """Do as the campaign wants with a machine; returns where a person came. Raises: Ended."""
        assert self.reception is not None
        self._exchange.turns.turns_taken = 0
        met = await self.reception.meet(verdict)
        if met == "left":
            raise Ended(reason_of(self._exchange.leg, "failed"))
        if met != "person":
            raise Ended(met)
        self._exchange.turns.forget()
        self._opening_until = time.monotonic() + OPENING_S

    # -- turns --------------------------------------------------------------------------------------------------------

    async def _greet(self, greeting: Sentence) -> None:
        """Say the greeting; a hello over it is no interruption, and is answered by it."""
        exchange = self._exchange

        def interrupts(turns: CalleeTurns) -> bool:
            if turns.began_at > self._opening_until:
                return True
            if (hello := turns.take(time.monotonic())) is not None:
                turns.turns_taken = 0
                self._history.callee(hello.text)
            return False

        utterance = Utterance.of(greeting.text, greeting.sound, exchange.news)
        said = await exchange.say(utterance, interrupts=interrupts)
        if said.whole:
            took_ms = round((said.began_at - exchange.leg.answered_at) * 1000)
            self._world.say(ConversationStarted, answer_to_audio_ms=took_ms, greeting_ms=said.played_ms)

    async def _hear(self) -> Turn:
        """Wait for the callee's turn; who says nothing, or nothing clear, is asked, and then left. Raises: Ended."""
        exchange, silence = self._exchange, self._brief.conversation.silence
        while (turn := exchange.turns.take(time.monotonic())) is None:
            missed = exchange.turns.missed and exchange.turns.quiet_since > exchange.sound_at
            patience_s = ASK_AGAIN_S if missed else silence.prompt_after_s
            prompt_at = max(exchange.turns.quiet_since, exchange.sound_at) + patience_s
            if not exchange.turns.speaking and time.monotonic() >= prompt_at:
                if self._prompts >= silence.prompts_max:
                    await self.give_up("conversed")
                self._prompts += 1
                await exchange.phrase("fallback" if missed else "silence")
                continue
            await exchange.wait(None if exchange.turns.speaking else prompt_at)
        self._prompts = 0
        self._history.callee(turn.text)
        return turn

    async def _reply(self, turn: Turn) -> None:
        """Answer, do what the agent API asks for, and answer again where it must know what came of it."""
        for _ in range(TOOL_ROUNDS_MAX):
            coming, said = await self._answering.answer(turn)
            if coming is None:
                return
            if coming.failure is not None:
                await self._failed(coming)
                return
            self._failures = 0
            if not await self._act(coming.calls, said):
                return

    async def _failed(self, coming: Reply) -> None:
        """Excuse a turn without a reply; the last of several in a row ends the call. Raises: Ended."""
        assert coming.failure is not None
        self._failures += 1
        service, code = coming.failure.service, coming.failure.code
        log.warning("a turn failed", service=service, code=code, tries=coming.tries, call_id=self._brief.call_id)
        if self._failures < self._failures_max:
            await self._exchange.phrase("fallback")
            return
        self._world.say(AgentApiFailed, service=service, code=code)
        await self.give_up("failed")

    # -- tools --------------------------------------------------------------------------------------------------------

    async def _act(self, calls: list[FunctionToolCall], said: Said) -> bool:
        """Do what was asked for; True where the agent API must hear of it before anything is said. Raises: Ended."""
        unheard = False
        for call in calls:
            match tools.action_of(call):
                case tools.EndCall():
                    await self._end(said)
                case tools.SendDtmf(digits=digits):
                    await self._world.press(digits)
                    self._history.called(call, "sent", refused=False)
                    unheard = unheard or not said.words
                case tools.Transfer(name=name):
                    refused = await self._transfer(name)
                    self._history.called(call, f"refused: {refused}", refused=True)
                    unheard = True
                case tools.Unknown(why=why):
                    self._history.called(call, f"refused: {why}", refused=True)
                    unheard = True
        return unheard

    async def _end(self, said: Said) -> NoReturn:
        """End as the agent API asked, its own last word or ours before it. Raises: Ended."""
        if not said.words:
            await self.give_up("conversed")
        await self._exchange.leg.lasts(TAIL_S)
        raise Ended("conversed")

    async def _transfer(self, name: str) -> str:
        """Hand the callee over; returns why not. Raises: Ended where it was taken."""
        destination = self._brief.conversation.transfer_to.get(name)
        if destination is None:
            return "no_such_destination"
        refused = await self._world.transfer(destination)
        if refused is None:
            self._world.say(CallTransferred)
            raise Ended("transferred")
        log.warning("a transfer was refused", code=refused, call_id=self._brief.call_id)
        return refused
