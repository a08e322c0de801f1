"""Inputs by short names, and a callee's history up to every phase: what tests of the core are told in.

Times are seconds after `T0`. The names are those of the table: `place`, `slot`, `room`, `ready`, `turn`, `fact`, ….
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dialer.callee import inputs as i
from dialer.callee.state import Phase
from schemas import facts as f
from schemas.events import Rules
from schemas.observations import DialOutcome
from schemas.outcomes import Refusal
from schemas.values import Sealed, attempt_id, call_id, callee_key, request_hash, room_name

T0: Final = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
CALLEE: Final = callee_key("+12125550123", b"pepper of the tests")
CAMPAIGN: Final = "rx-refill"
TRUNK: Final = "cvs-retail-outbound"
CALLER_ID: Final = "+12125550199"
BOX: Final = Sealed(key="1", box="c2VhbGVk")
MEMORY: Final = timedelta(days=35)
RULES: Final = Rules(
    attempts_max=3,
    busy_s=300,
    no_answer_s=1800,
    trunk_failed_s=60,
    agent_lost_s=90,
    unknown_after_s=None,
    ring_timeout_s=30,
    max_call_duration_s=600,
    trunk=TRUNK,
)
REDIALS_UNKNOWN: Final = replace(RULES, unknown_after_s=120)
PREPARED: Final = i.Prepared(campaign_hash="h" * 32, rules=RULES, message=BOX, message_length=24)


def at(seconds: float) -> datetime:
    """Return an instant, in seconds after `T0`."""
    return T0 + timedelta(seconds=seconds)


def call(number: int = 1) -> str:
    """Name the callee's n-th call."""
    return call_id(CALLEE, request_hash(CAMPAIGN, f"refill-{number}"))


CALL: Final = call()


def prepared(rules: Rules) -> i.Prepared:
    """Return a verdict with these rules."""
    return i.Prepared(campaign_hash="h" * 32, rules=rules, message=BOX, message_length=24)


def place(s: float = 0, number: int = 1, *, verdict: i.Verdict | None = PREPARED, **over: Any) -> i.PlaceCall:
    """Ask for the n-th call; its definition is at hand unless `verdict` is None."""
    fields: dict[str, Any] = {
        "id": f"b7c{number}",
        "at": at(s),
        "call_id": call(number),
        "request_id": f"refill-{number}",
        "campaign_id": CAMPAIGN,
        "to": BOX,
        "variables": BOX,
        "body_hash": f"body{number}",
        "region": "US",
        "zones": ("America/New_York",),
        "priority": 5,
        "not_before": None,
        "not_after": at(s) + timedelta(hours=8),
        "remember_until": at(s) + MEMORY,
        "verdict": verdict,
    }
    return i.PlaceCall(**(fields | over))


def defined(s: float, number: int = 1, verdict: i.Verdict | Refusal = PREPARED) -> i.Defined:
    return i.Defined(id=f"definition/{number}", at=at(s), call_id=call(number), verdict=verdict)


def slot(s: float, number: int = 1) -> i.SlotGranted:
    return i.SlotGranted(id=f"slot/{number}/{s}", at=at(s), call_id=call(number))


def room(s: float, attempt: int = 1, number: int = 1, *, ok: bool = True, code: str = "") -> i.RoomAnswered:
    return i.RoomAnswered(
        id=f"room/{number}/{attempt}",
        at=at(s),
        call_id=call(number),
        attempt=attempt,
        ok=ok,
        room=room_name(call(number), attempt),
        room_sid="RM_1" if ok else "",
        agent_name="outbound-dialer",
        code=code if ok else code or "unavailable",
    )


def fact(
    s: float, kind: type[Any], n: int, attempt: int = 1, number: int = 1, job: str = "", **more: Any
) -> i.FactSeen:
    """Hand in the n-th fact of an attempt's job."""
    job_id = job or f"AJ_{attempt}"
    body = kind(attempt=attempt, job_id=job_id, number=n, **more)
    return i.FactSeen(
        id=f"{attempt_id(call(number), attempt)}/{job_id}/{n}",
        at=at(s),
        call_id=call(number),
        attempt=attempt,
        fact=body,
        source=f.fact_source(attempt, job_id),
    )


def ready(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.AgentReady, 1, attempt, number)


def status(s: float, word: str, attempt: int = 1, number: int = 1) -> i.FactSeen:
    n = {"dialing": 3, "ringing": 4, "automation": 5, "active": 6, "hangup": 7}[word]
    return fact(s, f.CalleeStatus, n, attempt, number, status=word)


def delivered(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.NotificationDelivered, 9, attempt, number, spoken_ms=3000)


