"""The speech service: Deepgram's protocol, spoken by espeak-ng, and truly heard.

    python -m rehearsal.speech --help

`/v1/speak` (WebSocket and POST) speaks text between two in-band marks. `/v1/listen` (WebSocket) decodes the marks in
what it is sent, compares the sound between them with the text they name, and returns that text only if it was really
there; audio without marks gives empty transcripts. It knows the texts that it has spoken and those registered with
`POST /rehearsal/phrases {"phrases": ["Hello?", …]}`.
Source: developers.deepgram.com (text-to-speech and live-audio references); `reference/livekit.md` 3.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web

from rehearsal import faults, listening, marks, personas, serving
from rehearsal.espeak import Samples, synthesize

log = logging.getLogger(__name__)

TEXT_MAX: Final = 8_000
"""Characters in one utterance; a longer one is refused (Deepgram refuses 2,000)."""
PHRASES_MAX: Final = 10_000
CHUNK_MS: Final = 100
HEARTBEAT_S: Final = 30.0
_RATES: Final = (8_000, 16_000, 24_000, 32_000, 48_000)


class Phrases:
    """The texts that can be recognised, by their code; the oldest are forgotten beyond `PHRASES_MAX`."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts: OrderedDict[int, str] = OrderedDict()
        for text in texts:
            self.add(text)

    def add(self, text: str) -> int:
        """Remember a text; returns its code."""
        code = marks.code_of(text)
        self._texts[code] = text
        self._texts.move_to_end(code)
        if len(self._texts) > PHRASES_MAX:
            self._texts.popitem(last=False)
        return code

    def get(self, code: int) -> str | None:
        """The text of a code; None when it is not known."""
        return self._texts.get(code)


class Speech:
    """The routes and the phrases they share."""

    def __init__(self, script: faults.Script) -> None:
        self._script = script
        self._phrases = Phrases(personas.lines())
        self._open: set[web.WebSocketResponse] = set()

    def app(self) -> web.Application:
        """The aiohttp application; its shutdown closes every WebSocket."""
        checks = [_authorized, faults.middleware(self._script, _place)]
        app = web.Application(middlewares=checks, client_max_size=2**20)
        app.router.add_get("/v1/speak", self._speak_stream)
        app.router.add_post("/v1/speak", self._speak_once)
        app.router.add_get("/v1/listen", self._listen)
        app.router.add_post("/rehearsal/phrases", self._register)
        app.router.add_get("/rehearsal/health", _health)
        app.on_shutdown.append(self._stop)
        return app

    async def _stop(self, _: web.Application) -> None:
        await asyncio.gather(*(ws.close(code=1001) for ws in list(self._open)), return_exceptions=True)

    async def _register(self, request: web.Request) -> web.Response:
        body = await request.json()
        phrases = body.get("phrases") if isinstance(body, dict) else None
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
            return _error(400, "INVALID_REQUEST", 'send {"phrases": ["…"]}')
        return web.json_response({"codes": [self._phrases.add(phrase) for phrase in phrases]})

    # -- speaking -----------------------------------------------------------------------------------------------------

    async def _utter(self, text: str, sample_rate: int, language: str) -> Samples:
        self._phrases.add(text)
        spoken = await asyncio.to_thread(synthesize, text, sample_rate, language)
        return marks.enclose(spoken, text, sample_rate)

    async def _speak_once(self, request: web.Request) -> web.StreamResponse:
        if (wrong := _unspeakable(request)) is not None:
            return wrong
        try:
            body = await request.json()
        except json.JSONDecodeError:
            return _error(400, "INVALID_REQUEST", "the body is not JSON")
        text = body.get("text") if isinstance(body, dict) else None
        if not isinstance(text, str) or not text.strip():
            return _error(400, "INVALID_REQUEST", "`text` is missing or empty")
        if len(text) > TEXT_MAX:
            return _error(413, "INPUT_TEXT_TOO_LONG", f"`text` has more than {TEXT_MAX} characters")
        rate = _rate(request)
        sound = await self._utter(text, rate, _language(request))
        response = web.StreamResponse(headers={"Content-Type": "audio/pcm", "dg-request-id": secrets.token_hex(8)})
        await response.prepare(request)
        for chunk in _chunks(sound, rate):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _speak_stream(self, request: web.Request) -> web.StreamResponse:
        if (wrong := _unspeakable(request)) is not None:
            return wrong
        ws = await self._accept(request)
        request_id, rate = secrets.token_hex(8), _rate(request)
        await ws.send_json({"type": "Metadata", "request_id": request_id, "model_name": request.query.get("model", "")})
        text, flushed = "", 0
        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                continue
            told = json.loads(message.data)
            match told.get("type"):
                case "Speak":
                    text += str(told.get("text", ""))
                    if len(text) > TEXT_MAX:
                        await ws.send_json({"type": "Error", "err_code": "TEXT_TOO_LONG", "err_msg": "text too long"})
                        break
                case "Clear":
                    text = ""
                    await ws.send_json({"type": "Cleared", "sequence_id": flushed})
                case "Flush":
                    await self._flush(ws, text, rate, _language(request))
                    await ws.send_json({"type": "Flushed", "sequence_id": flushed})
                    text, flushed = "", flushed + 1
                case "Close":
                    break
                case _:
                    await ws.send_json({"type": "Warning", "warn_code": "UNKNOWN_TYPE", "warn_msg": "unknown type"})
        await self._done(ws)
        return ws

    async def _flush(self, ws: web.WebSocketResponse, text: str, rate: int, language: str) -> None:
        """Speak what was sent since the last flush, as one utterance; nothing for nothing."""
        if text.strip():
            for chunk in _chunks(await self._utter(text, rate, language), rate):
                await ws.send_bytes(chunk)

    # -- hearing ------------------------------------------------------------------------------------------------------

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("encoding", "linear16") != "linear16" or _rate(request, 16_000) not in _RATES:
            return _error(400, "INVALID_QUERY_PARAMETER", "encoding must be linear16, sample_rate one of its rates")
        ws = await self._accept(request)
        listener = listening.Listener(
            _rate(request, 16_000),
            request.query.get("language", "en-US"),
            self._phrases.get,
            vad_events=request.query.get("vad_events", "false") == "true",
            utterance_end="utterance_end_ms" in request.query,
        )
        async for message in ws:
            answers: list[dict[str, Any]] = []
            if message.type is WSMsgType.BINARY:
                answers = await listener.hear(message.data)
            elif message.type is WSMsgType.TEXT:
                told = json.loads(message.data).get("type")
                if told in ("Finalize", "CloseStream"):
                    answers = await listener.finalize()
                if told == "CloseStream":
                    answers.append(listener.metadata())
            for answer in answers:
                await ws.send_json(answer)
            if answers and answers[-1]["type"] == "Metadata":
                break
        await self._done(ws)
        return ws

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=2**20)
        await ws.prepare(request)
        self._open.add(ws)
        return ws

    async def _done(self, ws: web.WebSocketResponse) -> None:
        self._open.discard(ws)
        await ws.close()


