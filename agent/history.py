"""What was said so far, for the agent API and for the log: there as words, here sealed under the callee's own key."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any, Final, Literal

from livekit.agents.llm import ChatContext, FunctionCall, FunctionCallOutput, FunctionToolCall

from runtime.seal import DataKey, aad, data_key
from schemas.brief import Brief
from schemas.facts import DtmfReceived, TurnTaken
from schemas.values import Sealed, callee_of

ITEMS_MAX: Final = 60
"""What the agent API is told of a long conversation: its end."""

Say = Callable[..., None]
"""`say(kind, **fields)`, as `Reporter.say`."""


class History:
    """One conversation's words."""

    def __init__(self, brief: Brief, say: Say) -> None:
        self._say = say
        self._callee = callee_of(brief.call_id)
        self._key: DataKey = data_key(brief.data_key_id, base64.urlsafe_b64decode(brief.data_key))
        self._context = ChatContext.empty()

    @property
    def context(self) -> ChatContext:
        """Return what the agent API is told: it never begins with the result of a call that it is not told."""
        items = list(self._context.items[-ITEMS_MAX:])
        while items and items[0].type == "function_call_output":
            items.pop(0)
        return ChatContext(items)

    def callee(self, words: str) -> None:
        """The callee said something."""
        self._context.add_message(role="user", content=words)
        self._turn("callee", words)

    def agent(self, words: str, spoken_ms: int, *, whole: bool, reply_ms: int | None = None, told: bool = True) -> None:
        """The agent did; `told` is False for what the agent API need not know of."""
        if told:
            self._context.add_message(role="assistant", content=words, interrupted=not whole)
        self._turn("agent", words, spoken_ms=spoken_ms, reply_ms=reply_ms)

    def key(self, digit: str) -> None:
        """The callee pressed a key."""
        self._say(DtmfReceived, digit=self._sealed(DtmfReceived.TYPE, "digit", digit))

    def called(self, call: FunctionToolCall, result: str, *, refused: bool) -> None:
        """The agent API asked for something, and this came of it."""
        self._context.items.append(FunctionCall(call_id=call.call_id, name=call.name, arguments=call.arguments))
        self._context.items.append(
            FunctionCallOutput(call_id=call.call_id, name=call.name, output=result, is_error=refused)
        )

    def _turn(self, speaker: Literal["agent", "callee"], words: str, **fields: Any) -> None:
        self._say(TurnTaken, speaker=speaker, text=self._sealed(TurnTaken.TYPE, "text", words), **fields)

    def _sealed(self, kind: str, field: str, plain: str) -> Sealed:
        return self._key.seal(plain.encode(), aad(self._callee, kind, field), os.urandom)