def hung_up(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.CalleeHungUp, 10, attempt, number, spoken_ms=900)


def left(s: float, attempt: int = 1, number: int = 1, reason: str = "CLIENT_INITIATED") -> i.FactSeen:
    return fact(s, f.CalleeLeft, 11, attempt, number, reason=reason)


def crashed(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.AgentCrashed, 12, attempt, number)


def last_word(
    s: float,
    attempt: int = 1,
    number: int = 1,
    *,
    reason: str = "delivered",
    seen: bool = True,
    gap: bool = False,
    stayed: bool | None = None,
) -> i.FactSeen:
    said = {"reason": reason, "callee_seen": seen, "gap": gap, "stayed": stayed}
    return fact(s, f.ConversationEnded, 13, attempt, number, **said)


def opted_out(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.OptOutHeard, 14, attempt, number, evidence="en/opt-out/stop-calling")


def api_failed(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.AgentApiFailed, 15, attempt, number, service="agent_api", code="timeout")


def detected(s: float, category: str = "machine-vm", attempt: int = 1, number: int = 1) -> i.FactSeen:
    seen = {"category": category, "rule": "en/vm/leave-a-message", "evidence": "ab" * 8, "latency_ms": 400}
    return fact(s, f.AnswererDetected, 16, attempt, number, **seen)


def voicemail(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.VoicemailLeft, 17, attempt, number, spoken_ms=7000)


def transferred(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.CallTransferred, 18, attempt, number)


def talked(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.TurnTaken, 19, attempt, number, speaker="callee", text=BOX)


def started(s: float, attempt: int = 1, number: int = 1) -> i.FactSeen:
    return fact(s, f.ConversationStarted, 8, attempt, number, answer_to_audio_ms=180, greeting_ms=2400)


def turn(s: float, attempt: int = 1, number: int = 1) -> i.TurnGranted:
    return i.TurnGranted(
        id=f"turn/{number}/{attempt}",
        at=at(s),
        call_id=call(number),
        attempt=attempt,
        trunk=TRUNK,
        caller_id=CALLER_ID,
        control="7",
    )


def dialled(s: float, result: str, attempt: int = 1, number: int = 1, **more: Any) -> i.Dialled:
    outcome = DialOutcome(attempt=attempt, result=result, **more)  # type: ignore[arg-type]
    name = f"dial/{attempt_id(call(number), attempt)}"
    return i.Dialled(id=name, at=at(s), call_id=call(number), attempt=attempt, outcome=outcome)


def failed(s: float, sip: int | None, attempt: int = 1, number: int = 1, code: str = "", phrase: str = "") -> i.Dialled:
    return dialled(s, "failed", attempt, number, sip_status=sip, code=code, phrase=phrase)


def listed(s: float, status: str, attempt: int = 1, number: int = 1) -> i.LegSeen:
    name = f"seen/{number}/{attempt}/{status}"
    return i.LegSeen(id=name, at=at(s), call_id=call(number), attempt=attempt, status=status)


def gone(s: float, attempt: int = 1, number: int = 1) -> i.LegGone:
    return i.LegGone(id=f"gone/{number}/{attempt}", at=at(s), call_id=call(number), attempt=attempt)


def silent(s: float, attempt: int = 1, number: int = 1) -> i.AgentSilent:
    return i.AgentSilent(id=f"silent/{number}/{attempt}", at=at(s), call_id=call(number), attempt=attempt)


def fenced(s: float, attempt: int = 1, number: int = 1) -> i.Fenced:
    return i.Fenced(id=f"fenced/{number}/{attempt}", at=at(s), call_id=call(number), attempt=attempt)


def cancel(s: float, number: int = 1, name: str = "stop-1", **over: Any) -> i.Cancel:
    fields = {"id": name, "at": at(s), "call_id": call(number), "reason": "requested", "remember_until": at(s) + MEMORY}
    return i.Cancel(**(fields | over))


def suppress(s: float, name: str = "stop-2") -> i.Suppress:
    return i.Suppress(id=name, at=at(s), scope="all", reason="opted_out")


def lift(s: float, name: str = "stop-3") -> i.Lift:
    return i.Lift(id=name, at=at(s), scope="all", reason="opted_in")


def tick(s: float) -> i.DeadlinePassed:
    return i.DeadlinePassed(id=f"deadline/{s}", at=at(s))


def opening(verdict: i.Verdict = PREPARED) -> tuple[i.AnyInput, ...]:
    return (place(0, verdict=verdict), slot(1))


def gathering(verdict: i.Verdict = PREPARED) -> tuple[i.AnyInput, ...]:
    return (*opening(verdict), room(1.1))


