"""The closed words of the contract: what became of a call, whose doing it was, why one was refused.

Source: design §4; reference/field.md D4.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What happened to a call that ended."""

    DELIVERED = "delivered"
    CONVERSED = "conversed"
    VOICEMAIL_LEFT = "voicemail_left"
    MACHINE_HUNG_UP = "machine_hung_up"
    HUNG_UP_EARLY = "hung_up_early"
    OPTED_OUT = "opted_out"
    TRANSFERRED = "transferred"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    DECLINED = "declined"
    INVALID_NUMBER = "invalid_number"
    BLOCKED = "blocked"
    TRUNK_FAILED = "trunk_failed"
    AGENT_UNAVAILABLE = "agent_unavailable"
    AGENT_LOST = "agent_lost"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class Attribution(StrEnum):
    """Whose doing it was."""

    CALLEE = "callee"
    CARRIER = "carrier"
    US = "us"
    UNKNOWN = "unknown"


class Refusal(StrEnum):
    """Why a call ended before its first room was asked for."""

    UNKNOWN_CAMPAIGN = "unknown_campaign"
    MISSING_VARIABLE = "missing_variable"
    MESSAGE_EMPTY = "message_empty"
    MESSAGE_TOO_LONG = "message_too_long"
    COUNTRY_NOT_ALLOWED = "country_not_allowed"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"


class Deferral(StrEnum):
    """Why a call waits."""

    NOT_BEFORE = "not_before"
    CALLEE_BUSY = "callee_busy"
    CAMPAIGN_UNREACHABLE = "campaign_unreachable"


class FenceReason(StrEnum):
    """Why an attempt's room is being taken down; what follows is decided once that is certain."""

    ROOM_FAILED = "room_failed"
    AGENT_UNAVAILABLE = "agent_unavailable"
    AGENT_LOST = "agent_lost"
    DIAL_WITHDRAWN = "dial_withdrawn"
    DIAL_FAILED = "dial_failed"
    DIAL_UNCLEAR = "dial_unclear"
    CONVERSATION_ENDED = "conversation_ended"
    CALLEE_LEFT = "callee_left"
    CALL_TOO_LONG = "call_too_long"
    ANSWERED_BEFORE = "answered_before"
    TURN_OVERDUE = "turn_overdue"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"


class Withdrawal(StrEnum):
    """Why a committed dial was not sent: the gate's rows, and what was found out afterwards."""

    NOT_OWNED = "not_owned"
    STALE_DIAL = "stale_dial"
    STOPS_NOT_DRAINED = "stops_not_drained"
    CONTROL_STALE = "control_stale"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    AGENT_NOT_READY = "agent_not_ready"
    NO_TOKEN = "no_token"
    CLOCK = "clock"
    NOT_SENT = "not_sent"
    SHUTTING_DOWN = "shutting_down"
    SUPERSEDED = "superseded"


class Status(StrEnum):
    """The read side's word for where a call stands."""

    ACCEPTED = "accepted"
    WAITING = "waiting"
    OPENING = "opening"
    DIALING = "dialing"
    RINGING = "ringing"
    ANSWERED = "answered"
    ENDED = "ended"
    REFUSED = "refused"