@web.middleware
async def _authorized(request: web.Request, handler: faults.Handler) -> web.StreamResponse:
    """Deepgram's own check: `Authorization: Token <key>`, any key; the rehearsal's own routes need none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if request.path.startswith("/v1/") and (scheme != "Token" or not key):
        return _error(401, "INVALID_AUTH", "send the header `Authorization: Token <key>`")
    return await handler(request)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"err_code": code, "err_msg": message}, status=status)


def _place(request: web.Request) -> str | None:
    """Where a request stands in a script of faults."""
    return {"/v1/speak": "speech.speak", "/v1/listen": "speech.listen"}.get(request.path)


def _rate(request: web.Request, default: int = 24_000) -> int:
    asked = request.query.get("sample_rate", str(default))
    return int(asked) if asked.isdigit() else 0


def _language(request: web.Request) -> str:
    """The language of a voice: the end of its model's name ("aura-2-celeste-es")."""
    return request.query.get("model", "").rpartition("-")[2] or "en-US"


def _unspeakable(request: web.Request) -> web.Response | None:
    """The refusal of a format that is not spoken here."""
    if request.query.get("encoding", "linear16") != "linear16" or request.query.get("container", "none") != "none":
        return _error(400, "UNSUPPORTED_AUDIO_FORMAT", "only encoding=linear16 and container=none are spoken here")
    if _rate(request) not in _RATES:
        return _error(400, "UNSUPPORTED_AUDIO_FORMAT", f"sample_rate must be one of {', '.join(map(str, _RATES))}")
    return None


def _chunks(sound: Samples, sample_rate: int) -> Iterable[bytes]:
    size = sample_rate * CHUNK_MS // 1000
    return (sound[start : start + size].tobytes() for start in range(0, len(sound), size))


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.speech",
        description="A speech service that talks Deepgram's protocol on loopback: give livekit-plugins-deepgram "
        "base_url=http://127.0.0.1:PORT/v1/speak (TTS) and ws://127.0.0.1:PORT/v1/listen (STT), and any api_key.",
    )
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 = any free one, which is printed")
    parser.add_argument("--faults", type=Path, help="a script of faults (see rehearsal/faults.py)")
    asked = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serving.run(Speech(faults.script_from(asked.faults)).app(), asked.port, "speech")


if __name__ == "__main__":
    main()
