"""What the witness makes of the order in which things happen in its room."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc

from agent.leg import Ending, Leg
from schemas.facts import CalleeJoined, CalleeLeft

CALLEE = "callee-x-1"


class Seen:
    """A leg in a room without a server, and what it told."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.told: list[tuple[type, dict[str, Any]]] = []
        self.leg = Leg(self.room, CALLEE, lambda kind, **fields: self.told.append((kind, fields)))
        self.room.emit("participant_connected", self.callee())

    @staticmethod
    def callee(reason: rtc.DisconnectReason.ValueType | None = None) -> SimpleNamespace:
        return SimpleNamespace(identity=CALLEE, attributes={}, disconnect_reason=reason)


@pytest.mark.parametrize("reason", [rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.ROOM_CLOSED])
async def test_a_leg_that_goes_with_its_room_did_not_leave(reason: rtc.DisconnectReason.ValueType) -> None:
    """A server that takes a room down tells of the callee's end before the agent's, or after it."""
    seen = Seen()
    seen.room.emit("participant_disconnected", seen.callee(reason))
    assert not seen.leg.over.done()
    seen.room.emit("disconnected", reason)
    assert seen.leg.over.result() is Ending.ROOM_CLOSED and seen.leg.stayed
    assert [kind for kind, _ in seen.told] == [CalleeJoined]


async def test_a_leg_that_leaves_a_room_that_stays_has_left() -> None:
    """The callee hung up."""
    seen = Seen()
    seen.room.emit("participant_disconnected", seen.callee(rtc.DisconnectReason.CLIENT_INITIATED))
    assert seen.leg.over.result() is Ending.CALLEE_LEFT and not seen.leg.stayed
    assert seen.told[-1] == (CalleeLeft, {"reason": "CLIENT_INITIATED"})
