"""The audit trail, pure: given this log, then these audit records, from any place it is taken up again."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest

from projections.audit_names import LINES
from projections.audit_trail import START, AuditOut, Place, Trail, place_of
from schemas.audit import AUDIT_NAMES, AuditRecord
from schemas.codec import AUDITED, decode_payload
from schemas.envelope import decode
from schemas.events import CalleeSuppressed, CallRequested
from schemas.facts import (
    AgentApiFailed,
    AgentCrashed,
    AnswererDetected,
    CalleeHungUp,
    ConversationEnded,
    ConversationStarted,
    DtmfReceived,
    OptOutHeard,
    RecordingCompleted,
    RecordingFailed,
    TurnTaken,
    VoicemailLeft,
)
from schemas.values import Invalid
from tests.projections.records import (
    BOX,
    PREPARED,
    SUPPRESSED,
    LogBuilder,
    Record,
    call,
    delivered,
    mixed_log,
    opened,
    refused,
    requested,
    talked,
)

SUBJECT = call(1)


def audited(records: Sequence[Record], place: Place = START, ended_max: int = 4096) -> list[AuditOut]:
    """Make the audit records of a partition's log, as a publisher does that takes it up at this place."""
    trail = Trail(ended_max)
    return [
        out
        for record in records
        if record.offset >= place.memory_from
        for out in trail.take(record)
        if record.offset > place.published
    ]


def body(out: AuditOut) -> AuditRecord:
    payload = decode_payload(AUDITED, decode(out.value).type, decode(out.value).data)
    assert isinstance(payload, AuditRecord)
    return payload


def test_a_delivered_call_gives_its_four_lines_each_with_its_campaign() -> None:
    """Ids are the event's with the name; time, subject, sequence and cause are the event's."""
    records = LogBuilder().add(SUBJECT, *delivered(SUBJECT))
    outs = audited(records)
    assert [body(out).name for out in outs] == [
        "call_requested",
        "call_answered",
        "notification_delivered",
        "call_ended",
    ]
    assert {(body(out).campaign_id, body(out).call_id) for out in outs} == {("rx-refill", SUBJECT)}
    event, line = decode(records[-1].value), decode(outs[-1].value)
    assert line.id == f"{event.id}/call_ended"
    assert (line.type, line.source) == ("dialer.audit.call_ended.v1", "/audit")
    assert (line.time, line.subject, line.sequence) == (event.time, event.subject, event.sequence)
    assert line.causationid == event.id
    assert outs[-1].key == records[-1].key
    assert body(outs[-1]).detail == {
        "outcome": "delivered",
        "attribution": "callee",
        "waited_s": 1.0,
        "rang_s": 2.0,
        "talked_s": 4.5,
    }


def test_what_went_wrong_in_a_call_is_named_as_downstream_knows_it() -> None:
    """user_hangup, error_http, error_exception; a suppression names the callee and no call."""
    said = {"attempt": 1, "job_id": "AJ_1"}
    builder = LogBuilder()
    builder.add(
        SUBJECT,
        requested(SUBJECT, consent=True),
        CalleeHungUp(**said, number=2, spoken_ms=900),
        AgentApiFailed(**said, number=3, service="speak", code="timeout at +1 212 555 0123"),
        AgentCrashed(**said, number=4),
    )
    builder.add(SUBJECT, SUPPRESSED, callee_only=True)
    lines = [body(out) for out in audited(builder.records)]
    assert [line.name for line in lines] == [
        "call_requested",
        "user_hangup",
        "error_http",
        "error_exception",
        "callee_suppressed",
    ]
    assert lines[0].detail["consent_id"] == "c-9"
    assert lines[2].detail == {"service": "speak", "code": "timeout at #"}
    assert (lines[1].attempt, lines[-1].attempt) == (1, None)
    assert (lines[-1].call_id, lines[-1].callee_key) == (None, SUBJECT[:26])


def test_a_one_way_call_does_not_claim_a_conversation() -> None:
    """`conversation_started` belongs to two-way campaigns."""
    start = ConversationStarted(attempt=1, job_id="AJ_1", number=2, answer_to_audio_ms=120)
    assert audited(LogBuilder().add(SUBJECT, start)) == []


TWO_WAY = (
    ConversationStarted(attempt=1, job_id="AJ_1", number=2, answer_to_audio_ms=120, greeting_ms=2400),
    TurnTaken(attempt=1, job_id="AJ_1", number=3, speaker="callee", text=BOX),
    DtmfReceived(attempt=1, job_id="AJ_1", number=4, digit=BOX),
    AnswererDetected(attempt=1, job_id="AJ_1", number=5, category="human", rule="r", evidence="e", latency_ms=9),
    OptOutHeard(attempt=1, job_id="AJ_1", number=6, evidence="en/opt-out/stop"),
)


def test_a_two_way_call_tells_of_its_greeting_and_its_opt_out() -> None:
    """The suppression names no call, for it is the callee's; its detail says in which call it was heard."""
    builder = LogBuilder()
    builder.add(SUBJECT, requested(SUBJECT), *TWO_WAY)
    heard = decode(builder.records[-1].value).id
    builder.add(SUBJECT, CalleeSuppressed(stop_id=heard, scope="all", reason="opt_out"), callee_only=True)
    lines = [body(out) for out in audited(builder.records)]
    assert [line.name for line in lines] == ["call_requested", "conversation_started", "callee_suppressed"]
    assert lines[1].detail == {"answer_to_audio_ms": 120, "greeting_ms": 2400}
    assert lines[2].detail == {"scope": "all", "reason": "opt_out", "heard_in": SUBJECT}
    assert lines[2].call_id is None
    asked = audited(LogBuilder().add(SUBJECT, SUPPRESSED, callee_only=True))
    assert body(asked[0]).detail["heard_in"] is None


