"""The named points around every transaction and every LiveKit request, where a crash or a fault may be put.

`runtime/clock.Clock.passing(step)` is called there; in production it costs one method call. Source: design §9.
"""

from __future__ import annotations

from enum import StrEnum


class Step(StrEnum):
    """Where a process may die."""

    TAKEOVER_FENCED = "takeover_fenced"
    TAKEOVER_RESTORED = "takeover_restored"
    TAKEOVER_RESUMED = "takeover_resumed"
    BATCH_DECIDED = "batch_decided"
    COMMIT_SENDING = "commit_sending"
    COMMIT_SENT = "commit_sent"
    COMMIT_ANSWERED = "commit_answered"
    EFFECTS_STARTED = "effects_started"
    ROOM_ASKING = "room_asking"
    ROOM_ANSWERED = "room_answered"
    DIAL_GATED = "dial_gated"
    DIAL_SENT = "dial_sent"
    DIAL_ANSWERED = "dial_answered"
    FENCE_ASKING = "fence_asking"
    FENCE_ANSWERED = "fence_answered"
    OUTCOME_HANDED_OVER = "outcome_handed_over"
