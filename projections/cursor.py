"""The opaque cursor of a page of calls: a place in the list, not a count, so that new calls do not shift a page."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from projections.store import PageKey
from schemas.responses import CallView
from schemas.values import Invalid

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_PLACE: Final = re.compile(r"([0-9]{1,16})\.([a-z2-7]{26}-[a-z2-7]{16})")


def key_of(call: CallView) -> PageKey:
    """Return a call's place in the list; one whose request was never seen comes last."""
    return PageKey(call.requested_at or _EPOCH, call.call_id)


def write(key: PageKey) -> str:
    """Write a place as a cursor."""
    text = f"{(key.requested_at - _EPOCH) // _US}.{key.call_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(text: str) -> PageKey:
    """Read a cursor. Raises: Invalid `cursor: not_a_cursor`."""
    try:
        found = _PLACE.fullmatch(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii"))
    except (binascii.Error, ValueError):
        found = None
    if found is None:
        raise Invalid("cursor", "not_a_cursor")
    return PageKey(_EPOCH + int(found[1]) * _US, found[2])
