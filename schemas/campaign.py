"""A campaign's definition: what is said, to whom it may be said, how often it is tried. Content-addressed.

The same shape comes from the campaign service (JSON) and from a directory of YAML files. A key that is not known, and
options that do not go together, are refused by name when the definition is loaded.
Source: design §4 (definition), §5 (campaign definitions).
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import orjson
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from schemas.brief import BRIEF_FRAME_BYTES_MAX, BRIEF_PLAIN_BYTES_MAX
from schemas.conversation import (
    INTRODUCTION_LENGTH_MAX,
    PLAIN,
    VOICEMAIL_LENGTH_MAX,
    AgentApi,
    Conversation,
    Destination,
    MachinePolicy,
    Name,
    Phrases,
    Recording,
    Silence,
)
from schemas.values import CampaignId, Invalid

MESSAGE_LENGTH_MAX: Final = 4000
Seconds = Annotated[int, Field(ge=1, le=30 * 86_400)]
Region = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAfter:
    """Seconds until the next attempt, by the outcome of the last."""

    busy: Seconds = 300
    no_answer: Seconds = 1800
    trunk_failed: Seconds = 60
    agent_lost: Seconds = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownRule:
    """What to do when nobody can say whether the phone rang: never ring again, or after so many seconds."""

    redial: Literal["never"] | None = None
    after_s: Seconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringMachine:
    """What to do with a machine: nothing (it hears what a person would), hang up, or leave this message."""

    policy: MachinePolicy = "off"
    message: Annotated[str, StringConstraints(min_length=1, max_length=VOICEMAIL_LENGTH_MAX)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One definition, as it is hashed, kept in `dialer.campaigns` and cited by `CallPrepared`."""

    id: CampaignId
    type: Literal["one_way", "two_way"]
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[A-Z]{2})?$")] = "en-US"
    message: Annotated[str, StringConstraints(min_length=1, max_length=MESSAGE_LENGTH_MAX)]
    """One-way: what is said. Two-way: the greeting that the conversation begins with."""
    answering_machine: AnsweringMachine = field(default_factory=AnsweringMachine)
    introduction: Annotated[str, StringConstraints(min_length=1, max_length=INTRODUCTION_LENGTH_MAX)] | None = None
    """Who is calling and why, said to call screening; the message when there is none."""
    agent_api: AgentApi | None = None
    silence: Silence = field(default_factory=Silence)
    opt_out_key: Annotated[str, StringConstraints(pattern=r"^[0-9*#]$")] | None = None
    transfer_to: Annotated[dict[Name, Destination], Field(max_length=10)] = field(default_factory=dict)
    """Where the agent API may transfer to, by the names that it uses."""
    phrases: Phrases = field(default_factory=Phrases)
    attempts_max: Annotated[int, Field(ge=1, le=20)] = 3
    retry_after_s: RetryAfter = field(default_factory=RetryAfter)
    unknown: UnknownRule = field(default_factory=lambda: UnknownRule(redial="never"))
    ring_timeout_s: Annotated[int, Field(ge=15, le=60)] = 30
    max_call_duration_s: Annotated[int, Field(ge=10, le=86_400)] = 600
    recording: Recording = "off"
    trunk: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    countries_allowed: Annotated[list[Region], Field(min_length=1, max_length=250)] = field(
        default_factory=lambda: ["US"]
    )


_ADAPTER: Final = TypeAdapter(Campaign)
_PLACEHOLDER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def load_campaign(definition: object) -> Campaign:
    """Check a definition as read from JSON or YAML.

    Raises: Invalid that names the key and the rule: `unknown_field`, `missing`, `only_two_way`, `template`,
    `brief_too_long`, or pydantic's word for a wrong type.
    """
    if not isinstance(definition, dict):
        raise Invalid("campaign", "not_a_mapping")
    try:
        campaign = _ADAPTER.validate_python(definition, extra="forbid")
    except ValidationError as error:
        raise invalid(error) from None
    if (campaign.unknown.redial is None) == (campaign.unknown.after_s is None):
        raise Invalid("unknown", "either_redial_or_after_s")
    _fits_together(campaign)
    _fits_a_brief(campaign)
    for name, template in templates(campaign).items():
        placeholders(template, name)
    return campaign


