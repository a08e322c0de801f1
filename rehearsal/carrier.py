"""The carrier: `livekit.SIP` in front of a livekit-server, with phones instead of a telephone network.

    python -m rehearsal.carrier --help

It answers `/twirp/livekit.SIP/*` itself, as livekit-server with livekit-sip would (`reference/livekit.md` 4), passes
`livekit.Egress` on to `rehearsal.egress` (without one it is `unavailable`), and every other HTTP request to livekit-server. As in the original, a dial
is *not* idempotent: a second request is a second INVITE; and a caller that goes away does not cancel it.
`GET /rehearsal/calls` shows the live legs (numbers masked), `GET /rehearsal/health` answers 200.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web
from google.protobuf.empty_pb2 import Empty
from livekit import api
from livekit.protocol import sip

from rehearsal import faults, phone, serving, transfers, twirp
from rehearsal.personas import Persona, masked, persona_of, refusal_of
from rehearsal.phone import Exchange, JoinRefusedError, Leg, Order
from rehearsal.signalled_leg import SignalledLeg
from rehearsal.sip_outcomes import OUTCOMES, SipOutcome
from rehearsal.trunks import Trunks
from rehearsal.twirp import TwirpError
from rehearsal.witness import ATTEMPT_HEADER, EndedBy, Witness, dials_of

log = logging.getLogger(__name__)

LEGS_MAX: Final = 500
WAIT_MAX_S: Final = 80.0  # psrpc's limit for wait_until_answered (livekit-server pkg/service/sip.go)
RINGING_DEFAULT_S: Final = 180.0
DURATION_DEFAULT_S: Final = 86_400.0
SHUTDOWN_S: Final = 15.0
_CALLING: Final = frozenset({"CreateSIPParticipant", "TransferSIPParticipant"})
"""Methods of those who call; the others are an administrator's."""
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length"})


