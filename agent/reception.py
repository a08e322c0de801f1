"""What is done with whoever, or whatever, took the call: a person is spoken to, a machine is met by the campaign's policy.

A voicemail gets its message once, whole, after its beep; a mailbox that takes none, a menu and a dead number are hung up
on; a call screener is told who is calling, and what comes then is judged again. Source: issue S3 item 3.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from agent.answerer.answerer import Verdict
from agent.attending import Attending
from agent.leg import Leg, first_of
from agent.reporter import Reporter
from agent.speech import Spoken
from agent.voice import Voice
from schemas.conversation import MachinePolicy
from schemas.facts import AnswererCategory, AnswererDetected, VoicemailLeft

SCREENINGS_MAX: Final = 2
"""How often a screener is answered; one that asks on has nobody behind it."""
LAST_WORD_S: Final = 0.3
"""What is played out is heard this much later at most: network, jitter buffers, the phone."""
TAIL_S: Final = 1.0
"""Silence before the hang-up, the last word's way to the phone included."""

PEOPLE: Final[frozenset[AnswererCategory]] = frozenset({"human", "uncertain"})
"""Who is spoken to: a doubt counts as a person, for hanging up on one is the worst error."""

Met = Literal["person", "voicemail_left", "machine_hung_up", "left"]
"""`left`: the leg was over first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a campaign wants of machines, and what is said to them."""

    machine: MachinePolicy
    voicemail: Spoken | None
    introduction: Spoken
    """Who is calling and why."""


class Reception:
    """One call's policy at work."""

    def __init__(self, attending: Attending, policy: Policy, voice: Voice, leg: Leg, reporter: Reporter) -> None:
        self._attending, self._policy = attending, policy
        self._voice, self._leg, self._reporter = voice, leg, reporter
        self._said: Verdict | None = None
        self._screenings = 0
        self.judged = asyncio.Event()
        """Set once who answered is known."""
        self.spoken_ms = 0
        """Of what was last said to a machine."""

    async def machine(self) -> Verdict:
        """Wait for a machine, or a screener; a person who answered is doubted until then. The caller cancels this."""
        while True:
            verdict = await self.verdict()
            if verdict.category not in PEOPLE:
                return verdict
            self._attending.doubt()

    async def verdict(self) -> Verdict:
        """Wait for a verdict and say it: who took the call, and how that is known."""
        verdict = await self._attending.verdict()
        if verdict is not self._said:
            self._said = verdict
            self._reporter.say(AnswererDetected, **asdict(verdict))
        self.judged.set()
        return verdict

    async def meet(self, verdict: Verdict) -> Met:
        """Deal with a verdict until there is a person to speak to, or nothing more to do."""
        meeting = asyncio.ensure_future(self._met(verdict))
        endings: set[asyncio.Future[Any]] = {meeting, self._leg.over}
        try:
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            return meeting.result() if meeting.done() else "left"
        finally:
            meeting.cancel()

    async def _met(self, verdict: Verdict) -> Met:
        while verdict.category == "call-screening" and self._screenings < SCREENINGS_MAX:
            self._screenings += 1
            if not await self._say(self._policy.introduction):
                return "left"
            self._attending.judge_again()
            verdict = await self.verdict()
        if verdict.category in PEOPLE:
            return "person"
        if verdict.category == "machine-vm" and self._policy.machine == "leave_message":
            return await self._leave_message()
        return "machine_hung_up"

    async def _leave_message(self) -> Met:
        over = await self._attending.greeting_over()
        message = self._policy.voicemail
        if message is None or not over.takes_message:
            return "machine_hung_up"
        if not await self._say_to_mailbox(message, after_beep=over.how == "beep"):
            return "left"
        self._reporter.say(VoicemailLeft, spoken_ms=self.spoken_ms)
        await self._leg.lasts(TAIL_S - LAST_WORD_S)
        return "voicemail_left"

    async def _say_to_mailbox(self, message: Spoken, *, after_beep: bool) -> bool:
        """Say the message whole; one that a late beep comes into is begun again, for what was said before is not kept."""
        if after_beep:
            return await self._say(message)
        late = asyncio.create_task(self._attending.beep_after(time.monotonic()), name="late beep")
        try:
            played = await self._voice.play(message, first_of(self._leg.over, late), lambda: None)
        finally:
            late.cancel()
        self.spoken_ms = played.spoken_ms
        if played.whole or self._leg.over.done():
            return played.whole and await self._leg.lasts(LAST_WORD_S)
        return await self._say(message)

    async def _say(self, words: Spoken) -> bool:
        """Say it, whole; False when the leg was over first."""
        played = await self._voice.play(words, self._leg.over, lambda: None)
        self.spoken_ms = played.spoken_ms
        return played.whole and await self._leg.lasts(LAST_WORD_S)
