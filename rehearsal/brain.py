"""The brain: an agent API as a campaign's own team would run one, with scripted dialogues and faults to choose.

    python -m rehearsal.brain --help

`POST /v1/chat/completions` in OpenAI's protocol, streamed. `model` is `{dialogue}` or `{dialogue}+{fault}`: which
dialogue it holds (`scheduler`, `scheduler-es`, …; `rehearsal/dialogues.yaml`), and which fault every answer has; a fault
with a number strikes that many first turns only (`scheduler+error-1`). What it says depends on the callee's last words
alone, so that a script needs no state; a repeated `Idempotency-Key` has its answer again, and is counted.
`GET /rehearsal/calls` tells what was asked. Source: platform.openai.com (chat completions, streaming).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from aiohttp import web

from rehearsal import faults, serving

ANSWERS_MAX: Final = 10_000
"""Idempotency keys that are remembered; the oldest are forgotten."""
SLOW_TOKEN_S: Final = 0.4
STALL_S: Final = 30.0
STALL_LOOK_S: Final = 0.1
FAULTS: Final = frozenset({"error", "timeout", "cut", "garbage", "slow", "stall"})
"""500; no answer; a stream that ends in mid-sentence; no JSON; a token now and then; a stream that stops giving any."""
_SCRIPT: Final = Path(__file__).with_name("dialogues.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing to answer: words of the callee that ask for it, what is said, and what else is done."""

    hears: re.Pattern[str] | None
    says: str = ""
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(slots=True)
class Asked:
    """What came in about one turn of a call."""

    key: str
    model: str
    requests: int = 0
    roles: list[str] = field(default_factory=list)


def folded(text: str) -> str:
    """Write words as a dialogue's patterns expect them: lower case, no accents, no punctuation."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalnum() else " " for c in plain).split())


def read_dialogues(path: Path = _SCRIPT) -> dict[str, tuple[Line, ...]]:
    """Read the dialogues: per name, lines in order; the first whose `hears` is found in the last words is said."""
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: tuple(_line(row) for row in rows) for name, rows in told.items()}


def _line(row: dict[str, Any]) -> Line:
    hears = row.get("hears")
    tools = tuple((next(iter(tool)), next(iter(tool.values())) or {}) for tool in row.get("tools", ()))
    return Line(hears=re.compile(rf"\b(?:{hears})\b") if hears else None, says=row.get("says", ""), tools=tools)


def answer(lines: tuple[Line, ...], messages: list[dict[str, Any]]) -> Line:
    """Choose what is said: by the result of a tool where there is one last, else by the callee's last words."""
    last = messages[-1] if messages else {}
    words = str(last.get("content") or "")
    heard = f"tool {folded(words)}" if last.get("role") == "tool" else folded(words)
    for line in lines:
        if line.hears is None or line.hears.search(heard):
            return line
    return lines[-1]


