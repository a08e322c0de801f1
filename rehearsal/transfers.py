"""A callee is handed over by SIP REFER: who is at the other end decides whether it is taken.

As livekit-server and livekit-sip do it: the answer to the request waits for the NOTIFY that says what became of the
transfer; once it was taken the leg ends. The destination's number chooses its persona, as a dialed number does; a SIP
user without digits takes every call. Source: livekit-server pkg/service/sip.go; livekit/sip pkg/sip/{outbound,protocol}.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from aiohttp import web
from livekit.protocol import sip

from rehearsal.personas import Persona, persona_of
from rehearsal.phone import Leg
from rehearsal.sip_outcomes import OUTCOMES, SipOutcome
from rehearsal.twirp import TwirpError
from rehearsal.witness import EndedBy

RINGING_DEFAULT_S: Final = 30.0
BYE_AFTER_S: Final = 0.2
"""The callee's side hangs up by itself once it is connected elsewhere (livekit-sip waits a second for that)."""
_SCHEMES: Final = ("sip:", "sips:", "tel:")


async def transfer(asked: sip.TransferSIPParticipantRequest, legs: Iterable[Leg]) -> SipOutcome | None:
    """Hand a leg over; None once it was taken, else why not. Raises: TwirpError for what cannot be asked."""
    leg = _leg_of(asked, legs)
    if leg.status != "active":
        raise TwirpError("failed_precondition", "can't transfer non established call")
    ringing_s = asked.ringing_timeout.ToTimedelta().total_seconds() or RINGING_DEFAULT_S
    refused = await _ring(_persona(asked.transfer_to), ringing_s)
    if refused is None:
        asyncio.get_running_loop().call_later(BYE_AFTER_S, leg.hang_up, EndedBy.TRANSFERRED)
    return refused


def refusal(outcome: SipOutcome) -> web.Response:
    """The answer to a transfer that was not taken."""
    body = outcome.body
    if outcome.sip_status is not None:
        body["msg"] = f"call transfer failed: sip status: {outcome.sip_status}: {outcome.phrase}"
    return web.json_response(body, status=outcome.http_status)


def _leg_of(asked: sip.TransferSIPParticipantRequest, legs: Iterable[Leg]) -> Leg:
    if not asked.room_name or not asked.participant_identity or not asked.transfer_to:
        raise TwirpError("invalid_argument", "missing room name, participant identity or transfer to")
    if not asked.transfer_to.strip("<>").startswith(_SCHEMES):
        words = "transfer_to must be a valid SIP(s) or TEL URI (sip:, sips: or tel:)"
        raise TwirpError("invalid_argument", words)
    for leg in legs:
        if (leg.order.room, leg.order.identity) == (asked.room_name, asked.participant_identity):
            return leg
    raise TwirpError("not_found", "participant does not exist")


def _persona(destination: str) -> Persona | None:
    """Who is at a URI; None for somebody who always answers."""
    user = destination.strip("<>").partition(":")[2].partition("@")[0]
    return persona_of(user) if sum(c.isdigit() for c in user) >= 2 else None


async def _ring(persona: Persona | None, timeout_s: float) -> SipOutcome | None:
    """Ring the destination: what the NOTIFY says in the end."""
    if persona is None:
        return None
    if persona.refusal is None and not persona.answers:
        await asyncio.sleep(timeout_s)
        return OUTCOMES["request_timed_out"]
    await asyncio.sleep(min(persona.rings_for_s, timeout_s))
    return persona.refusal
