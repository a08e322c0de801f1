"""Campaign definitions: from a directory of YAML files or the campaign service, checked, published, then handed out.

1. A definition is handed out only after it stands in `dialer.campaigns` under its hash.
2. Not found and unreachable differ: the first refuses a call for good, so an answer is only given to who asked before
   its look-up began; the second delays a call.
3. A broken definition is never "not found": of a file it ends the start, of the service it alarms and delays.
Source: design §3 (`dialer.campaigns`), §5 (campaign definitions).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import orjson

from dialer.campaign_service import CampaignService
from dialer.rendering import Template, parse_template
from dialer.yaml_files import BadFile, read_yaml
from runtime.clock import Clock
from runtime.logs import Log
from runtime.metrics import ALARMS
from runtime.settings import Settings
from schemas.campaign import Campaign, campaign_hash, conversation_of, load_campaign
from schemas.conversation import INTRODUCTION_LENGTH_MAX, VOICEMAIL_LENGTH_MAX
from schemas.events import Rules
from schemas.values import Invalid

EMBEDDED: Final = Path(__file__).parent / "campaigns_embedded"
FILES_MAX: Final = 1000
CACHED_MAX: Final = 1000
log = Log(__name__)


class NotPublished(Exception):
    """`dialer.campaigns` did not take the definition; raised by the injected `Publish`."""


Publish = Callable[[str, bytes], Awaitable[None]]
"""Write a definition under its hash to `dialer.campaigns` and wait for the ack. Raises: NotPublished."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Definition:
    """A checked definition with what is made of it once: its hash, the core's rules, the parsed texts."""

    campaign: Campaign
    hash: str
    rules: Rules
    template: Template
    words: Mapping[str, tuple[Template, int]]
    """What is said beyond the message, by the field of `Words`: its template, and how long it may be rendered."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no such campaign."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nobody can say now; `why` in one word: `timeout`, `transport`, `status`, `broken`, `not_published`."""

    why: str


Found = Definition | NotFound | Unreachable
V = TypeVar("V")


