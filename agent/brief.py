"""A job's brief: opened from its metadata; refused when it is not for this room."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import ValidationError

from runtime.seal import BriefBox, SealBroken
from runtime.settings import Settings, brief_keys
from schemas.brief import BRIEF_BYTES_MAX, Brief
from schemas.values import room_name


class BriefRefused(Exception):
    """A job whose brief cannot be worked on; the text names the rule and nothing of the content."""


def open_brief(metadata: str, room: str, settings: Settings) -> Brief:
    """Open a job's metadata. Raises: BriefRefused."""
    if len(metadata) > BRIEF_BYTES_MAX:
        raise BriefRefused("too_large")
    try:
        brief = BriefBox(brief_keys(settings.brief_key)).open(metadata)
    except (SealBroken, ValidationError):  # a validation error holds the content: it must not be chained
        raise BriefRefused("does_not_open") from None
    if room != room_name(brief.call_id, brief.attempt):
        raise BriefRefused("another_room")
    return brief


def socket_path(environment: Mapping[str, str] = os.environ) -> str:
    """Return where the worker's parent listens for facts."""
    from agent.wire import SOCKET_VARIABLE

    return environment[SOCKET_VARIABLE]
