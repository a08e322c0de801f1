"""`core_steps`: inputs a second through `step` alone, whole calls from request to end, one core, nothing cached."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from bench.child import answer, lines
from dialer.callee import inputs as i
from dialer.callee.state import Callee
from dialer.callee.step import step
from runtime import collector
from schemas import facts as f
from schemas.events import Rules
from schemas.observations import DialOutcome
from schemas.values import Sealed

BEGAN: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
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
_BOX: Final = Sealed(key="1", box="x" * 96)
_MESSAGE: Final = Sealed(key="1", box="x" * 172)


class _Life:
    """Writes the inputs of one call, one after the other."""

    def __init__(self, key: str, request: str) -> None:
        self.callee_key = key
        self.call_id = f"{key}-{request}"
        self.at = BEGAN
        self.given: list[i.AnyInput] = []
        self._next = 0

    def id(self) -> str:
        self.at += timedelta(milliseconds=250)
        self._next += 1
        return f"in-{self._next}"

    def place(self) -> None:
        self.given.append(
            i.PlaceCall(
                id=self.id(),
                at=self.at,
                call_id=self.call_id,
                request_id="refill-000123",
                campaign_id="rx-refill",
                to=_BOX,
                variables=_BOX,
                body_hash="0123456789a=",
                region="US",
                zones=("America/New_York",),
                priority=5,
                not_before=None,
                not_after=BEGAN + timedelta(hours=24),
                remember_until=BEGAN + timedelta(days=35),
                verdict=i.Prepared(campaign_hash="h" * 32, rules=RULES, message=_MESSAGE, message_length=70),
            )
        )

    def open(self, attempt: int) -> None:
        call, job = self.call_id, f"AJ_{attempt}"
        self.given += [
            i.SlotGranted(id=self.id(), at=self.at, call_id=call),
            i.RoomAnswered(
                id=self.id(), at=self.at, call_id=call, attempt=attempt, ok=True, room="r", room_sid="s", agent_name="a"
            ),
        ]
        self.fact(f.AgentReady(attempt=attempt, job_id=job, number=1))
        self.given.append(
            i.TurnGranted(
                id=self.id(), at=self.at, call_id=call, attempt=attempt, trunk="t", caller_id="c", control="none"
            )
        )
        self.fact(f.CalleeJoined(attempt=attempt, job_id=job, number=2))
        self.fact(f.CalleeStatus(attempt=attempt, job_id=job, number=3, status="ringing"))

    def fact(self, fact: f.FactBody) -> None:
        source = f"/agent/{fact.attempt}/{fact.job_id}"
        self.given.append(
            i.FactSeen(id=self.id(), at=self.at, call_id=self.call_id, attempt=fact.attempt, fact=fact, source=source)
        )

    def dialled(self, attempt: int, outcome: DialOutcome) -> None:
        self.given.append(i.Dialled(id=self.id(), at=self.at, call_id=self.call_id, attempt=attempt, outcome=outcome))

    def answered(self, attempt: int) -> None:
        job = f"AJ_{attempt}"
        self.fact(f.CalleeStatus(attempt=attempt, job_id=job, number=4, status="active"))
        self.dialled(attempt, DialOutcome(attempt=attempt, result="answered"))
        self.fact(f.ConversationStarted(attempt=attempt, job_id=job, number=5, answer_to_audio_ms=180))

    def delivered(self, attempt: int) -> None:
        job = f"AJ_{attempt}"
        self.fact(f.NotificationDelivered(attempt=attempt, job_id=job, number=6, spoken_ms=7000))
        self.fact(
            f.ConversationEnded(attempt=attempt, job_id=job, number=7, reason="delivered", callee_seen=True, gap=False)
        )
        self.fenced(attempt)

    def refused(self, attempt: int, status: int) -> None:
        self.dialled(attempt, DialOutcome(attempt=attempt, result="failed", sip_status=status))
        self.fenced(attempt)
        self.fact(
            f.ConversationEnded(
                attempt=attempt, job_id=f"AJ_{attempt}", number=4, reason="no_callee", callee_seen=True, gap=False
            )
        )

    def fenced(self, attempt: int) -> None:
        self.given.append(i.Fenced(id=self.id(), at=self.at, call_id=self.call_id, attempt=attempt))

    def wait(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)
        self.given.append(i.DeadlinePassed(id=self.id(), at=self.at))


def life(number: int) -> tuple[str, list[i.AnyInput]]:
    """Return one callee's inputs: of twenty calls eleven are answered at once, five after a busy line, three rung out,
    one cancelled while it rings; one input in ten or so comes twice, as deliveries do.
    """
    found = _Life(f"{number:026d}".translate(_TO_BASE32), "abcdefghijklmnop")
    found.place()
    found.open(1)
    kind, last = number % 20, 1
    if kind < 16:
        if kind >= 11:
            found.refused(1, 486)
            found.wait(301)
            found.open(2)
            last = 2
        found.answered(last)
        found.given.append(found.given[-1])
        found.delivered(last)
    elif kind < 19:
        found.refused(1, 480)
        found.wait(1801)
        found.open(2)
        found.refused(2, 480)
        found.wait(1801)
        found.open(3)
        found.refused(3, 480)
    else:
        found.given.append(
            i.Cancel(
                id=found.id(),
                at=found.at,
                call_id=found.call_id,
                reason="requested",
                remember_until=BEGAN + timedelta(days=35),
            )
        )
        found.refused(1, 487)
    return found.callee_key, found.given


_TO_BASE32: Final = str.maketrans("0189", "abcd")


def run(lives: list[tuple[str, list[i.AnyInput]]]) -> tuple[int, int, int, float]:
    """Fold every life; returns steps, events, ended calls, seconds."""
    steps = events = ended = 0
    began = time.process_time()
    for key, inputs in lives:
        callee = Callee(callee_key=key)
        for given in inputs:
            done = step(callee, given)
            callee = done.callee
            events += len(done.events)
        steps += len(inputs)
        ended += not callee.calls
    return steps, events, ended, time.process_time() - began


async def core_steps() -> None:
    """Answer one parent's question."""
    asked = orjson.loads(await (await lines()).readline())
    collector.tune()  # as `dialer serve` does
    lives = [life(number) for number in range(asked["calls"])]
    steps, events, ended, seconds = run(lives)
    assert ended == len(lives), f"{len(lives) - ended} calls did not end"
    answer(steps=steps, events=events, seconds=seconds)
