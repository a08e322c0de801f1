"""The external agent as an `llm.LLM`: OpenAI-compatible chat completions, streamed, one try a stream.

A turn's tries carry one `Idempotency-Key`, so that an agent API which keeps state takes them for one. Whether another
try is made is the conversation's to say: it alone knows whether anything was spoken. Error texts are codes of our own;
what the API said is in none of them. Source: platform.openai.com (chat completions, streaming); reference/livekit.md 2.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
    NotGivenOr,
)
from livekit.agents.llm import (
    LLM,
    ChatChunk,
    ChatContext,
    ChoiceDelta,
    FunctionToolCall,
    LLMStream,
    Tool,
    ToolChoice,
)

from runtime.settings import Secret
from schemas import conversation

REPLY_CHARS_MAX: Final = 2_000
"""Of one reply: more is not spoken, and not waited for."""
ARGUMENTS_CHARS_MAX: Final = 1_000
CALLS_MAX: Final = 4
LINE_BYTES_MAX: Final = 64 * 1024
CLOSE_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Which attempt speaks, as the API may know it: no number, no name."""

    campaign_id: str
    call_id: str
    attempt: int
    language: str
    destinations: tuple[str, ...]

    @property
    def introduction(self) -> str:
        """Return the system message."""
        told = f"campaign_id={self.campaign_id} call_id={self.call_id} attempt={self.attempt} language={self.language}"
        return f"{told} transfer_to={','.join(self.destinations)}" if self.destinations else told


class AgentApi(LLM[Any]):
    """One campaign's agent API, for one call."""

    def __init__(
        self, definition: conversation.AgentApi, caller: Caller, key: Secret, http: aiohttp.ClientSession
    ) -> None:
        super().__init__()
        self.definition, self.caller, self.key, self.http = definition, caller, key, http
        self.turn = 0
        """The turn that is answered; the conversation counts it up."""

    @property
    def model(self) -> str:
        """Return the model's name, as the campaign gives it."""
        return self.definition.model

    @property
    def provider(self) -> str:
        """Return whose it is."""
        return "agent_api"

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,  # noqa: ARG002
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,  # noqa: ARG002
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,  # noqa: ARG002
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,  # noqa: ARG002
    ) -> Completion:
        """Ask for the answer to what was said last; one try, whatever `conn_options` say."""
        options = APIConnectOptions(max_retry=0, timeout=self.definition.timeout_s)
        return Completion(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=options)

    def body(self, chat_ctx: ChatContext) -> dict[str, Any]:
        """Write the request."""
        messages, _ = chat_ctx.to_provider_format("openai")
        introduction = {"role": "system", "content": self.caller.introduction}
        return {
            "model": self.model,
            "stream": True,
            "messages": [introduction, *messages],
            "tools": tools_for(self.caller.destinations),
        }

    def headers(self) -> dict[str, str]:
        """Write its headers; every try of a turn has the same."""
        caller = self.caller
        told = {"Idempotency-Key": f"{caller.call_id}-{caller.attempt}-{self.turn}", "Accept": "text/event-stream"}
        return told | ({"Authorization": f"Bearer {self.key.reveal()}"} if self.key else {})


