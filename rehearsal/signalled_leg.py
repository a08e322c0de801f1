"""A leg without media: as `phone.Leg` in everything that is signalled, for rehearsals of hundreds of calls at once.

Who answers listens for as long as the caller stays, or hangs up `hangs_up_after_s` after the answer; nothing is heard.
"""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
from livekit.protocol import models

from rehearsal import phone, signalling
from rehearsal.personas import Persona
from rehearsal.phone import Exchange, Leg, Order
from rehearsal.signalling import SignalledRoom
from rehearsal.sip_outcomes import SipOutcome
from rehearsal.witness import EndedBy, Seen


def _ignore(_: models.ParticipantInfo) -> None:
    """Hear nothing: a phone does not look at who else is in the room."""


class SignalledLeg(Leg):
    """A phone of which nothing but its signalling is there."""

    def __init__(
        self,
        order: Order,
        persona: Persona,
        refusal: SipOutcome | None,
        exchange: Exchange,
        http: aiohttp.ClientSession,
    ) -> None:
        super().__init__(order, persona, refusal, exchange)
        self._signals = SignalledRoom(http, _ignore, _ignore, self._thrown_out)
        self._answered = False

    @property
    def participant_sid(self) -> str:
        """LiveKit's id of the participant, once joined."""
        return self._signals.sid

    async def join(self) -> None:
        """Join the room. Raises: JoinRefusedError when there is no such room."""
        try:
            await self._signals.join(self._exchange.livekit_url, self._token())
        except signalling.JoinRefusedError as error:
            raise phone.JoinRefusedError from error
        await self._signals.set_attributes({"sip.callStatus": self.status})  # tells the others at once

    async def _talk(self) -> EndedBy:
        self._answered = True
        self._saw(Seen.ANSWERED)
        await self._set_status("active")
        self._settle(None)
        until_s = self.order.max_call_duration_s
        had_enough_s = self.persona.hangs_up_after_s
        if await self._ends_within(min(until_s, had_enough_s or until_s)):
            return self._gone.result()
        return EndedBy.MAX_DURATION if had_enough_s is None else EndedBy.CALLEE_BYE

    def _thrown_out(self, reason: int) -> None:
        self._ended_by_room(reason, answered=self._answered)

    async def _set_status(self, status: str) -> None:
        self.status = status
        if self._signals.connected:
            await self._signals.set_attributes({"sip.callStatus": status})

    async def _leave(self, ended_by: EndedBy, refusal: SipOutcome | None) -> None:
        if ended_by in (EndedBy.CALLEE_BYE, EndedBy.MAX_DURATION):
            await self._set_status("hangup")
        self.status = "hangup"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(phone.LEAVE_TIMEOUT_S):
                await self._signals.leave(int(phone.leave_reason(ended_by, refusal)))