class Carrier:
    """The legs, the trunks and the HTTP routes; everything a test needs to run one in process."""

    def __init__(
        self,
        exchange: Exchange,
        script: faults.Script,
        media_timeout_s: float = 30.0,
        *,
        signalling: bool = False,
        egress_url: str = "",
    ) -> None:
        self._egress_url = egress_url
        self._exchange, self._media_timeout_s, self._signalling = exchange, media_timeout_s, signalling
        self._verifier = api.TokenVerifier(exchange.api_key, exchange.api_secret)
        self._trunks = Trunks(exchange.directory / "trunks.json")
        self._dialed = Counter(dial.number for dial in dials_of(exchange.directory / "witness.jsonl"))
        self._legs: dict[str, tuple[Leg, asyncio.Task[None]]] = {}
        self._behind: aiohttp.ClientSession | None = None
        self._signals: aiohttp.ClientSession | None = None
        self._script = script
        self._methods: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
            "CreateSIPParticipant": self._create_participant,
            "TransferSIPParticipant": self._transfer_participant,
            "CreateSIPOutboundTrunk": self._create_trunk,
            "UpdateSIPOutboundTrunk": self._update_trunk,
            "ListSIPOutboundTrunk": self._list_trunks,
            "DeleteSIPTrunk": self._delete_trunk,
        }

    def app(self) -> web.Application:
        """The aiohttp application; its shutdown ends every leg."""
        # A client that goes away must not cancel a dial: handlers run to their end (aiohttp's default).
        app = web.Application(middlewares=[faults.middleware(self._script, _place)], client_max_size=8 * 2**20)
        app.router.add_post("/twirp/livekit.SIP/{method}", self._sip)
        app.router.add_post("/twirp/livekit.Egress/{method}", self._egress)
        app.router.add_get("/rehearsal/calls", self._calls)
        app.router.add_get("/rehearsal/health", self._health)
        app.router.add_route("*", "/{tail:.*}", self._pass_through)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._stop)
        return app

    async def _start(self, _: web.Application) -> None:
        self._behind = aiohttp.ClientSession(auto_decompress=False)
        self._signals = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def _stop(self, _: web.Application) -> None:
        """Hang up every phone (witnessed as `shutdown`), then let go of livekit-server."""
        tasks = [task for _leg, task in self._legs.values()]
        for leg, _task in self._legs.values():
            leg.hang_up(EndedBy.SHUTDOWN)
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN_S)
        for session in (self._behind, self._signals):
            if session is not None:
                await session.close()

    async def _sip(self, request: web.Request) -> web.Response:
        name = request.match_info["method"]
        try:
            return await self._permitted(request, name)(request)
        except TwirpError as error:
            return error.response()

    def _permitted(self, request: web.Request, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        """The method's handler. Raises: TwirpError for an unknown method or a token without its grant."""
        if name not in self._methods:
            raise TwirpError("unimplemented", "this carrier has no such method")
        granted = twirp.grants(request, self._verifier)
        if not (granted.call if name in _CALLING else granted.admin):
            raise TwirpError("unauthenticated", "permissions denied")
        return self._methods[name]

    # -- dialing ------------------------------------------------------------------------------------------------------

    async def _create_participant(self, request: web.Request) -> web.Response:
        dial = await twirp.read(request, sip.CreateSIPParticipantRequest)
        order = self._order(dial)
        if len(self._legs) >= LEGS_MAX:
            raise TwirpError("unavailable", "no response from servers")
        persona = persona_of(order.number)
        refusal = refusal_of(persona, self._dialed[order.number])
        leg = self._leg(order, persona, refusal)
        try:
            await leg.join()
        except JoinRefusedError:
            return _failed(OUTCOMES["room_join_failed"])
        self._dialed[order.number] += 1
        info = sip.SIPParticipantInfo(
            participant_id=leg.participant_sid,
            participant_identity=order.identity,
            room_name=order.room,
            sip_call_id=order.dial_id,
        )
        self._launch(leg)
        if dial.wait_until_answered:
            await asyncio.wait([leg.answered], timeout=WAIT_MAX_S)
            outcome = leg.answered.result() if leg.answered.done() else OUTCOMES["request_timed_out"]
            if outcome is not None:
                return _failed(outcome)
        return twirp.answer(request, info)

    async def _transfer_participant(self, request: web.Request) -> web.Response:
        asked = await twirp.read(request, sip.TransferSIPParticipantRequest)
        if not twirp.is_room_admin(request, self._verifier, asked.room_name):
            raise TwirpError("unauthenticated", "permissions denied")
        refused = await transfers.transfer(asked, [leg for leg, _ in self._legs.values()])
        return transfers.refusal(refused) if refused is not None else twirp.answer(request, Empty())

    def _leg(self, order: Order, persona: Persona, refusal: SipOutcome | None) -> Leg:
        if not self._signalling:
            return Leg(order, persona, refusal, self._exchange)
        assert self._signals is not None  # set at start-up
        return SignalledLeg(order, persona, refusal, self._exchange, self._signals)

    def _launch(self, leg: Leg) -> None:
        task = asyncio.create_task(leg.run(), name=leg.order.dial_id)
        self._legs[leg.order.dial_id] = (leg, task)

        def over(done: asyncio.Task[None]) -> None:
            self._legs.pop(leg.order.dial_id, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("a leg ended by a fault of the carrier", exc_info=error)

        task.add_done_callback(over)

    def _order(self, dial: sip.CreateSIPParticipantRequest) -> Order:
        """Read the request as livekit-server does (livekit/protocol rpc/sip.go). Raises: TwirpError."""
        inline = dial.HasField("trunk")
        if not dial.sip_trunk_id and not inline and not dial.sip_number:
            raise TwirpError("invalid_argument", "missing sip trunk id and sip number")
        if not dial.sip_call_to:
            raise TwirpError("invalid_argument", "missing sip callee number")
        if "@" in dial.sip_call_to or sum(c.isdigit() for c in dial.sip_call_to) < 2:
            raise TwirpError("invalid_argument", "SipCallTo should be a phone number or SIP user, not a full SIP URI")
        if not dial.room_name:
            raise TwirpError("invalid_argument", "missing room name")
        trunk = self._trunks.get(dial.sip_trunk_id) if dial.sip_trunk_id else None
        numbers = list(trunk.numbers) if trunk is not None else []
        if not dial.sip_number and not numbers:
            raise TwirpError("failed_precondition", "no numbers on outbound trunk")
        dial_id = f"SCL_{secrets.token_hex(6)}"
        attributes = dict(dial.participant_attributes)
        attributes |= {"sip.callID": dial_id, "sip.trunkID": dial.sip_trunk_id, "sip.callIDFull": secrets.token_hex(16)}
        if not dial.hide_phone_number:
            hostname = trunk.address if trunk is not None else dial.trunk.hostname
            caller = dial.sip_number or secrets.choice(numbers)
            attributes |= {
                "sip.phoneNumber": dial.sip_call_to,
                "sip.hostname": hostname,
                "sip.trunkPhoneNumber": caller,
            }
        headers = {**(dict(trunk.headers) if trunk is not None else {}), **dial.headers}
        media = dial.media.media_timeout.ToTimedelta().total_seconds() if dial.media.HasField("media_timeout") else 0.0
        return Order(
            dial_id=dial_id,
            attempt_id=headers.get(ATTEMPT_HEADER, ""),
            number=dial.sip_call_to,
            room=dial.room_name,
            identity=dial.participant_identity or f"sip_{dial.sip_call_to}",
            name=dial.participant_name,
            metadata=dial.participant_metadata,
            attributes=attributes,
            ringing_timeout_s=dial.ringing_timeout.ToTimedelta().total_seconds() or RINGING_DEFAULT_S,
            max_call_duration_s=dial.max_call_duration.ToTimedelta().total_seconds() or DURATION_DEFAULT_S,
            media_timeout_s=media or self._media_timeout_s,
        )

    # -- trunks -------------------------------------------------------------------------------------------------------

    async def _create_trunk(self, request: web.Request) -> web.Response:
        return twirp.answer(request, self._trunks.create(await twirp.read(request, sip.CreateSIPOutboundTrunkRequest)))

    async def _update_trunk(self, request: web.Request) -> web.Response:
        return twirp.answer(request, self._trunks.update(await twirp.read(request, sip.UpdateSIPOutboundTrunkRequest)))

    async def _list_trunks(self, request: web.Request) -> web.Response:
        asked = await twirp.read(request, sip.ListSIPOutboundTrunkRequest)
        return twirp.answer(request, sip.ListSIPOutboundTrunkResponse(items=self._trunks.list(asked)))

    async def _delete_trunk(self, request: web.Request) -> web.Response:
        asked = await twirp.read(request, sip.DeleteSIPTrunkRequest)
        return twirp.answer(request, self._trunks.delete(asked.sip_trunk_id))

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def _calls(self, _: web.Request) -> web.Response:
        return web.json_response([_shown(leg) for leg, _ in self._legs.values()])

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "legs": len(self._legs), "dials": self._dialed.total()})

    async def _egress(self, request: web.Request) -> web.StreamResponse:
        if not self._egress_url:  # as a server without an egress behind it
            return TwirpError("unavailable", "no response from servers").response()
        return await self._passed_on(request, self._egress_url)

    async def _pass_through(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade"):
            return web.Response(status=501, text="rooms are joined at livekit-server itself, not through the carrier")
        return await self._passed_on(request, self._exchange.livekit_url.replace("ws", "http", 1).rstrip("/"))

    async def _passed_on(self, request: web.Request, base: str) -> web.Response:
        assert self._behind is not None  # set at start-up
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        body = await request.read()
        try:
            async with self._behind.request(
                request.method,
                base + request.raw_path,
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(120),
            ) as reply:
                kept = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP_BY_HOP}
                return web.Response(status=reply.status, body=await reply.read(), headers=kept)
        except aiohttp.ClientConnectionError:
            return web.Response(status=502, text="what is behind the carrier cannot be reached")


