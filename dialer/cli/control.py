"""`stop`, `resume`, `control`: the kill switch. A stop returns when every live dialer has confirmed it."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict
from typing import Any, Final, Protocol

from dialer.cli.errors import CliError
from dialer.cli.http import ask
from runtime.clock import SystemClock
from runtime.settings import Settings

CONFIRM_TIMEOUT_S: Final = 20.0
"""Longer than the session timeout: a dialer that was killed is a member of the group until then."""
ASK_EVERY_S: Final = 0.1
ACCEPTED: Final = "no dialer dials once its control is older than 1 s, confirmed or not"


class Desk(Protocol):
    """Where a word is said, over HTTP or on Kafka itself."""

    def say(self, verb: str, body: dict[str, Any]) -> int:
        """Say it; return its offset. Raises: CliError."""
        ...

    def view(self, after: int | None) -> dict[str, Any]:
        """Tell who obeys. Raises: CliError."""
        ...


class OverHttp:
    """At `DIALER_URL`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def say(self, verb: str, body: dict[str, Any]) -> int:
        """Say it; return its offset. Raises: CliError."""
        return int(ask(self._settings, "POST", f"/v1/control/{verb}", json=body).json()["after"])

    def view(self, after: int | None) -> dict[str, Any]:
        """Tell who obeys. Raises: CliError."""
        query = {} if after is None else {"after": after}
        found: dict[str, Any] = ask(self._settings, "GET", "/v1/control", params=query).json()
        return found


class OnKafka:
    """Past HTTP: for the hour when no `dialer serve` answers at `DIALER_URL`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def say(self, verb: str, body: dict[str, Any]) -> int:
        """Say it; return its offset. Raises: CliError."""
        return asyncio.run(self._at_the_desk(verb, body, None))["after"]  # type: ignore[no-any-return]

    def view(self, after: int | None) -> dict[str, Any]:
        """Tell who obeys. Raises: CliError."""
        return asyncio.run(self._at_the_desk("", {}, after))

    async def _at_the_desk(self, verb: str, body: dict[str, Any], after: int | None) -> dict[str, Any]:
        from dialer.control import ControlReader, ControlUnreadable
        from dialer.control_desk import (
            ControlDesk,
            MembersUnknown,
            ResumeDialling,
            StopDialling,
            group_members,
            read_word,
        )
        from dialer.requests import NotAccepted, Requests

        bootstrap, clock = self._settings.kafka_bootstrap, SystemClock()
        requests, control = Requests(bootstrap), ControlReader(bootstrap, clock)
        desk = ControlDesk(
            control.words, requests.send_control, lambda: group_members(bootstrap, self._settings.group_id), clock
        )
        try:
            if verb:
                await requests.start()
                return {"after": await desk.say(read_word(StopDialling if verb == "stop" else ResumeDialling, body))}
            await control.start()
            return asdict(await desk.view(after))
        except (NotAccepted, ControlUnreadable, MembersUnknown) as error:
            raise CliError(f"dialer.control at {bootstrap}: {error}; is Kafka up?") from None
        finally:
            await control.close()
            await requests.close()


def add_commands(commands: Any) -> None:
    """Add the kill switch to the table of commands."""
    stop = commands.add_parser(
        "stop", help="the kill switch: dial nobody; returns when every live dialer has confirmed"
    )
    stop.add_argument("--now", action="store_true", help="hang up, too, what rings or talks; those calls are cancelled")
    resume = commands.add_parser("resume", help="dial again; calls that waited go on")
    for command, run in ((stop, _stop), (resume, _resume)):
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--all", action="store_true", help="all campaigns")
        which.add_argument("--campaign", help="this campaign alone")
        command.add_argument(
            "--timeout-s", type=float, default=CONFIRM_TIMEOUT_S, help="wait so long for confirmations; default 20"
        )
        command.set_defaults(run=run)
    view = commands.add_parser("control", help="what is stopped, and which dialers obey")
    view.set_defaults(run=_view)
    for command in (stop, resume, view):
        command.add_argument("--kafka", action="store_true", help="speak to Kafka itself, past HTTP")


def _desk(settings: Settings, asked: argparse.Namespace) -> Desk:
    return OnKafka(settings) if asked.kafka else OverHttp(settings)


def _stop(settings: Settings, asked: argparse.Namespace) -> None:
    _say(_desk(settings, asked), asked, "stop", {"now": asked.now})


def _resume(settings: Settings, asked: argparse.Namespace) -> None:
    desk = _desk(settings, asked)
    _say(desk, asked, "resume", {})
    for said in desk.view(None)["said"]:
        if said["state"] != "running":
            print(f"{_named(said['key'])} is {said['state']} still")


def _say(desk: Desk, asked: argparse.Namespace, verb: str, more: dict[str, Any]) -> None:
    which = {"all": True} if asked.all else {"campaign_id": asked.campaign}
    after = desk.say(verb, which | more)
    told = f"{verb} {_named('*' if asked.all else asked.campaign)}: accepted as {after}"
    clock = SystemClock()
    until = clock.monotonic() + asked.timeout_s
    while not (view := desk.view(after))["confirmed"]:
        if clock.monotonic() > until:
            raise CliError(f"{told}, but {_missing(view)}; {ACCEPTED}")
        asyncio.run(clock.sleep(ASK_EVERY_S))
    up = len(view["dialers"])
    print(
        f"{told}; " + (f"confirmed by {up} dialer{'s'[: up != 1]}" if up else "no dialer is up; it holds for the next")
    )


def _missing(view: dict[str, Any]) -> str:
    """Name who has not confirmed."""
    late = [dialer["dialer"] for dialer in view["dialers"] if not dialer["confirmed"]]
    found = [f"not confirmed by {', '.join(late)}"] if late else []
    if view["loud_partitions"]:
        found.append(f"phones may ring or talk yet on partitions {', '.join(map(str, view['loud_partitions']))}")
    return " and ".join(found) or "not read back yet"


def _named(key: str) -> str:
    return "all campaigns" if key == "*" else key


def _view(settings: Settings, asked: argparse.Namespace) -> None:
    view = _desk(settings, asked).view(None)
    for said in view["said"]:
        hung_up = ", what rings or talks is hung up" if said["hang_up"] else ""
        print(f"{_named(said['key']):<32}{said['state']}{hung_up}")
    if not view["said"]:
        print("nothing was ever stopped")
    for dialer in view["dialers"]:
        print(f"{dialer['dialer']:<32}{'obeys' if dialer['confirmed'] else 'has not confirmed'}")
