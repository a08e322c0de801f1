"""The composition root of `dialer serve`: who talks to whom is read here, and nowhere else.

Start: settings, secrets, files; Kafka; LiveKit (its rooms must be fences); trunks; then the group is joined. End: nothing
new is dialed, dials under way are waited for, their outcomes delivered; then the group is left. A bug ends the process.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar
from urllib.parse import urlsplit

from aiokafka.errors import KafkaError

from dialer.api import ApiParts, create_app
from dialer.campaigns import Campaigns, NotPublished, open_campaigns
from dialer.control import ControlReader, ControlUnreadable
from dialer.control_desk import ControlDesk, group_members
from dialer.effector import Runner, Shared
from dialer.intake import Intake
from dialer.kafka_log import KafkaLog
from dialer.kill_switch import KillSwitch
from dialer.livekit import LiveKitTelephony
from dialer.outcomes import Outcomes
from dialer.owner import Owner
from dialer.ownership import Ownership, Parts
from dialer.pacer import Pacer
from dialer.requests import NotAccepted, Requests
from dialer.telephony import TelephonyUnavailable, Trunk
from dialer.trunks import TrunksUnavailable, ensure_all, load_trunks
from dialer.webhooks import Webhooks
from runtime.clock import SystemClock
from runtime.http_server import HttpServer, api_keys_of, bind, is_loopback, server
from runtime.logs import Log
from runtime.seal import KEY_BYTES, BriefBox, MasterKey
from runtime.settings import Secret, Settings, SettingsError, brief_keys, key_bytes, required
from schemas.values import PARTITIONS

START_TRIES_MAX: Final = 30
START_AGAIN_S: Final = 1.0
DRAIN_MARGIN_S: Final = 30.0
RING_MAX_S: Final = 60.0
_FAR: Final = 1e9
T = TypeVar("T")

log = Log("dialer.app")


class StartFailed(Exception):
    """Something outside that the process cannot start without: one line that says what to do."""


@dataclass(frozen=True)
class _Sight:
    """What the gate sees of the outside."""

    intake: Callable[[], Intake]
    control: ControlReader
    clock: SystemClock

    def membership_age_s(self) -> float:
        return self.intake().membership_age_s()

    def stops_age_s(self, ownership: Ownership) -> float:
        return self.intake().stops_age_s(ownership)

    def control_age_s(self) -> float:
        read_at = self.control.read_at()
        return _FAR if read_at is None else self.clock.monotonic() - read_at

    def stopped(self, campaign_id: str) -> bool:
        return self.control.stopped(campaign_id)

    def control_version(self) -> str:
        return self.control.version()


def check_phones(settings: Settings) -> None:
    """Refuse a LiveKit that is not on loopback: there are no calling hours yet. Raises: SettingsError."""
    for name, url in (("LIVEKIT_URL", settings.livekit_url), ("LIVEKIT_API_URL", settings.livekit_api_url)):
        host = urlsplit(url).hostname
        if url and (host is None or not is_loopback(host)) and settings.dial_real_phones != "yes":
            raise SettingsError(
                f"{name} is not on loopback and calling hours are not built yet; DIAL_REAL_PHONES=yes dials all the same"
            )


def _key(secret: Secret, name: str) -> bytes:
    """Read a key of 32 bytes: a shorter pepper could be guessed, and with it every number. Raises: SettingsError."""
    found = key_bytes(secret, name)
    if len(found) != KEY_BYTES:
        raise SettingsError(f"{name} must be base64 of {KEY_BYTES} bytes; `openssl rand -base64 32` makes one")
    return found


def process_name(settings: Settings, clock: SystemClock) -> str:
    """Name this process for the group and for `dialer.control`: where it is, and which run of it."""
    host = re.sub(r"[^A-Za-z0-9.]", "-", socket.gethostname())
    return f"dialer-{host}-{settings.port}-{clock.random_bytes(3).hex()}"


class App:
    """One dialer process."""

    def __init__(self, settings: Settings, clock: SystemClock | None = None) -> None:
        """Read everything that needs no connection. Raises: SettingsError, BadFile."""
        check_phones(settings)
        self.settings, self.clock = settings, clock or SystemClock()
        self._keys = api_keys_of(settings.api_keys, settings.host, "DIALER_HOST")
        pepper = _key(settings.pepper, "DIALER_PEPPER")
        secret = required(settings.livekit_api_secret, "LIVEKIT_API_SECRET")
        self._trunks: tuple[Trunk, ...] = load_trunks(settings.trunks_file)
        self._requests = Requests(settings.kafka_bootstrap)
        self._campaigns: Campaigns = open_campaigns(settings, self._publish_campaign, self.clock)
        api_url = settings.livekit_api_url or settings.livekit_url
        self._telephony = LiveKitTelephony(api_url, settings.livekit_api_key, secret, self.clock)
        self._control = ControlReader(settings.kafka_bootstrap, self.clock, self._control_changed)
        self._outcomes = Outcomes(self._requests, self.clock)
        self._waiting: dict[str, str] = {"start": "connecting"}
        self._shared = Shared(
            clock=self.clock,
            telephony=self._telephony,
            campaigns=self._campaigns,
            outcomes=self._outcomes,
            brief_box=BriefBox(brief_keys(settings.brief_key)),
            agent_name=settings.agent_name,
            trunks={t.name: t for t in self._trunks},
            trunk_ids={},
            session_timeout_s=settings.session_timeout_s,
            dials_max=settings.dials_max,
            sight=_Sight(lambda: self._intake, self._control, self.clock),
            pacer=Pacer(self._trunks, settings.rooms_max, self.clock, self._granted, is_held=self._control.stopped),
        )
        memory = timedelta(days=settings.request_memory_d)
        self._master = MasterKey(_key(settings.master_key, "DIALER_MASTER_KEY"))
        parts = Parts(
            clock=self.clock,
            pepper=pepper,
            master=self._master,
            memory=memory,
            campaigns=self._campaigns,
            batch_max=settings.batch_max,
            inbox_max=settings.inbox_max,
            open_calls_max=settings.open_calls_max,
            effects=lambda ownership: Runner(ownership, self._shared),
        )
        logs = KafkaLog(settings.kafka_bootstrap, self.clock)
        process = process_name(settings, self.clock)
        self._intake = Intake(
            settings.kafka_bootstrap,
            settings.group_id,
            settings.session_timeout_s,
            lambda partition: Owner(partition, logs, parts, self._intake, self.clock),
            lambda owned: self._shared.pacer.set_share(owned, PARTITIONS),
            self.clock,
            process,
        )
        send = self._requests.send_control
        self._kill_switch = KillSwitch(
            process, self._control.words, self._owned, self._shared.pacer.holding, send, memory, self.clock
        )
        self._api = create_app(
            ApiParts(
                requests=self._requests,
                control=ControlDesk(
                    self._control.words,
                    send,
                    lambda: group_members(settings.kafka_bootstrap, settings.group_id),
                    self.clock,
                ),
                webhooks=Webhooks(settings.livekit_api_key, secret),
                pepper=pepper,
                clock=self.clock,
                query_url=settings.query_url,
                api_keys=self._keys,
                not_ready=self.not_ready,
            )
        )

    def _control_changed(self) -> None:
        self._shared.pacer.tick(self.clock.monotonic())
        self._kill_switch.changed()

    def _owned(self) -> dict[int, Ownership]:
        return {p: owner.current for p, owner in self._intake.owners.items() if owner.current is not None}

    def _granted(self, kind: str, key: str) -> None:
        self._shared.granted(kind, key)

    async def _publish_campaign(self, campaign_hash: str, definition: bytes) -> None:
        try:
            await self._requests.send_campaign(campaign_hash, definition)
        except NotAccepted as error:
            raise NotPublished(str(error)) from None

    def not_ready(self) -> Mapping[str, str]:
        """Name what is not ready, and why."""
        waiting = dict(self._waiting)
        owners = self._intake.owners
        if not waiting and not owners:
            waiting["partitions"] = "none assigned yet"
        behind = [p for p, owner in owners.items() if owner.current is None]
        if behind:
            waiting["partitions"] = f"{len(behind)} being taken over"
        if owners and not self._shared.pacer.ready:
            waiting["pacer"] = "this process's share of a limit is 0: " + ", ".join(self._shared.pacer.starved)
        return waiting

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises: SettingsError, StartFailed; any other exception is a bug."""
        settings = self.settings
        listening = bind(settings.host, settings.port, "DIALER_HOST and DIALER_PORT")
        http = server(self._api)
        serving = self.clock.spawn(http.serve([listening]), "http")
        starting = self.clock.spawn(self._start(), "start")
        try:
            failure = await self.clock.failed_or(stop)
            if failure is not None:
                raise failure
            await self._drain()
        finally:
            starting.cancel()
            await self._close(http, serving)
            listening.close()

    async def _start(self) -> None:
        kafka = f"Kafka at {self.settings.kafka_bootstrap} cannot be used; start it, or set KAFKA_BOOTSTRAP_SERVERS"
        await self._tried("kafka", self._requests.start, (KafkaError,), kafka)
        topics = "dialer.control cannot be read; `dialer topics` makes the topics"
        await self._tried("control", self._control.start, (ControlUnreadable,), topics)
        await self._control.ensure_layout(self._master.check)
        self.clock.spawn(self._kill_switch.run(), "kill-switch")
        livekit = "LiveKit cannot be reached; check LIVEKIT_URL and LIVEKIT_API_URL"
        fenced = await self._tried("livekit", self._telephony.auto_create_is_off, (TelephonyUnavailable,), livekit)
        if not fenced:
            raise StartFailed(
                "LiveKit makes rooms by itself; set room.auto_create: false, a deleted room must be a fence"
            )
        self._waiting["start"] = "ensuring trunks"
        try:
            self._shared.trunk_ids.update(await ensure_all(self._telephony, self._trunks, self.clock))
        except TrunksUnavailable as error:
            raise StartFailed(str(error)) from None
        await self._campaigns.warm()
        self.clock.spawn(self._shared.pacer.run(), "pacer")
        await self._tried("group", self._intake.start, (KafkaError,), kafka)
        self._waiting.clear()
        log.info("dialer started", trunks=len(self._trunks), port=self.settings.port)

    async def _tried(
        self, what: str, work: Callable[[], Awaitable[T]], errors: tuple[type[Exception], ...], hint: str
    ) -> T:
        """Try until it works: parts start in any order. Raises: StartFailed with the hint."""
        for attempt in range(START_TRIES_MAX):
            self._waiting["start"] = f"waiting for {what}"
            try:
                return await work()
            except errors as error:
                log.info("not there yet", what=what, attempt=attempt, error=type(error).__name__)
                await self.clock.sleep(START_AGAIN_S)
        raise StartFailed(hint)

    async def _drain(self) -> None:
        """Start nothing new; wait for dials under way and for their outcomes to be committed."""
        self._shared.draining = True
        self._shared.pacer.set_share(0, PARTITIONS)
        self._waiting["end"] = "shutting down"
        until = self.clock.monotonic() + RING_MAX_S + DRAIN_MARGIN_S
        while self._shared.dialing and self.clock.monotonic() < until:
            await self.clock.sleep(0.1)
        log.info("dialer drained", dialing=self._shared.dialing)

    async def _close(self, http: HttpServer, serving: asyncio.Task[None]) -> None:
        await self._intake.stop()
        until = self.clock.monotonic() + DRAIN_MARGIN_S
        while self._outcomes.open and self.clock.monotonic() < until:
            await self.clock.sleep(0.05)
        http.should_exit = True
        await asyncio.wait({serving})
        if not self._waiting.get("start"):
            await self._kill_switch.close()
        await self._control.close()
        await self._campaigns.close()
        await self._telephony.close()
        await self._requests.close()
