"""What the agent API may ask for besides speaking: read from its tool calls, and done."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson
from livekit import rtc
from livekit.agents.llm import FunctionToolCall

_DIGITS: Final = re.compile(r"[0-9*#]{1,32}")
_CODES: Final = {**{str(digit): digit for digit in range(10)}, "*": 10, "#": 11}
"""RFC 4733, 3.2."""
KEY_PAUSE_S: Final = 0.3
NAME_LENGTH_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class EndCall:
    """End the call."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Hand the callee over to one of the campaign's destinations."""

    name: str


@dataclass(frozen=True, slots=True)
class SendDtmf:
    """Press keys."""

    digits: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """What is not to be had; `why` is for the agent API."""

    why: str


Action = EndCall | Transfer | SendDtmf | Unknown


def action_of(call: FunctionToolCall) -> Action:
    """Read a tool call."""
    try:
        arguments: Any = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        return Unknown("bad_arguments")
    match call.name:
        case "end_call":
            return EndCall()
        case "transfer_call":
            name = arguments.get("destination")
            return Transfer(name[:NAME_LENGTH_MAX]) if isinstance(name, str) else Unknown("bad_arguments")
        case "send_dtmf":
            digits = arguments.get("digits")
            if isinstance(digits, str) and _DIGITS.fullmatch(digits):
                return SendDtmf(digits)
            return Unknown("bad_arguments")
        case _:
            return Unknown("no_such_tool")


async def press(room: rtc.Room, digits: str) -> None:
    """Press keys, one after the other."""
    for digit in digits:
        await room.local_participant.publish_dtmf(code=_CODES[digit], digit=digit)
        await asyncio.sleep(KEY_PAUSE_S)