class Completion(LLMStream):
    """One streamed answer. Raises from iteration: APIError, of which `code_of` makes a code."""

    def __init__(
        self, api: AgentApi, *, chat_ctx: ChatContext, tools: list[Tool], conn_options: APIConnectOptions
    ) -> None:
        super().__init__(api, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)
        self._api = api

    async def _run(self) -> None:
        url = f"{self._api.definition.url.rstrip('/')}/chat/completions"
        timeout_s = self._api.definition.timeout_s
        # `total` is left out: every wait for a token is bounded by itself, and the reply by its length.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s)
        body = orjson.dumps(self._api.body(self._chat_ctx))
        headers = self._api.headers() | {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._api.http.post(url, data=body, headers=headers, timeout=timeout)
            async with response:
                if response.status != 200:
                    raise APIStatusError("status", status_code=response.status)
                await self._read(response, timeout_s)
        except TimeoutError:
            raise APITimeoutError("timeout") from None
        except (aiohttp.ClientError, ConnectionError):
            raise APIConnectionError("connection") from None

    async def _read(self, response: aiohttp.ClientResponse, timeout_s: float) -> None:
        calls: dict[int, _Call] = {}
        length, whole = 0, False
        async for event in _events(response, timeout_s):
            if event is None:
                whole = True
                break
            for choice in event:
                delta = choice.get("delta") or {}
                if text := delta.get("content"):
                    length += len(text)
                    self._send(ChoiceDelta(role="assistant", content=text))
                for piece in delta.get("tool_calls") or ():
                    _collect(calls, piece)
                whole = whole or choice.get("finish_reason") is not None
            if length > REPLY_CHARS_MAX:
                whole = True
                break
        if not whole:
            raise APIConnectionError("cut")
        if calls:
            self._send(ChoiceDelta(role="assistant", tool_calls=[call.whole(n) for n, call in sorted(calls.items())]))

    def _send(self, delta: ChoiceDelta) -> None:
        self._event_ch.send_nowait(ChatChunk(id=str(self._api.turn), delta=delta))


@dataclass(slots=True)
class _Call:
    """A tool call that comes in pieces."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def whole(self, number: int) -> FunctionToolCall:
        return FunctionToolCall(name=self.name, arguments="".join(self.arguments), call_id=self.id or f"call_{number}")


def _collect(calls: dict[int, _Call], piece: dict[str, Any]) -> None:
    number = int(piece.get("index", 0))
    if number not in calls and len(calls) >= CALLS_MAX:
        raise _garbage()
    call, told = calls.setdefault(number, _Call()), piece.get("function") or {}
    call.id = piece.get("id") or call.id
    call.name = told.get("name") or call.name
    call.arguments.append(str(told.get("arguments") or ""))
    if sum(map(len, call.arguments)) > ARGUMENTS_CHARS_MAX:
        raise _garbage()


async def _events(response: aiohttp.ClientResponse, timeout_s: float) -> AsyncIterator[list[dict[str, Any]] | None]:
    """Read server-sent events: the choices of each, and None for `[DONE]`. Raises: APIError for anything else."""
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                line = await response.content.readline()
        except ValueError:  # aiohttp's word for a line that is too long
            raise _garbage() from None
        if not line:
            return
        if len(line) > LINE_BYTES_MAX:
            raise _garbage()
        if not line.startswith(b"data:"):
            if line.strip() and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                raise _garbage()
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            yield None
            return
        yield _choices(data)


def _choices(data: bytes) -> list[dict[str, Any]]:
    try:
        choices = orjson.loads(data)["choices"]
        if not all(isinstance(choice, dict) for choice in choices):
            raise _garbage()
        if not all(isinstance((c.get("delta") or {}).get("content") or "", str) for c in choices):
            raise _garbage()
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise _garbage() from None
    return list(choices)


def _garbage() -> APIError:
    return APIError("garbage")


def code_of(error: APIError) -> str:
    """Say how it failed."""
    if isinstance(error, APIStatusError):
        return f"status_{error.status_code}"
    if isinstance(error, APITimeoutError):
        return "timeout"
    return str(error.message)


def tools_for(destinations: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what the agent API may ask for besides speaking, as OpenAI's function tools."""
    tools = [
        _tool("end_call", "End the call after what is said with it."),
        _tool("send_dtmf", "Press keys.", digits={"type": "string", "pattern": "^[0-9*#]{1,32}$"}),
    ]
    if destinations:
        where = {"type": "string", "enum": list(destinations)}
        tools.append(_tool("transfer_call", "Hand the callee over after what is said with it.", destination=where))
    return tools


def _tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