class Source(Protocol):
    """Where definitions come from."""

    def ids(self) -> tuple[str, ...]:
        """Name the campaigns that are known without asking; none for a service."""
        ...

    async def get(self, campaign_id: str) -> Campaign | NotFound | Unreachable:
        """Look one up."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


def define(campaign: Campaign) -> Definition:
    """Make a definition of a checked campaign."""
    retry = campaign.retry_after_s
    rules = Rules(
        attempts_max=campaign.attempts_max,
        busy_s=retry.busy,
        no_answer_s=retry.no_answer,
        trunk_failed_s=retry.trunk_failed,
        agent_lost_s=retry.agent_lost,
        unknown_after_s=campaign.unknown.after_s,
        ring_timeout_s=campaign.ring_timeout_s,
        max_call_duration_s=campaign.max_call_duration_s,
        trunk=campaign.trunk,
        type=campaign.type,
        language=campaign.language,
        conversation=conversation_of(campaign),
    )
    said = {
        "voicemail": (campaign.answering_machine.message, VOICEMAIL_LENGTH_MAX),
        "introduction": (campaign.introduction, INTRODUCTION_LENGTH_MAX),
    }
    return Definition(
        campaign=campaign,
        hash=campaign_hash(campaign),
        rules=rules,
        template=parse_template(campaign.message),
        words={name: (parse_template(text), most) for name, (text, most) in said.items() if text is not None},
    )


class Directory:
    """All definitions of a directory, read and checked at once; changed files are seen by the next process."""

    def __init__(self, path: Path) -> None:
        """Load every `*.yaml`. Raises: BadFile with file, key and rule in one line."""
        self._campaigns: dict[str, Campaign] = {}
        files = sorted(path.glob("*.yaml")) if path.is_dir() else []
        if not files:
            raise BadFile(f"{path}: no *.yaml files of campaigns there")
        if len(files) > FILES_MAX:
            raise BadFile(f"{path}: more than {FILES_MAX} files")
        for file in files:
            try:
                campaign = load_campaign(read_yaml(file))
            except Invalid as refused:
                raise BadFile(f"{file}: {refused.field}: {refused.rule}") from None
            if campaign.id in self._campaigns:
                raise BadFile(f"{file}: id: stands in another file too")
            self._campaigns[campaign.id] = campaign

    def ids(self) -> tuple[str, ...]:
        """Name everything that was loaded."""
        return tuple(self._campaigns)

    async def get(self, campaign_id: str) -> Campaign | NotFound | Unreachable:
        """Look one up."""
        return self._campaigns.get(campaign_id) or NotFound()

    async def close(self) -> None:
        """Nothing is held."""


class Service:
    """The campaign service, its answers checked."""

    def __init__(self, url: str) -> None:
        self._service = CampaignService(url)

    def ids(self) -> tuple[str, ...]:
        """Name nothing: a service is asked campaign by campaign."""
        return ()

    async def get(self, campaign_id: str) -> Campaign | NotFound | Unreachable:
        """Look one up."""
        answer = await self._service.get(campaign_id)
        if answer.failed:
            log.warning("campaign service cannot be asked", campaign_id=campaign_id, why=answer.failed)
            return Unreachable(answer.failed)
        if answer.body is None:
            return NotFound()
        try:
            campaign = load_campaign(orjson.loads(answer.body))
        except orjson.JSONDecodeError:
            return _broken(campaign_id, Invalid("campaign", "not_json"))
        except Invalid as refused:
            return _broken(campaign_id, refused)
        return campaign if campaign.id == campaign_id else _broken(campaign_id, Invalid("id", "another_campaign"))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._service.close()


def _broken(campaign_id: str, refused: Invalid) -> Unreachable:
    ALARMS.labels("campaign_broken").inc()
    log.alarm("campaign service sent a broken definition", campaign_id=campaign_id, why=str(refused))
    return Unreachable("broken")


class Campaigns:
    """Definitions at hand at once (`cached`), or looked up (`find`)."""

    def __init__(self, source: Source, publish: Publish, clock: Clock, ttl_s: float | None) -> None:
        """Take a source; `ttl_s` None: what was found stays current as long as the process lives."""
        self._source, self._publish, self._clock, self._ttl_s = source, publish, clock, ttl_s
        self._current: dict[str, tuple[float, Definition]] = {}
        self._published: dict[str, Definition] = {}
        self._lookups: dict[str, asyncio.Future[Found]] = {}

    def cached(self, campaign_id: str) -> Definition | None:
        """Return the definition if it is at hand and current."""
        entry = self._current.get(campaign_id)
        if entry is None or self._clock.monotonic() >= entry[0]:
            return None
        return entry[1]

    async def find(self, campaign_id: str) -> Found:
        """Return the definition, or what is known of it by a look-up that began after this call."""
        at_hand = self.cached(campaign_id)
        if at_hand is not None:
            return at_hand
        running = self._lookups.get(campaign_id)
        if running is not None:
            found = await asyncio.shield(running)
            if isinstance(found, Definition):
                return found
            running = self._lookups.get(campaign_id)
            if running is not None:
                return await asyncio.shield(running)
        return await self._look_up(campaign_id)

    async def warm(self) -> bool:
        """Publish what is known without asking, so that no first call waits for it; False where some was not taken."""
        return all([isinstance(await self.find(campaign_id), Definition) for campaign_id in self._source.ids()])

    async def close(self) -> None:
        """Let go of the source."""
        await self._source.close()

    async def _look_up(self, campaign_id: str) -> Found:
        lookup: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._lookups[campaign_id] = lookup
        found: Found = Unreachable("cancelled")
        try:
            found = await self._get(campaign_id)
        finally:
            del self._lookups[campaign_id]
            lookup.set_result(found)
        return found

    async def _get(self, campaign_id: str) -> Found:
        campaign = await self._source.get(campaign_id)
        if not isinstance(campaign, Campaign):
            self._current.pop(campaign_id, None)
            return campaign
        made = define(campaign)
        definition = self._published.get(made.hash)
        if definition is None:
            definition = made
            try:
                await self._publish(made.hash, orjson.dumps(campaign, option=orjson.OPT_SORT_KEYS))
            except NotPublished:
                log.warning("definition not published", campaign_id=campaign_id, hash=made.hash)
                return Unreachable("not_published")
            _keep(self._published, made.hash, made)
        until = float("inf") if self._ttl_s is None else self._clock.monotonic() + self._ttl_s
        _keep(self._current, campaign_id, (until, definition))
        return definition


def _keep(kept: dict[str, V], key: str, value: V) -> None:
    """Put an entry last and let the oldest go beyond `CACHED_MAX`."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > CACHED_MAX:
        del kept[next(iter(kept))]


def open_campaigns(settings: Settings, publish: Publish, clock: Clock) -> Campaigns:
    """Open the source the settings name: the service, a directory, or the embedded examples. Raises: BadFile."""
    if settings.campaigns_url:
        return Campaigns(Service(settings.campaigns_url), publish, clock, settings.campaigns_ttl_s)
    return Campaigns(
        Directory(Path(settings.campaigns_dir) if settings.campaigns_dir else EMBEDDED), publish, clock, None
    )