class Brain:
    """The route, the dialogues and what was asked so far."""

    def __init__(self, script: faults.Script, dialogues: dict[str, tuple[Line, ...]]) -> None:
        self._script, self._dialogues = script, dialogues
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._lines: dict[str, Line] = {}
        self._turns: dict[str, int] = {}

    def app(self) -> web.Application:
        """The aiohttp application."""
        meets = faults.middleware(self._script, lambda r: "brain.chat" if r.path.startswith("/v1/") else None)
        app = web.Application(middlewares=[meets], client_max_size=2**20)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/rehearsal/calls", self._calls)
        app.router.add_get("/rehearsal/health", _health)
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            model, messages = str(body["model"]), list(body["messages"])
        except (json.JSONDecodeError, KeyError, TypeError):
            return _error(400, "invalid_request_error", "send a chat completion request")
        if body.get("stream") is not True:
            return _error(400, "invalid_request_error", "only `stream: true` is answered here")
        dialogue, _, fault = model.partition("+")
        if dialogue not in self._dialogues:
            return _error(404, "model_not_found", "no such dialogue")
        key = request.headers.get("Idempotency-Key", "")
        line = self._line(key, dialogue, messages)
        asked = self._asked.setdefault(key, Asked(key=key, model=model))
        asked.requests += 1
        asked.roles = [str(message.get("role")) for message in messages]
        try:
            return await self._answer(request, line, self._fault(fault, key))
        except ConnectionResetError:  # whoever asked has gone: it was cancelled, or waited long enough
            return web.Response(status=499)

    def _line(self, key: str, dialogue: str, messages: list[dict[str, Any]]) -> Line:
        """The answer to a turn: of a key that was seen before, the same again."""
        if key not in self._lines:
            self._lines[key] = answer(self._dialogues[dialogue], messages)
            call = key.rpartition("-")[0]
            self._turns[key] = sum(1 for other in self._asked if other.rpartition("-")[0] == call) + 1
        while len(self._asked) > ANSWERS_MAX:
            forgotten, _ = self._asked.popitem(last=False)
            self._lines.pop(forgotten, None)
            self._turns.pop(forgotten, None)
        return self._lines[key]

    def _fault(self, fault: str, key: str) -> str:
        name, _, turns = fault.partition("-")
        return name if name in FAULTS and (not turns or self._turns[key] <= int(turns)) else ""

    async def _answer(self, request: web.Request, line: Line, fault: str) -> web.StreamResponse:
        if fault == "error":
            return _error(500, "server_error", "a fault on order")
        if fault == "timeout":
            await _stall(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        if fault == "garbage":
            await response.write(b"data: {this is no JSON\n\n")
            return response
        tokens = re.findall(r"\S+\s*", line.says)
        if fault in ("cut", "stall"):
            tokens = tokens[: max(1, len(tokens) // 3)]
        for token in tokens:
            await response.write(_event({"content": token}))
            if fault == "slow":
                await asyncio.sleep(SLOW_TOKEN_S)
        if fault == "stall":
            await _stall(request)
        if fault != "cut":
            await self._finish(response, line)
        await response.write_eof()
        return response

    async def _finish(self, response: web.StreamResponse, line: Line) -> None:
        for number, (name, arguments) in enumerate(line.tools):
            text = json.dumps(arguments)
            half = len(text) // 2
            about = {"index": number, "id": f"call_{number}", "type": "function"}
            await response.write(_event({"tool_calls": [about | {"function": {"name": name, "arguments": ""}}]}))
            for part in (text[:half], text[half:]):
                await response.write(_event({"tool_calls": [{"index": number, "function": {"arguments": part}}]}))
        await response.write(_event({}, finish="tool_calls" if line.tools else "stop"))
        await response.write(b"data: [DONE]\n\n")

    async def _calls(self, _: web.Request) -> web.Response:
        """Tell of each turn how often it was asked, and who had spoken by then; no word of what."""
        told = [
            {"key": asked.key, "model": asked.model, "requests": asked.requests, "roles": asked.roles}
            for asked in self._asked.values()
        ]
        return web.json_response({"turns": told, "repeated": sum(turn.requests > 1 for turn in self._asked.values())})


async def _stall(request: web.Request) -> None:
    """Give no answer for as long as anybody waits for one."""
    for _ in range(round(STALL_S / STALL_LOOK_S)):
        if request.transport is None:
            return
        await asyncio.sleep(STALL_LOOK_S)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": kind, "param": None, "code": None}}, status=status)


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.brain",
        description="An OpenAI-compatible agent API on loopback with scripted dialogues: url http://127.0.0.1:PORT/v1.",
    )
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 = any free one, which is printed")
    parser.add_argument("--faults", type=Path, help="a script of faults (see rehearsal/faults.py), at `brain.chat`")
    asked = parser.parse_args(argv)
    serving.run(Brain(faults.script_from(asked.faults), read_dialogues()).app(), asked.port, "brain")


if __name__ == "__main__":
    main()
