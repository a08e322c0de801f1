"""What an agent must know of a campaign beyond the message: who it talks with, how, and what it does with machines.

Part of the definition, of the log (`CallPrepared.rules`) and of the agent's brief; nothing in it is about a callee. What
a later version adds is passed over by who reads log or brief; a definition is read strictly (`schemas/campaign.py`).
Source: issue S3; design §4 (campaign), §6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

VOICEMAIL_LENGTH_MAX: Final = 600
INTRODUCTION_LENGTH_MAX: Final = 200
PHRASE_LENGTH_MAX: Final = 120
"""Characters; whether all of a definition fits an agent's brief is asked when it is loaded (`schemas/campaign.py`)."""

MachinePolicy = Literal["off", "hangup", "leave_message"]
Recording = Literal["off", "best_effort", "required", "consent"]
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=PHRASE_LENGTH_MAX)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Destination = Annotated[str, StringConstraints(pattern=r"^(tel:\+[0-9]{6,15}|sips?:[!-?A-~]{1,64}@[!-?A-~]{1,128})$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentApi:
    """The external agent: OpenAI-compatible chat completions at `{url}/chat/completions`, streamed."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[!$->A-~]{1,300}$")]
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/+-]{1,100}$")]
    timeout_s: Annotated[float, Field(ge=0.5, le=30)] = 3.0
    """Of one try: to the first token, and between two tokens."""
    tries: Annotated[int, Field(ge=1, le=3)] = 2
    """Of one turn; another try is made only where nothing was spoken yet."""
    failures_max: Annotated[int, Field(ge=1, le=5)] = 2
    """Turns in a row that may fail, each answered by the fallback sentence; the last of them ends the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What is done when the callee says nothing: so many prompts, each after so long, then a polite end."""

    prompt_after_s: Annotated[float, Field(ge=2, le=60)] = 8.0
    prompts_max: Annotated[int, Field(ge=0, le=5)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """Sentences that the agent says by itself; None: the language's own (`agent/phrases`)."""

    silence: Phrase | None = None
    goodbye: Phrase | None = None
    fallback: Phrase | None = None
    wait: Phrase | None = None
    """Said where an answer of the agent API takes long."""
    opt_out: Phrase | None = None
    recording: Phrase | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """All of it; the defaults are those of a plain one-way call."""

    machine: MachinePolicy = "off"
    recording: Recording = "off"
    agent_api: AgentApi | None = None
    silence: Silence = field(default_factory=Silence)
    opt_out_key: Annotated[str, StringConstraints(pattern=r"^[0-9*#]$")] | None = None
    transfer_to: dict[Name, Destination] = field(default_factory=dict)
    phrases: Phrases = field(default_factory=Phrases)


PLAIN: Final = Conversation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a call says beyond its message, rendered for its callee; sealed on the log, in the clear in a brief."""

    voicemail: str | None = None
    introduction: str | None = None
    """Who is calling and why, for a call screener; None: the message says it."""
