"""A callee is handed over: SIP REFER (RFC 3515) by livekit-sip, to a destination that the campaign names."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from livekit import api
from livekit.protocol.sip import STS_TRANSFER_FAILED

from runtime.settings import Settings

RINGING_TIMEOUT_S: Final = 20
"""How long the other end may ring; the callee hears a dial tone meanwhile."""
TIMEOUT_S: Final = 30.0


async def transfer(room: str, identity: str, destination: str, settings: Settings) -> str | None:
    """Hand the callee over; None when it was taken, else a code that says why not."""
    request = api.TransferSIPParticipantRequest(
        room_name=room, participant_identity=identity, transfer_to=destination, play_dialtone=True
    )
    request.ringing_timeout.seconds = RINGING_TIMEOUT_S
    url = settings.livekit_api_url or settings.livekit_url
    secret = settings.livekit_api_secret.reveal()
    try:
        async with asyncio.timeout(TIMEOUT_S), api.LiveKitAPI(url, settings.livekit_api_key, secret) as client:
            answer = await client.sip.transfer_sip_participant(request, timeout=TIMEOUT_S)
    except api.SipCallError as error:
        status = error.sip_status_code
        return f"sip_{status}" if status is not None else str(error.code)
    except api.TwirpError as error:
        return str(error.code)
    except (aiohttp.ClientError, TimeoutError) as error:
        return "timeout" if isinstance(error, TimeoutError) else "connection"
    # livekit-server 1.13 answers with nothing at all when it was taken; later ones say so.
    return "refused" if getattr(answer, "status", None) == STS_TRANSFER_FAILED else None
