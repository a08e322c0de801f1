"""The topics table: every topic, its key, its settings, what it is for. `dialer topics` makes and verifies them.

Source: design §3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.values import PARTITIONS

_DAY_MS: Final = 86_400_000
_MIB: Final = 1024 * 1024
BATCH_BYTES_MAX: Final = 4 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic: partitions and configuration as the broker names it."""

    name: str
    key: str
    purpose: str
    partitions: int
    config: dict[str, str]


def _topic(name: str, key: str, purpose: str, partitions: int = PARTITIONS, **config: object) -> Topic:
    settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": BATCH_BYTES_MAX} | config
    return Topic(
        name=name,
        key=key,
        purpose=purpose,
        partitions=partitions,
        config={k.replace("_", "."): str(v) for k, v in settings.items()},
    )


COMMANDS: Final = _topic(
    "dialer.commands", "any", "asked: place_call and stops", retention_ms=7 * _DAY_MS, segment_ms=3_600_000
)
STOPS: Final = _topic("dialer.stops", "callee_key", "asked, urgent: cancels and suppressions", retention_ms=7 * _DAY_MS)
OBSERVATIONS: Final = _topic(
    "dialer.observations", "callee_key", "seen: agents' facts, webhooks, late outcomes", retention_ms=7 * _DAY_MS
)
EVENTS: Final = _topic("dialer.events", "callee_key", "decided: the log, one writer a partition", retention_ms=-1)
CALLEES: Final = _topic(
    "dialer.callees",
    "callee_key",
    "snapshot of each callee, and $offsets",
    cleanup_policy="compact",
    segment_bytes=16 * _MIB,
    segment_ms=600_000,
    min_cleanable_dirty_ratio=0.1,
    max_compaction_lag_ms=600_000,
)
KEYS: Final = _topic(
    "dialer.keys",
    "callee_key",
    "each callee's data key, wrapped",
    cleanup_policy="compact",
    max_compaction_lag_ms=_DAY_MS,
)
CAMPAIGNS: Final = _topic(
    "dialer.campaigns", "hash", "campaign definitions, content-addressed", partitions=1, cleanup_policy="compact"
)
CONTROL: Final = _topic(
    "dialer.control",
    "campaign id, *, $layout, $format",
    "pause, resume, stop; layout, format",
    partitions=1,
    cleanup_policy="compact",
)
REJECTED: Final = _topic(
    "dialer.rejected", "HMAC of the bytes", "input that was refused, without its bytes", retention_ms=90 * _DAY_MS
)
AUDIT: Final = _topic(
    "dialer.audit", "callee_key", "what auditors read, without personal data", retention_ms=7 * 365 * _DAY_MS
)

TOPICS: Final = (COMMANDS, STOPS, OBSERVATIONS, EVENTS, CALLEES, KEYS, CAMPAIGNS, CONTROL, REJECTED, AUDIT)
OFFSETS_KEY: Final = b"$offsets"
"""Key, in each partition of `dialer.callees`, of the inputs that the partition's snapshots stand for."""
LAYOUT_KEY: Final = b"$layout"
FORMAT_KEY: Final = b"$format"
PARTITIONER: Final = "murmur2"
FORMAT: Final = "1"
