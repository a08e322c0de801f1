"""What stands on `dialer.control`: the last word on every campaign, who confirms it, the layout. A fold of its records.

A value that cannot be read stops what it is about; a tombstone changes no word, since words are given by values only.
Source: design §3, promise 6; ADR 0011.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import orjson

from runtime.logs import Log
from runtime.metrics import ALARMS

EVERYTHING: Final = "*"
"""The key that speaks of all campaigns."""
SEEN_PREFIX: Final = b"$seen/"
"""Keys of confirmations: what one process obeys, and where its phones are silent."""
NOTHING_SAID: Final = -1

_log = Log("dialer.control")


class Dialling(StrEnum):
    """What control says of a campaign, or of everything."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The last word on a campaign, or on everything."""

    state: Dialling
    offset: int
    hang_up: bool = False
    """Whether what rings or talks is hung up, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one process confirms."""

    applied: int
    """Offset of the last word it obeys; `NOTHING_SAID` where there is none."""
    silent: tuple[int, ...] = ()
    """Its partitions on which no phone rings or talks that was to be hung up; said while a hang-up is in force."""
    at: str = ""
    """When, ISO 8601."""


def encode_said(state: Dialling, at: str, *, hang_up: bool = False) -> bytes:
    """Write a word on a campaign."""
    return orjson.dumps({"state": state.value, "at": at} | ({"hang_up": True} if hang_up else {}))


def encode_seen(seen: Seen) -> bytes:
    """Write a confirmation."""
    return orjson.dumps({"applied": seen.applied, "silent": list(seen.silent), "at": seen.at})


class Words:
    """The state of `dialer.control`, up to the records that were taken."""

    def __init__(self) -> None:
        self._said: dict[str, Said] = {}
        self._seen: dict[str, Seen] = {}
        self._layout: dict[bytes, object] = {}

    @property
    def said(self) -> Mapping[str, Said]:
        """The last word on everything that was ever spoken of, by key."""
        return MappingProxyType(self._said)

    @property
    def seen(self) -> Mapping[str, Seen]:
        """What the processes have confirmed, by process; those that died included."""
        return MappingProxyType(self._seen)

    @property
    def layout(self) -> Mapping[bytes, object]:
        """The first value of each of the keys of the layout."""
        return MappingProxyType(self._layout)

    def state(self, key: str) -> Dialling:
        """Return what was said of a campaign, or of `*`, alone; nothing said is running."""
        said = self._said.get(key)
        return Dialling.RUNNING if said is None else said.state

    def stopped(self, campaign_id: str) -> bool:
        """Tell whether nothing may be dialled for a campaign: stopped or paused, by itself or by `*`."""
        return any(self.state(key) is not Dialling.RUNNING for key in (EVERYTHING, campaign_id))

    def hangs_up(self, campaign_id: str) -> int | None:
        """Return the offset of the word that hangs a campaign's calls up; None where nothing does."""
        found = (self._said.get(key) for key in (EVERYTHING, campaign_id))
        return next((said.offset for said in found if said is not None and said.hang_up), None)

    def last_said(self) -> int:
        """Return the offset of the last word; `NOTHING_SAID` where there is none."""
        return max((said.offset for said in self._said.values()), default=NOTHING_SAID)

    def take(self, key: bytes, value: bytes | None, offset: int) -> None:
        """Fold the next record."""
        if key.startswith(SEEN_PREFIX):
            self._take_seen(key.removeprefix(SEEN_PREFIX).decode("utf-8", "replace"), value, offset)
        elif value is None or not key:
            _refuse(offset, "a control record without key or value changes nothing")
        elif key.startswith(b"$"):
            self._take_layout(key, value, offset)
        else:
            self._take_said(key.decode("utf-8", "replace"), value, offset)

    def _take_said(self, key: str, value: bytes, offset: int) -> None:
        try:
            found: dict[str, Any] = orjson.loads(value)
            state, hang_up = Dialling(found["state"]), found.get("hang_up", False) is True
        except (ValueError, KeyError, TypeError, AttributeError):
            self._said[key] = Said(state=Dialling.STOPPED, offset=offset)
            _refuse(offset, "a control record that cannot be read stops what it is about")
        else:
            self._said[key] = Said(state=state, offset=offset, hang_up=hang_up and state is not Dialling.RUNNING)

    def _take_seen(self, process: str, value: bytes | None, offset: int) -> None:
        """Take a confirmation; its tombstone says that the process is gone."""
        self._seen.pop(process, None)
        if value is None:
            return
        try:
            found: dict[str, Any] = orjson.loads(value)
            silent = tuple(int(partition) for partition in found["silent"])
            self._seen[process] = Seen(applied=int(found["applied"]), silent=silent, at=str(found["at"]))
        except (ValueError, KeyError, TypeError):
            _refuse(offset, "a confirmation that cannot be read confirms nothing")

    def _take_layout(self, key: bytes, value: bytes, offset: int) -> None:
        try:
            found = orjson.loads(value)
        except ValueError:
            found = None
        if self._layout.setdefault(key, found) != found:
            _refuse(offset, "a second, other layout was written")


def _refuse(offset: int, why: str) -> None:
    ALARMS.labels("control_record").inc()
    _log.alarm(why, offset=offset)