def is_ready(verdict: i.Verdict = PREPARED) -> tuple[i.AnyInput, ...]:
    return (*gathering(verdict), ready(2))


def dialing(verdict: i.Verdict = PREPARED) -> tuple[i.AnyInput, ...]:
    return (*is_ready(verdict), turn(3))


def ringing(verdict: i.Verdict = PREPARED) -> tuple[i.AnyInput, ...]:
    return (*dialing(verdict), status(4, "dialing"), status(5, "ringing"))


def answered(verdict: i.Verdict = PREPARED) -> tuple[i.AnyInput, ...]:
    return (*ringing(verdict), status(9, "active"))


def fencing(verdict: i.Verdict = PREPARED) -> tuple[i.AnyInput, ...]:
    return (*answered(verdict), delivered(12), last_word(13))


def unknown(verdict: i.Verdict | None = None) -> tuple[i.AnyInput, ...]:
    """Return a first attempt judged as unknown at second 20; the next one is due at second 713."""
    return (*dialing(verdict or prepared(REDIALS_UNKNOWN)), gone(8), fenced(10), tick(20))


HISTORIES: Final[dict[str, tuple[Phase, tuple[i.AnyInput, ...]]]] = {
    "requested": (Phase.REQUESTED, (place(0, verdict=None),)),
    "waiting": (Phase.WAITING, (place(0),)),
    "waiting for not_before": (Phase.WAITING, (place(0, not_before=at(600)),)),
    "waiting after busy": (Phase.WAITING, (*ringing(), failed(8, 486), last_word(8.5, seen=True), fenced(10))),
    "waiting after an unknown": (Phase.WAITING, unknown()),
    "waiting behind another": (Phase.WAITING, (place(0, 2), slot(1, 2), place(2))),
    "opening": (Phase.OPENING, opening()),
    "opening, agent first": (Phase.OPENING, (*opening(), ready(1.05))),
    "gathering": (Phase.GATHERING, gathering()),
    "ready": (Phase.READY, is_ready()),
    "dialing": (Phase.DIALING, dialing()),
    "ringing": (Phase.RINGING, ringing()),
    "answered by the agent's word": (Phase.ANSWERED, answered()),
    "answered by the carrier's word": (Phase.ANSWERED, (*dialing(), dialled(8, "answered"))),
    "fencing a room that failed": (Phase.FENCING, (*opening(), room(2, ok=False))),
    "fencing after delivery": (Phase.FENCING, fencing()),
    "fencing after a failure": (Phase.FENCING, (*ringing(), failed(8, 486))),
    "fencing an unclear dial": (Phase.FENCING, (*dialing(), gone(8))),
    "fencing an unclear dial that may be redialled": (
        Phase.FENCING,
        (*dialing(prepared(REDIALS_UNKNOWN)), gone(8)),
    ),
    "fencing a cancelled ring": (Phase.FENCING, (*ringing(), cancel(6))),
    "fenced, waiting for the last word": (Phase.FENCING, (*ringing(), failed(8, 486), fenced(10))),
    "opening again after an unknown": (Phase.OPENING, (*unknown(), slot(714))),
    "ringing again after an unknown": (
        Phase.RINGING,
        (*unknown(), slot(714), room(715, 2), ready(716, 2), turn(717, 2), status(718, "ringing", 2)),
    ),
    "second attempt ringing": (
        Phase.RINGING,
        (
            *ringing(),
            failed(8, 486),
            last_word(8.5),
            fenced(10),
            slot(320),
            room(321, 2),
            ready(322, 2),
            turn(323, 2),
            status(324, "ringing", 2),
        ),
    ),
}
"""Histories of the first call, by name, each with the phase it leads to; every phase has at least one."""
TALKS: Final[dict[str, tuple[Phase, tuple[i.AnyInput, ...]]]] = {
    "opted out": (Phase.ANSWERED, (*answered(), opted_out(12))),
    "opted out while others wait": (Phase.ANSWERED, (*answered(), place(10, 2), opted_out(12))),
    "talks while others wait": (Phase.ANSWERED, (*answered(), place(10, 2), place(11, 3, verdict=None), talked(12))),
    "a message left on a machine": (Phase.ANSWERED, (*answered(), detected(11), voicemail(20))),
    "fencing after a conversation": (Phase.FENCING, (*answered(), talked(12), last_word(40, reason="conversed"))),
    "fencing after an opt-out": (Phase.FENCING, (*answered(), opted_out(12), last_word(16, reason="opted_out"))),
}
"""Histories of calls that converse: the laws hold for them, too."""
