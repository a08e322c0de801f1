"""The witness in the room: what the agent sees of the callee's leg, as facts and as stages to wait for.

livekit-sip joins before the INVITE (`dialing`), so presence is not an answer; only `sip.callStatus` = `active` is.
Source: livekit/sip pkg/sip/outbound.go; livekit-server pkg/rtc/room.go (`Close`); reference/livekit.md 4.4.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, get_args

from livekit import rtc

from schemas.facts import CalleeJoined, CalleeLeft, CalleeStatus, CallStatus

STATUS_ATTRIBUTE: Final = "sip.callStatus"
STATUSES_MAX: Final = 32
"""Changes of status that are reported; a sane leg has four."""
_STATUSES: Final = frozenset(get_args(CallStatus))
_TAKEN_DOWN: Final = frozenset({rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.ROOM_CLOSED})
"""Reasons that mean that the room itself is gone: nobody can have come into it after the agent."""
_CLOSED_ON_PURPOSE: Final = frozenset(
    {
        rtc.DisconnectReason.ROOM_DELETED,
        rtc.DisconnectReason.ROOM_CLOSED,
        rtc.DisconnectReason.PARTICIPANT_REMOVED,
        rtc.DisconnectReason.CLIENT_INITIATED,
    }
)
"""Reasons why the agent itself is out of the room that mean somebody ended it; any other is a lost connection."""

Say = Callable[..., None]
"""`say(kind, **fields)`, as `Reporter.say`."""


class Ending(StrEnum):
    """Why there is nothing more to see."""

    CALLEE_LEFT = "callee_left"
    ROOM_CLOSED = "room_closed"
    ROOM_LOST = "room_lost"


class Leg:
    """One callee's leg, from the agent's arrival in the room to the end of either."""

    def __init__(self, room: rtc.Room, identity: str, say: Say) -> None:
        self._room, self._identity, self._say = room, identity, say
        self._status = ""
        self._statuses = 0
        self.seen = asyncio.Event()
        self.answered = asyncio.Event()
        self.answered_at = 0.0
        """Monotonic seconds at which `active` was seen."""
        self.over: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.present = False
        self.let_go = False
        """Set by who hangs up: that the leg leaves then is our doing, and no fact about the callee."""
        self.gap = True
        """True until the agent is in the room, and for ever after a moment out of it."""
        self.stayed = False
        """Whether the agent watched until the room was taken down, the callee's leg in it or never come."""
        for event, handler in self._handlers().items():
            room.on(event, handler)

    def watch(self) -> None:
        """Begin, now that the agent is in the room: a callee who is there already counts as joining now."""
        self.gap = not self._room.isconnected()
        callee = self._room.remote_participants.get(self._identity)
        if callee is not None:
            self._joined(callee)

    async def comes(self, stage: asyncio.Event, timeout_s: float) -> bool:
        """Wait for a stage of the leg; False when the leg is over first, or the time."""
        waiting: asyncio.Future[Any] = asyncio.ensure_future(stage.wait())
        try:
            await asyncio.wait([waiting, self.over], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return stage.is_set() and not self.over.done()

    async def lasts(self, seconds: float) -> bool:
        """Wait; False as soon as the leg is over."""
        await asyncio.wait({self.over}, timeout=seconds)
        return not self.over.done()

    def _handlers(self) -> dict[Any, Callable[..., None]]:
        return {
            "participant_connected": self._joined,
            "participant_disconnected": self._left,
            "participant_attributes_changed": self._changed,
            "reconnecting": self._looked_away,
            "disconnected": self._thrown_out,
        }

    def _joined(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity != self._identity or self.present:
            return
        self.present = True
        self.seen.set()
        self._say(CalleeJoined)
        self._look(participant)

    def _changed(self, _: dict[str, str], participant: rtc.Participant) -> None:
        if participant.identity == self._identity and self.present:
            self._look(participant)

    def _look(self, participant: rtc.Participant) -> None:
        status = participant.attributes.get(STATUS_ATTRIBUTE, "")
        if status == self._status or status not in _STATUSES or self._statuses >= STATUSES_MAX:
            return
        self._status = status
        self._statuses += 1
        if status == "active" and not self.answered.is_set():
            self.answered_at = time.monotonic()
            self.answered.set()
        self._say(CalleeStatus, status=status)

    def _left(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity != self._identity or not self.present:
            return
        reason = participant.disconnect_reason or rtc.DisconnectReason.UNKNOWN_REASON
        if reason in _TAKEN_DOWN:
            return  # the room is closed one by one, in any order: our own end follows, and says what it was
        self.present = False
        if not self.let_go:
            self._say(CalleeLeft, reason=rtc.DisconnectReason.Name(reason))
        self._end(Ending.CALLEE_LEFT)

    def _looked_away(self) -> None:
        self.gap = True

    def _thrown_out(self, reason: rtc.DisconnectReason.ValueType) -> None:
        closed = reason in _CLOSED_ON_PURPOSE
        self.gap = self.gap or not closed
        self.present = self.present and not closed
        self.stayed = reason in _TAKEN_DOWN and not self.over.done()
        self._end(Ending.ROOM_CLOSED if closed else Ending.ROOM_LOST)

    def _end(self, ending: Ending) -> None:
        if not self.over.done():
            self.over.set_result(ending)


def first_of(*endings: asyncio.Future[Any]) -> asyncio.Future[None]:
    """Return a future that is done as soon as one of them is."""
    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_: asyncio.Future[Any]) -> None:
        if not first.done():
            first.set_result(None)

    for ending in endings:
        ending.add_done_callback(done)
    return first
