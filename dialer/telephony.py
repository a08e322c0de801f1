"""The seam to LiveKit: rooms, dials, fences, trunks. An outside failure is a value here, never an exception.

Every request has its own time limit. The double and the LiveKit adapter pass `tests/contracts/test_telephony.py`.
Source: design §5; reference/livekit.md §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

ROOM_TIMEOUT_S: Final = 10.0
DIAL_MARGIN_S: Final = 15.0
"""A dial request may take the ring timeout and this much: DNS, joining the room and retransmits come before ringing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRequest:
    """One room with its agent dispatch, made in one request."""

    name: str
    agent_name: str
    agent_metadata: str
    """The sealed brief."""
    room_metadata: str
    """Ids only: visible to every participant."""
    empty_timeout_s: int
    departure_timeout_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAnswer:
    """`ok` with the room's sid, or the failure's code (`unavailable`, `timeout`, …)."""

    ok: bool
    sid: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialRequest:
    """One INVITE. `to` is the only place outside the API and intake where a number stands in the clear."""

    room: str
    identity: str
    attempt_id: str
    to: str
    trunk_id: str
    caller_id: str
    ring_timeout_s: int
    max_call_duration_s: int

    def __repr__(self) -> str:
        return f"DialRequest({self.attempt_id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialAnswer:
    """How the request answered.

    `failed` carries what LiveKit said (`code`, and `sip_status` where it gave one; phrase scrubbed of digits);
    `unclear` means that no answer came from which anybody could tell whether the phone rang.
    """

    result: Literal["answered", "failed", "unclear"]
    sip_status: int | None = None
    code: str = ""
    phrase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A participant of a room, as LiveKit lists it."""

    identity: str
    kind: Literal["sip", "agent", "other"]
    call_status: str
    """`sip.callStatus`, empty for others."""


Deletion = Literal["deleted", "not_found", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """One SIP trunk and its limits, from the trunks file."""

    name: str
    address: str
    numbers: tuple[str, ...]
    transport: Literal["auto", "udp", "tcp", "tls"] = "tls"
    media_encryption: Literal["disable", "allow", "require"] = "require"
    auth_username: str = ""
    auth_password: str = ""
    calls_per_s: int = 1
    concurrency_max: int = 10

    def __repr__(self) -> str:
        return f"Trunk({self.name})"


class Telephony(Protocol):
    """What the effector may ask of LiveKit."""

    async def create_room(self, request: RoomRequest) -> RoomAnswer:
        """Make the room with its dispatch; the same name again answers the same room and dispatches nobody."""
        ...

    async def dial(self, request: DialRequest) -> DialAnswer:
        """Send one INVITE and wait for its answer: the only function that can ring a phone."""
        ...

    async def delete_room(self, name: str) -> Deletion:
        """Take the room down: hang-up, and fence."""
        ...

    async def legs(self, name: str) -> tuple[Leg, ...] | None:
        """List who is in the room; None where LiveKit cannot say."""
        ...

    async def ensure_trunk(self, trunk: Trunk) -> str:
        """Make or update the trunk of that name and return its id. Raises: TelephonyUnavailable."""
        ...

    async def auto_create_is_off(self) -> bool:
        """Probe that a room nobody made cannot be joined: else deleting a room fences nothing. Raises: as above."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class TelephonyUnavailable(Exception):
    """LiveKit cannot be reached at start; the process waits and says so."""
