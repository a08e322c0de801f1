"""Records of `dialer.events` for tests: whole calls told by the contract's own payloads, encoded as the owner encodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from projections.timeline import TimelineRow
from schemas.commands import Consent
from schemas.envelope import Envelope, encode, headers_of, sequence_text
from schemas.events import (
    AgentDispatched,
    AgentJoined,
    AttemptOpened,
    CallAnswered,
    CalleeRinging,
    CalleeSuppressed,
    CallEnded,
    CallPrepared,
    CallRefused,
    CallRequested,
    DialFailed,
    DialStarted,
    Durations,
    FenceStarted,
    Permit,
    RetryScheduled,
    RoomCreated,
    Rules,
)
from schemas.facts import FACTS, CalleeStatus, ConversationEnded, NotificationDelivered, fact_source
from schemas.outcomes import Attribution, FenceReason, Outcome, Refusal
from schemas.responses import EventView
from schemas.values import (
    PARTITIONS,
    Sealed,
    attempt_id,
    call_id,
    callee_key,
    callee_of,
    partition_of,
    request_hash,
    room_name,
)

T0: Final = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
CAMPAIGN: Final = "rx-refill"
BOX: Final = Sealed(key="k1", box="c2VhbGVkIGJ5dGVz")
RULES: Final = Rules(
    attempts_max=3,
    busy_s=300,
    no_answer_s=1800,
    trunk_failed_s=60,
    agent_lost_s=60,
    unknown_after_s=None,
    ring_timeout_s=30,
    max_call_duration_s=600,
    trunk="cvs-retail-outbound",
)
PERMIT: Final = Permit(
    policy="p1",
    window="always",
    zones=("America/New_York",),
    region="US",
    consent_id="c-9",
    consent_kind="prior_express",
    attempts_before=0,
    openings_before=0,
    suppressed=False,
    control="0",
)


def call(number: int, request: int = 0, campaign: str = CAMPAIGN) -> str:
    """Name the call of one callee and request."""
    callee = callee_key(f"+1212555{number:04d}", b"pepper of the tests")
    return call_id(callee, request_hash(campaign, f"refill-{number}-{request}"))


@dataclass(frozen=True, slots=True)
class Record:
    """What a consumer hands out."""

    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass
class LogBuilder:
    """Writes records as the partitions' owners do: sequence per callee, offset per partition, a second between two."""

    records: list[Record] = field(default_factory=list)
    partitions: int = PARTITIONS
    _offsets: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    _sequences: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _now: datetime = T0

    def add(self, subject: str, *payloads: Any, callee_only: bool = False) -> list[Record]:
        """Append payloads about one call (or about its callee only)."""
        return [self._append(subject, payload, callee_only) for payload in payloads]

    def _append(self, subject: str, payload: Any, callee_only: bool) -> Record:
        callee = callee_of(subject)
        self._sequences[callee] += 1
        self._now += timedelta(seconds=1)
        number = self._sequences[callee]
        fact = payload.TYPE in FACTS
        source = fact_source(payload.attempt, payload.job_id) if fact else "/dialer"
        envelope = Envelope(
            type=payload.TYPE,
            source=source,
            id=f"{attempt_id(subject, payload.attempt)}/{payload.job_id}/{payload.number}"
            if fact
            else f"{callee}/{number}",
            time=self._now,
            subject=None if callee_only else subject,
            sequence=sequence_text(number),
            causationid=f"{callee}/{number - 1}" if number > 1 else None,
            data=payload,
        )
        return self.append_raw(callee, encode(envelope), headers_of(envelope))

    def append_raw(self, callee: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> Record:
        """Append bytes as they are."""
        partition = partition_of(callee, self.partitions)
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        at_ms = int(self._now.timestamp() * 1000)
        record = Record(partition, offset, at_ms, callee.encode(), value, tuple(headers))
        self.records.append(record)
        return record


def requested(subject: str, campaign: str = CAMPAIGN, consent: bool = False) -> CallRequested:
    """Return the request of a call."""
    return CallRequested(
        request_id=f"refill-{subject[:4]}",
        campaign_id=campaign,
        to=BOX,
        variables=BOX,
        body_hash="0011223344556677",
        region="US",
        zones=("America/New_York",),
        priority=5,
        not_before=None,
        not_after=T0 + timedelta(hours=8),
        remember_until=T0 + timedelta(days=35),
        consent=Consent(id="c-9", kind="prior_express", obtained_at=T0) if consent else None,
    )


PREPARED: Final = CallPrepared(campaign_hash="h1", rules=RULES, message=BOX, message_length=40)


def opened(subject: str, attempt: int = 1) -> list[Any]:
    """Return an opening as far as its dial."""
    return [
        AttemptOpened(attempt=attempt),
        RoomCreated(attempt=attempt, room=room_name(subject, attempt), room_sid="RM_1"),
        AgentDispatched(attempt=attempt, agent_name="outbound-dialer"),
        AgentJoined(attempt=attempt, job_id="AJ_1"),
        DialStarted(attempt=attempt, trunk="cvs-retail-outbound", caller_id="+12125550000", permit=PERMIT),
    ]


def talked(attempt: int = 1) -> list[Any]:
    """Return what follows the dial of a call that was delivered."""
    said = {"attempt": attempt, "job_id": "AJ_1"}
    return [
        CalleeRinging(attempt=attempt),
        CalleeStatus(**said, number=2, status="active"),
        CallAnswered(attempt=attempt),
        NotificationDelivered(**said, number=3, spoken_ms=2500),
        ConversationEnded(**said, number=4, reason="delivered", callee_seen=True, gap=False),
        FenceStarted(attempt=attempt, reason=FenceReason.CONVERSATION_ENDED),
        CallEnded(
            attempt=attempt,
            outcome=Outcome.DELIVERED,
            attribution=Attribution.CALLEE,
            durations=Durations(waited_s=1.0, rang_s=2.0, talked_s=4.5),
        ),
    ]


def busy(attempt: int = 1) -> list[Any]:
    """Return what follows the dial of an attempt that met a busy line."""
    return [
        DialFailed(
            attempt=attempt,
            sip_status=486,
            outcome=Outcome.BUSY,
            attribution=Attribution.CALLEE,
            rule="486",
            sent=True,
            phrase="Busy Here",
        ),
        FenceStarted(attempt=attempt, reason=FenceReason.DIAL_FAILED),
        RetryScheduled(attempt=attempt, not_before=T0 + timedelta(minutes=5), outcome=Outcome.BUSY),
    ]


def delivered(subject: str, campaign: str = CAMPAIGN) -> list[Any]:
    """Tell a call that was delivered at once: 14 records."""
    return [requested(subject, campaign), PREPARED, *opened(subject), *talked()]


def busy_then_delivered(subject: str) -> list[Any]:
    """Tell a call that met a busy line and was delivered the second time."""
    return [requested(subject), PREPARED, *opened(subject), *busy(), *opened(subject, 2), *talked(2)]


def refused(subject: str) -> list[Any]:
    """Tell a call that was refused."""
    return [requested(subject), CallRefused(reason=Refusal.SUPPRESSED)]


SUPPRESSED: Final = CalleeSuppressed(stop_id="s1", scope="all", reason="requested")


def mixed_log(calls: int, partitions: int = PARTITIONS) -> list[Record]:
    """Return a log of many calls, side by side: delivered, busy at first, refused, still ringing, suppressed."""
    builder = LogBuilder(partitions=partitions)
    stories = []
    for number in range(calls):
        subject = call(number)
        tell = (delivered, busy_then_delivered, refused, lambda s: [requested(s), PREPARED, *opened(s)])[number % 4]
        stories.append((subject, iter(tell(subject))))
    while stories:
        for story in list(stories):
            payload = next(story[1], None)
            if payload is None:
                stories.remove(story)
            else:
                builder.add(story[0], payload)
    builder.add(call(2), SUPPRESSED, callee_only=True)
    return builder.records


def as_view(row: TimelineRow) -> EventView:
    """Return what the API shows of a timeline row."""
    return EventView(
        sequence=row.sequence,
        at=row.at,
        type=row.type,
        source=row.source,
        id=row.id,
        cause=row.cause,
        data=row.data,
    )
