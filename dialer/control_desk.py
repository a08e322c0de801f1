"""Says stop and resume, and tells who obeys: live dialers are the consumer group's members, each confirms on the topic.

Whoever has not confirmed dials nobody all the same once a second has passed, for the gate wants to have read control within
the last second. Source: promise 6; ADR 0011.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from aiokafka.errors import KafkaError
from pydantic import ConfigDict, StrictBool, ValidationError

from dialer.control_words import EVERYTHING, NOTHING_SAID, Dialling, Words, encode_said
from runtime.clock import Clock
from runtime.kafka import admin
from schemas.campaign import invalid
from schemas.codec import adapter
from schemas.values import PARTITIONS, CampaignId, Invalid

MEMBERS_TIMEOUT_S: Final = 5.0
_STRICT: Final = ConfigDict(extra="forbid")


class MembersUnknown(Exception):
    """The group's coordinator did not say who is a member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopDialling:
    """Dial nobody any more: for all campaigns, or for one."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    all: StrictBool = False
    campaign_id: CampaignId | None = None
    now: StrictBool = False
    """Hang up, too, what rings or talks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeDialling:
    """Dial again: take back what was said of all campaigns, or of one."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    all: StrictBool = False
    campaign_id: CampaignId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What was asked of all dialers."""

    key: str
    state: Dialling
    hang_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidView:
    """What holds for a campaign, or for `*`."""

    key: str
    state: Dialling
    hang_up: bool
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DialerView:
    """One live dialer: the last word it obeys."""

    dialer: str
    applied: int | None
    confirmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlView:
    """What control says, and who obeys the word at `after`."""

    after: int
    confirmed: bool
    said: list[SaidView]
    dialers: list[DialerView]
    loud_partitions: list[int]
    """While a hang-up is in force: partitions of which no live dialer says that their phones are silent."""


def read_word(cls: type[StopDialling | ResumeDialling], data: dict[str, Any]) -> Word:
    """Check a request's body. Raises: Invalid."""
    try:
        asked: StopDialling | ResumeDialling = adapter(cls).validate_python(data)
    except ValidationError as error:
        raise invalid(error) from None
    if asked.all == (asked.campaign_id is not None):
        raise Invalid("campaign_id", "all_or_one_campaign")
    key = EVERYTHING if asked.campaign_id is None else asked.campaign_id
    if isinstance(asked, StopDialling):
        return Word(key=key, state=Dialling.STOPPED, hang_up=asked.now)
    return Word(key=key, state=Dialling.RUNNING, hang_up=False)


async def group_members(bootstrap: str, group_id: str) -> tuple[str, ...]:
    """Return the client ids of a consumer group's members. Raises: MembersUnknown."""
    client = admin(bootstrap)
    try:
        async with asyncio.timeout(MEMBERS_TIMEOUT_S):
            await client.start()
            (answer,) = await client.describe_consumer_groups([group_id])
    except (KafkaError, TimeoutError, OSError) as error:
        raise MembersUnknown(type(error).__name__) from None
    finally:
        await client.close()
    group = answer.to_object()["groups"][0]
    if group["error_code"]:
        raise MembersUnknown(f"error {group['error_code']}")
    return tuple(sorted(member["client_id"] for member in group["members"]))


class ControlDesk:
    """Where stop and resume are said."""

    def __init__(
        self,
        words: Words,
        send: Callable[[bytes, bytes | None], Awaitable[int]],
        members: Callable[[], Awaitable[tuple[str, ...]]],
        clock: Clock,
    ) -> None:
        self._words, self._send, self._members, self._clock = words, send, members, clock

    async def say(self, word: Word) -> int:
        """Write it and return its offset: from then on it is accepted. Raises: NotAccepted."""
        at = self._clock.now().isoformat()
        return await self._send(word.key.encode(), encode_said(word.state, at, hang_up=word.hang_up))

    async def view(self, after: int | None = None) -> ControlView:
        """Tell what holds, and who obeys the word at `after` (the last one, where not said). Raises: MembersUnknown."""
        live = await self._members()
        seen, said = self._words.seen, self._words.said
        word = self._words.last_said() if after is None else after
        dialers = [
            DialerView(dialer=name, applied=seen[name].applied, confirmed=seen[name].applied >= word)
            if name in seen
            else DialerView(dialer=name, applied=None, confirmed=False)
            for name in live
        ]
        confirmed = {view.dialer for view in dialers if view.confirmed}
        loud: set[int] = set()
        if any(words.hang_up for words in said.values()):
            loud = set(range(PARTITIONS)) - {p for name in confirmed for p in seen[name].silent}
        is_read = self._words.last_said() >= word or word == NOTHING_SAID
        return ControlView(
            after=word,
            confirmed=is_read and len(confirmed) == len(live) and not loud,
            said=[
                SaidView(key=key, state=words.state, hang_up=words.hang_up, offset=words.offset)
                for key, words in sorted(said.items())
            ],
            dialers=dialers,
            loud_partitions=sorted(loud),
        )
