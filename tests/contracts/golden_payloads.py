"""What the golden records say, as payloads of today: a record of every type and version ever shipped decodes to these.

A field that is added later gets its default here; a golden file itself is never touched again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from dialer.callee.state import Attempt, Call, Callee, Closed, Phase
from schemas import audit as a
from schemas import commands as c
from schemas import events as e
from schemas import facts as f
from schemas import observations as o
from schemas.brief import Brief
from schemas.conversation import AgentApi, Conversation, Phrases, Silence, Words
from schemas.outcomes import Attribution, Deferral, FenceReason, Outcome, Refusal, Withdrawal
from schemas.rejected import Rejected
from schemas.values import Sealed

AT: Final = datetime(2026, 11, 22, 15, 4, 5, 123456, tzinfo=UTC)
LATER: Final = datetime(2026, 12, 27, 15, 4, 5, tzinfo=UTC)
CALLEE: Final = "abcdefghijklmnopqrstuvwx23"
CALL: Final = f"{CALLEE}-abcdefghijklmno2"
BOX: Final = Sealed(key="1", box="AAECAwQFBgcICQoLc2VhbGVk")
RULES: Final = e.Rules(
    attempts_max=3,
    busy_s=300,
    no_answer_s=1800,
    trunk_failed_s=60,
    agent_lost_s=60,
    unknown_after_s=None,
    ring_timeout_s=30,
    max_call_duration_s=600,
    trunk="cvs-retail-outbound",
    type="one_way",
    language="en-US",
)
CONSENT: Final = c.Consent(id="c-9", kind="prior_express", obtained_at=AT)
PERMIT: Final = e.Permit(
    policy="s1",
    window="none",
    zones=("America/New_York", "America/Chicago"),
    region="US",
    consent_id="c-9",
    consent_kind="prior_express",
    attempts_before=1,
    openings_before=2,
    suppressed=False,
    control="7",
)
_OF: Final[dict[str, Any]] = {"attempt": 2, "job_id": "AJ_abc", "number": 4}

COMMANDS: Final[tuple[Any, ...]] = (
    c.PlaceCall(
        request_id="refill-000123",
        campaign_id="rx-refill",
        to="+12125550123",
        variables={"first_name": "Ann", "store": "Main Street"},
        timezone="America/New_York",
        not_before=AT,
        not_after=LATER,
        priority=9,
        consent=CONSENT,
    ),
    c.CancelCall(call_id=CALL, reason="requested"),
    c.SuppressCallee(callee_key=CALLEE, scope="all", reason="opted_out"),
    c.LiftSuppression(callee_key=CALLEE, scope="all", reason="opted_in"),
    c.EraseCallee(callee_key=CALLEE, reason="requested"),
)
EVENTS: Final[tuple[Any, ...]] = (
    e.CallRequested(
        request_id="refill-000123",
        campaign_id="rx-refill",
        to=BOX,
        variables=BOX,
        body_hash="AAECAwQFBgc=",
        region="US",
        zones=("America/New_York", "America/Chicago"),
        priority=9,
        not_before=AT,
        not_after=LATER,
        remember_until=LATER,
        consent=CONSENT,
    ),
    e.CallPrepared(campaign_hash="h" * 32, rules=RULES, message=BOX, message_length=61),
    e.CallRefused(reason=Refusal.COUNTRY_NOT_ALLOWED),
    e.CallDeferred(not_before=LATER, reason=Deferral.CALLEE_BUSY),
    e.AttemptOpened(attempt=2),
    e.RoomCreated(attempt=2, room=f"call-{CALL}-2", room_sid="RM_abc"),
    e.RoomFailed(attempt=2, code="unavailable"),
    e.AgentDispatched(attempt=2, agent_name="outbound-dialer"),
    e.AgentJoined(attempt=2, job_id="AJ_abc"),
    e.AgentUnavailable(attempt=2),
    e.AgentLost(attempt=2, answered=True),
    e.DialStarted(attempt=2, trunk="cvs-retail-outbound", caller_id="+12125550199", permit=PERMIT),
    e.DialWithdrawn(attempt=2, reason=Withdrawal.STOPS_NOT_DRAINED),
    e.CalleeRinging(attempt=2),
    e.CallAnswered(attempt=2),
    e.DialFailed(
        attempt=2,
        sip_status=486,
        outcome=Outcome.BUSY,
        attribution=Attribution.CALLEE,
        rule="busy",
        sent=True,
        retry="busy",
        code="resource_exhausted",
        phrase="Busy Here",
    ),
    e.DialUnknown(attempt=2, alarm=True),
    e.FenceStarted(attempt=2, reason=FenceReason.CONVERSATION_ENDED),
    e.FenceConfirmed(attempt=2),
    e.RetryScheduled(attempt=2, not_before=LATER, outcome=Outcome.BUSY),
    e.CallCancelled(stop_id="stop-1", reason="requested", remember_until=LATER),
    e.CallEnded(
        attempt=2,
        outcome=Outcome.DELIVERED,
        attribution=Attribution.CALLEE,
        durations=e.Durations(waited_s=3.5, rang_s=6.25, talked_s=4.125),
    ),
    e.CalleeSuppressed(stop_id="stop-2", scope="all", reason="opted_out"),
    e.SuppressionLifted(stop_id="stop-3", scope="all", reason="opted_in"),
    e.CalleeErased(stop_id="stop-4", reason="requested"),
)
FACTS: Final[tuple[Any, ...]] = (
    f.AgentReady(**_OF, renewal=0),
    f.CalleeJoined(**_OF),
    f.CalleeStatus(**_OF, status="active"),
    f.CalleeLeft(**_OF, reason="CLIENT_INITIATED"),
    f.ConversationStarted(**_OF, answer_to_audio_ms=180),
    f.NotificationDelivered(**_OF, spoken_ms=4200),
    f.CalleeHungUp(**_OF, spoken_ms=900),
    f.AgentApiFailed(**_OF, service="speak", code="503"),
    f.AgentCrashed(**_OF),
    f.OptOutHeard(**_OF, evidence="stop calling"),
    f.ConversationEnded(**_OF, reason="delivered", callee_seen=True, gap=False),
    f.AnswererDetected(**_OF, category="machine-vm", rule="en/vm/leave-a-message", evidence="ab" * 8, latency_ms=410),
    f.VoicemailLeft(**_OF, spoken_ms=7100),
    f.TurnTaken(**_OF, speaker="agent", text=BOX, spoken_ms=2300, reply_ms=840),
    f.DtmfReceived(**_OF, digit=BOX),
    f.CallTransferred(**_OF),
    f.RecordingStarted(**_OF, egress_id="EG_abc"),
    f.RecordingCompleted(
        **_OF,
        egress_id="EG_abc",
        path=f"recordings/rx-refill/{CALL}-2/recording.mp3",
        duration_ms=31_200,
        size_bytes=251_904,
    ),
    f.RecordingFailed(**_OF, egress_id=None, code="unavailable"),
)
OBSERVATIONS: Final[tuple[Any, ...]] = (
    o.RoomFinished(attempt=2),
    o.ParticipantJoined(attempt=2, kind="sip"),
    o.ParticipantLeft(attempt=2, kind="agent", reason="ROOM_DELETED"),
    o.DialOutcome(attempt=2, result="failed", sip_status=486, code="resource_exhausted", phrase="Busy Here"),
)
REJECTED: Final = Rejected(
    topic="dialer.commands", partition=3, offset=17, length=212, hmac="ab" * 32, field="to", rule="premium"
)


def audit_record(name: str) -> a.AuditRecord:
    """Return the audit record of one name."""
    return a.AuditRecord(
        name=name,
        callee_key=CALLEE,
        call_id=CALL,
        campaign_id="rx-refill",
        request_id="refill-000123",
        attempt=2,
        detail={"outcome": "delivered", "waited_s": 3.5},
    )


PAYLOADS: Final[dict[str, Any]] = {
    **{p.TYPE: p for p in (*COMMANDS, *EVENTS, *FACTS, *OBSERVATIONS, REJECTED)},
    **{a.audit_type(name): audit_record(name) for name in a.AUDIT_NAMES},
}
CONVERSATION: Final = Conversation(
    machine="leave_message",
    recording="consent",
    agent_api=AgentApi(url="http://127.0.0.1:8090/v1", model="scheduler", timeout_s=2.5, tries=3, failures_max=1),
    silence=Silence(prompt_after_s=6.0, prompts_max=2),
    opt_out_key="9",
    transfer_to={"desk": "tel:+12125550100", "nurse": "sip:nurse@clinic.example"},
    phrases=Phrases(silence="Hello?", goodbye="Bye.", fallback="Sorry?", opt_out="We will not.", recording="Recorded."),
)
SECOND: Final[dict[str, Any]] = {
    "dialer.event.call_prepared.v1+2": e.CallPrepared(
        campaign_hash="h" * 32,
        rules=replace(RULES, type="two_way", conversation=CONVERSATION),
        message=BOX,
        message_length=61,
        words=BOX,
    ),
    "agent.fact.conversation_started.v1+2": f.ConversationStarted(**_OF, answer_to_audio_ms=180, greeting_ms=2400),
    "agent.fact.conversation_ended.v1+2": f.ConversationEnded(
        **_OF, reason="opted_out", callee_seen=True, gap=False, stayed=True
    ),
}
"""`{type}+{generation}`: the same types once more, with the fields that conversations added."""
SNAPSHOT: Final = Callee(
    callee_key=CALLEE,
    sequence=41,
    now=AT,
    suppressed="opted_out",
    calls={
        CALL: Call(
            call_id=CALL,
            campaign_id="rx-refill",
            to=BOX,
            variables=None,
            body_hash="AAECAwQFBgc=",
            region="US",
            zones=("America/New_York", "America/Chicago"),
            priority=9,
            not_after=LATER,
            remember_until=LATER,
            requested_at=AT,
            phase=Phase.FENCING,
            due=AT,
            consent_id="c-9",
            consent_kind="prior_express",
            campaign_hash="h" * 32,
            rules=RULES,
            message=BOX,
            openings=2,
            openings_spent=1,
            dials=2,
            withdrawals=1,
            attempt=Attempt(
                number=2,
                opened_at=AT,
                room_stands=True,
                job_id="AJ_abc",
                ready_at=AT,
                dialed_at=AT,
                ringing_at=AT,
                answered_at=AT,
                fencing_since=AT,
                fenced_at=AT,
                reason=FenceReason.CALLEE_LEFT,
                settled=True,
                failed=Outcome.BUSY,
                failed_by=Attribution.CALLEE,
                retry="busy",
                hung_up=True,
                agent_done=True,
            ),
            cancelled=True,
            suppressed=True,
            facts={"1/AJ_abb": "1e", "2/AJ_abc": "1000000000000000000001e"},
        )
    },
    closed={"abcdefghijklmno3": Closed(body_hash="AAECAwQFBgc=", until=LATER, ended_at=AT, facts={"1/AJ_abd": "6"})},
    cancels={"abcdefghijklmno4": LATER},
    stops_seen=("stop-1", "stop-2"),
)
_CALL: Final = SNAPSHOT.calls[CALL]
assert _CALL.attempt is not None
SNAPSHOT_2: Final = replace(
    SNAPSHOT,
    calls={
        CALL: replace(
            _CALL,
            rules=replace(RULES, type="two_way", conversation=CONVERSATION),
            words=BOX,
            attempt=replace(_CALL.attempt, came_to=Outcome.OPTED_OUT),
        )
    },
)
OFFSETS: Final = {"dialer.commands": 120, "dialer.stops": 7, "dialer.observations": 4242}

SECRET: Final = bytes(range(32))
"""A key for tests, known to everybody."""
BRIEF: Final = Brief(
    call_id=CALL,
    attempt=2,
    campaign_id="rx-refill",
    campaign_hash="h" * 32,
    type="one_way",
    language="en-US",
    message="Hello Ann, your prescription is ready at Main Street.",
    callee_identity=f"callee-{CALL}-2",
    ring_timeout_s=30,
    max_call_duration_s=600,
    data_key_id="1",
    data_key="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
)
BRIEF_2: Final = replace(
    BRIEF,
    type="two_way",
    conversation=CONVERSATION,
    words=Words(voicemail="Hello Ann, please call us back.", introduction="The pharmacy, about a prescription."),
)