def _fits_together(campaign: Campaign) -> None:
    """Hold what one key asks of another. Raises: Invalid."""
    machine = campaign.answering_machine
    if campaign.type == "two_way" and campaign.agent_api is None:
        raise Invalid("agent_api", "missing")
    for key, given in (("agent_api", campaign.agent_api), ("transfer_to", campaign.transfer_to)):
        if campaign.type == "one_way" and given:
            raise Invalid(key, "only_two_way")
    if machine.policy == "leave_message" and machine.message is None:
        raise Invalid("answering_machine.message", "missing")
    if machine.policy != "leave_message" and machine.message is not None:
        raise Invalid("answering_machine.message", "only_leave_message")


def _fits_a_brief(campaign: Campaign) -> None:
    """Hold that whatever is rendered of this fits an agent's brief. Raises: Invalid that names the longest key."""
    own = conversation_of(campaign) or PLAIN
    sizes = {name: len(orjson.dumps(getattr(own, name))) for name in ("agent_api", "transfer_to", "phrases")}
    sizes["answering_machine.message"] = (
        said_bytes_max(VOICEMAIL_LENGTH_MAX) if campaign.answering_machine.message else 0
    )
    sizes["introduction"] = said_bytes_max(INTRODUCTION_LENGTH_MAX) if campaign.introduction else 0
    if BRIEF_FRAME_BYTES_MAX + said_bytes_max(MESSAGE_LENGTH_MAX) + sum(sizes.values()) > BRIEF_PLAIN_BYTES_MAX:
        raise Invalid(max(sizes, key=lambda name: sizes[name]), "brief_too_long")


def said_bytes_max(length_max: int) -> int:
    """Return how many bytes of JSON a rendered text of so many characters may take; rendering refuses a longer one."""
    return 4 * length_max + 2


def templates(campaign: Campaign) -> dict[str, str]:
    """Return every text of a definition that is rendered for a callee, by its key's path."""
    texts = {
        "message": campaign.message,
        "answering_machine.message": campaign.answering_machine.message,
        "introduction": campaign.introduction,
    }
    return {path: text for path, text in texts.items() if text is not None}


def conversation_of(campaign: Campaign) -> Conversation | None:
    """Return what the agent must know beyond the message; None for a plain one-way call, as most are."""
    found = Conversation(
        machine=campaign.answering_machine.policy,
        recording=campaign.recording,
        agent_api=campaign.agent_api,
        silence=campaign.silence,
        opt_out_key=campaign.opt_out_key,
        transfer_to=campaign.transfer_to,
        phrases=campaign.phrases,
    )
    return None if found == PLAIN else found


def placeholders(template: str, path: str = "message") -> tuple[str, ...]:
    """Return the names a template asks for; only `{name}` and `{{` are allowed. Raises: Invalid `{path}: template`."""
    names: list[str] = []
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        raise Invalid(path, "template") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if spec or conversion or not _PLACEHOLDER.fullmatch(name):
            raise Invalid(path, "template")
        names.append(name)
    return tuple(names)


def campaign_hash(campaign: Campaign) -> str:
    """Address a definition by its content: SHA-256 of its canonical JSON, base32, 32 characters."""
    digest = hashlib.sha256(orjson.dumps(campaign, option=orjson.OPT_SORT_KEYS)).digest()
    return base64.b32encode(digest)[:32].decode().lower()


def invalid(error: ValidationError) -> Invalid:
    """Say a pydantic refusal in the contract's words: the field's path and the rule, never the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = ".".join(_named(part) for part in first["loc"] if not str(part).startswith(("function-", "tagged")))
    kind = str(first["type"])
    if kind == "value_error":
        return Invalid(location or "data", str(first["ctx"]["error"]))
    known = {
        "unexpected_keyword_argument": "unknown_field",
        "extra_forbidden": "unknown_field",
        "missing": "missing",
        "string_pattern_mismatch": "pattern",
        "dataclass_type": "wrong_type",
    }
    rule = known.get(kind) or ("wrong_type" if kind.endswith(("_type", "_parsing")) else kind)
    return Invalid(location or "data", rule)


_FIELD_NAME: Final = re.compile(r"[A-Za-z_]{1,40}|[0-9]{1,3}|\[key\]")


def _named(part: object) -> str:
    """Name a part of a field's path, where it could be a name or a place in a list; a foreign key may hold anything."""
    return str(part) if _FIELD_NAME.fullmatch(str(part)) else "?"