def _place(request: web.Request) -> str | None:
    """Where a request stands in a script of faults."""
    return f"carrier.{request.path.rsplit('/', 1)[-1]}" if request.path.startswith("/twirp/") else None


def _failed(outcome: SipOutcome) -> web.Response:
    return web.json_response(outcome.body, status=outcome.http_status)


def _shown(leg: Leg) -> dict[str, Any]:
    order = leg.order
    return {
        "dial_id": order.dial_id,
        "attempt_id": order.attempt_id,
        "room": order.room,
        "status": leg.status,
        "persona": leg.persona.name,
        "number": masked(order.number),
    }


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.carrier",
        description="A telephone carrier on loopback: point the dialer's LIVEKIT_URL for API calls at it, and numbers "
        "ring phones in the livekit-server behind it. The last two digits of a number choose who picks up: 00-09 "
        "answers, 10-19 answers late, 20-29 busy, 30-39 declines, 40-49 no answer, 50-59 not found, 60-69 blocked, "
        "70-79 trunk overloaded once, 80-89 hangs up early, 90-99 never sends audio. Area codes 646 (English) and 917 "
        "(Spanish) have phones that follow a script instead, see `python -m rehearsal --help`.",
        epilog="Keys: LIVEKIT_API_KEY and LIVEKIT_API_SECRET. Files in --dir: witness.jsonl (every INVITE), "
        "heard/<attempt id>.json and .wav (what answered phones heard), talks/ (what phones with a script said), trunks.json.",
    )
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 = any free one, which is printed")
    parser.add_argument("--livekit-url", required=True, help="the real livekit-server, for example ws://127.0.0.1:7880")
    parser.add_argument("--egress-url", default="", help="where `rehearsal.egress` listens; without one there is none")
    parser.add_argument("--dir", type=Path, required=True, help="where the witness, the trunks and recordings are kept")
    parser.add_argument("--faults", type=Path, help="a script of faults (see rehearsal/faults.py)")
    parser.add_argument("--media-timeout-s", type=float, default=30.0, help="silent line until a drop (default 30)")
    parser.add_argument("--signalling", action="store_true", help="phones without media: hundreds of calls at once")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then hang up every phone."""
    asked = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    key, secret = os.environ.get("LIVEKIT_API_KEY"), os.environ.get("LIVEKIT_API_SECRET")
    if not key or not secret:
        raise SystemExit("set LIVEKIT_API_KEY and LIVEKIT_API_SECRET to the keys of the livekit-server")
    phone.warm_up()
    with Witness(asked.dir / "witness.jsonl") as witness:
        exchange = Exchange(
            livekit_url=asked.livekit_url, api_key=key, api_secret=secret, witness=witness, directory=asked.dir
        )
        script = faults.script_from(asked.faults)
        carrier = Carrier(
            exchange, script, asked.media_timeout_s, signalling=asked.signalling, egress_url=asked.egress_url
        )
        serving.run(carrier.app(), asked.port, "carrier")


if __name__ == "__main__":
    main()
