"""Which topics the read side reads and writes: the contract's, unless a test names its own on a shared broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.topics import AUDIT, EVENTS
from schemas.values import PARTITIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The log, the audit topic, their common partition count, and the prefix of the publisher's transactional ids."""

    events: str = EVENTS.name
    audit: str = AUDIT.name
    partitions: int = PARTITIONS
    publisher: str = "audit"


STREAMS: Final = Streams()