def test_a_machine_is_told_of_by_what_was_done_with_it() -> None:
    """Hung up on, or a message left; a job that ends otherwise is no `amd_hangup`."""
    said = {"attempt": 1, "job_id": "AJ_1"}
    builder = LogBuilder()
    builder.add(
        SUBJECT,
        requested(SUBJECT),
        AnswererDetected(**said, number=2, category="machine-vm", rule="r", evidence="e", latency_ms=400),
        VoicemailLeft(**said, number=3, spoken_ms=7100),
        ConversationEnded(**said, number=4, reason="voicemail_left", callee_seen=True, gap=False),
        ConversationEnded(**said, number=5, reason="machine_hung_up", callee_seen=True, gap=False),
    )
    lines = [body(out) for out in audited(builder.records)]
    assert [(line.name, line.detail) for line in lines[1:]] == [
        ("voicemail_left", {"spoken_ms": 7100}),
        ("amd_hangup", {}),
    ]


def test_a_recording_that_ends_after_its_call_names_its_campaign() -> None:
    """Egress uploads when everybody has hung up: the fact comes after the terminal event."""
    builder = LogBuilder(partitions=1)
    builder.add(SUBJECT, *delivered(SUBJECT))
    done = {"egress_id": "EG_1", "path": f"recordings/rx-refill/{SUBJECT}-1/recording.mp3"}
    for number in range(2, 40):
        builder.add(call(number), *delivered(call(number)))
    recorded = RecordingCompleted(attempt=1, job_id="AJ_1", number=9, **done, duration_ms=31_200, size_bytes=249_600)
    builder.add(SUBJECT, recorded, RecordingFailed(attempt=1, job_id="AJ_1", number=10, egress_id=None, code="aborted"))
    last = body(audited(builder.records)[-1])
    assert (last.name, last.call_id, last.campaign_id) == ("recording_completed", SUBJECT, "rx-refill")
    assert last.detail == {"path": done["path"], "duration_ms": 31_200, "size_bytes": 249_600}


def test_every_name_of_the_contract_is_made() -> None:
    """And no other."""
    assert {line.name for lines in LINES.values() for line in lines} == set(AUDIT_NAMES)


def test_no_sealed_box_and_no_number_reaches_the_audit() -> None:
    """Promise 7."""
    builder = LogBuilder(records=mixed_log(40, 1), partitions=1)
    builder.add(SUBJECT, *TWO_WAY)
    for out in audited(builder.records):
        assert b"c2VhbGVk" not in out.value
        assert b"+1" not in out.value
        assert b"box" not in out.value


@pytest.mark.parametrize("ended_max", [0, 1, 3, 4096])
def test_taken_up_at_any_record_the_trail_goes_on_with_the_same_records(ended_max: int) -> None:
    """Whatever it remembers, it remembers again from `memory_from`: ids of open and of lately ended calls included."""
    records = mixed_log(24, 1)
    late = LogBuilder(records=records, partitions=1)
    late._offsets[0] = len(records)
    for number in (0, 4, 9, 21):
        late.add(call(number), AgentCrashed(attempt=1, job_id="AJ_1", number=99))
    whole = audited(late.records, ended_max=ended_max)
    for index, out in enumerate(whole):
        place = place_of(out.headers)
        assert place is not None
        assert audited(late.records, place, ended_max) == whole[index + 1 :]


def test_the_way_back_is_bounded_by_what_is_open() -> None:
    """With every call ended and few remembered, a new trail starts near the end, not at the start of the log."""
    builder = LogBuilder(partitions=1)
    for number in range(200):
        builder.add(call(number), *delivered(call(number)))
    last = audited(builder.records, ended_max=10)[-1]
    place = place_of(last.headers)
    assert place is not None
    assert place.published - place.memory_from < 12 * 14


def test_a_fact_long_after_the_end_has_no_campaign_rather_than_a_guessed_one() -> None:
    """The memory of ended calls is bounded, by the log's order alone."""
    builder = LogBuilder(partitions=1)
    for number in range(4):
        builder.add(call(number), *delivered(call(number)))
    crash = AgentCrashed(attempt=1, job_id="AJ_1", number=99)
    builder.add(call(0), crash)
    builder.add(call(3), crash)
    forgotten, remembered = [body(out) for out in audited(builder.records, ended_max=2)][-2:]
    assert (forgotten.campaign_id, forgotten.call_id) == (None, call(0))
    assert remembered.campaign_id == "rx-refill"


def test_an_event_of_no_interest_is_skipped_by_its_header() -> None:
    """Bytes that would not even decode are not looked at."""
    record = LogBuilder().append_raw(SUBJECT[:26], b"not json", [("ce_type", PREPARED.TYPE.encode())])
    assert Trail().take(record) == []


def test_an_event_of_interest_with_a_value_of_a_later_version_is_not_passed_over_in_silence() -> None:
    """The publisher alarms: an auditor misses this one until the read side is updated."""
    builder = LogBuilder()
    record = builder.add(SUBJECT, *refused(SUBJECT))[-1]
    later = orjson.loads(record.value)
    later["data"]["reason"] = "mercury_in_retrograde"
    with pytest.raises(Invalid, match="unknown_value"):
        Trail().take(builder.append_raw(SUBJECT[:26], orjson.dumps(later), record.headers))


def test_the_request_is_the_only_event_that_carries_the_ids() -> None:
    """Why the trail remembers at all."""
    builder = LogBuilder()
    builder.add(SUBJECT, *opened(SUBJECT), *talked())
    assert {body(out).campaign_id for out in audited(builder.records)} == {None}
    assert {"campaign_id", "request_id"} <= set(CallRequested.__dataclass_fields__)
