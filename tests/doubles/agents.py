"""Agents that answer dispatches by script: they join, say what an agent says, and die in the ways agents die."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dialer.telephony import RoomRequest
from runtime.clock import Clock
from runtime.seal import BriefBox
from schemas import facts as f
from schemas.brief import Brief
from schemas.envelope import Envelope, encode, headers_of
from schemas.topics import OBSERVATIONS
from schemas.values import Sealed, attempt_id, callee_of
from tests.doubles.memory_feed import ClockedBroker
from tests.doubles.telephony import TelephonyDouble

RENEWED_EVERY_S = 2.0
GOODBYE_S = 0.4
WORDS = Sealed(key="1", box="c2VhbGVk")
_MACHINE = {"category": "machine-vm", "rule": "en/vm/leave-a-message", "evidence": "ab" * 8, "latency_ms": 400}
TALKS: dict[str, tuple[tuple[tuple[type[Any], dict[str, Any]], ...], str]] = {
    "delivers": (((f.NotificationDelivered, {"spoken_ms": 4000}),), "delivered"),
    "converses": (
        ((f.TurnTaken, {"speaker": "callee", "text": WORDS}), (f.TurnTaken, {"speaker": "agent", "text": WORDS})),
        "conversed",
    ),
    "leaves a message": (((f.AnswererDetected, _MACHINE), (f.VoicemailLeft, {"spoken_ms": 7000})), "voicemail_left"),
    "hangs up on a machine": (((f.AnswererDetected, _MACHINE),), "machine_hung_up"),
    "is told to stop calling": (((f.OptOutHeard, {"evidence": "en/opt-out/stop"}),), "opted_out"),
    "transfers": (((f.CallTransferred, {}),), "transferred"),
    "fails": (((f.AgentApiFailed, {"service": "agent_api", "code": "timeout"}),), "failed"),
}
"""What an agent says of a call that was answered, each after a share of the talk, and its last word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How one agent behaves."""

    comes: bool = True
    ready_after_s: float = 0.5
    speaks_for_s: float = 4.0
    talk: str = "delivers"
    """How the answered call goes: a row of `TALKS`."""
    renews: bool = True
    crashes_on: str = ""
    """Status of the callee's leg (or `ready`) at which the job's process dies; its parent says so."""
    falls_silent_on: str = ""
    """The same, but nobody says so: the machine is gone."""


@dataclass
class Job:
    """One agent's job."""

    brief: Brief
    room: str
    script: Script
    job_id: str
    number: int = 0
    seen: bool = False
    alive: bool = True
    said: list[str] = field(default_factory=list)
    ready: bool = False
    lost_at: datetime | None = None
    """When its process or its machine went; None for one that lives, or ended of itself."""
    machine_gone: bool = False
    """Nothing of it is sent any more, not even what it had said."""
    ended_at: datetime | None = None
    """When it ended of itself."""


class ScriptedAgents:
    """Takes the double's dispatches; `scripts` are used up in order, then the default."""

    def __init__(self, telephony: TelephonyDouble, broker: ClockedBroker, box: BriefBox, clock: Clock) -> None:
        self._telephony, self._broker, self._box, self._clock = telephony, broker, box, clock
        self.scripts: deque[Script] = deque()
        self.default = Script()
        self.jobs: list[Job] = []
        self.rooms: dict[str, Job] = {}
        telephony.dispatched = self._dispatched
        telephony.seen = self._seen

    def _dispatched(self, request: RoomRequest) -> None:
        script = self.scripts.popleft() if self.scripts else self.default
        job = Job(self._box.open(request.agent_metadata), request.name, script, f"AJ_{len(self.jobs) + 1}")
        self.jobs.append(job)
        if script.comes:
            self.rooms[request.name] = job
            self._clock.spawn(self._work(job), job.job_id)

    async def _work(self, job: Job) -> None:
        await self._clock.sleep(job.script.ready_after_s)
        if not self._telephony.join(job.room, f"agent-{job.job_id}"):
            return
        renewal = 0
        if self._happens(job, "ready"):
            return
        while job.alive:
            number = None if renewal == 0 else 1
            self._say(job, f.AgentReady, number=number, renewal=renewal)
            job.ready = True
            renewal += 1
            if not job.script.renews:
                return
            await self._clock.sleep(RENEWED_EVERY_S)

    def _seen(self, room: str, identity: str, status: str) -> None:
        job = self.rooms.get(room)
        if job is None or not job.alive:
            return
        if identity == f"agent-{job.job_id}":
            if status == "left":
                self._end(job, "cancelled")
            return
        if status == "left":
            self._say(job, f.CalleeLeft, reason="CLIENT_INITIATED")
            if "ConversationStarted" in job.said:
                self._say(job, f.CalleeHungUp, spoken_ms=500)
            self._end(job, "callee_left")
            return
        if not job.seen:
            job.seen = True
            self._say(job, f.CalleeJoined)
        if self._happens(job, status):
            return
        self._say(job, f.CalleeStatus, status=status)
        if status == "active":
            self._clock.spawn(self._speak(job), f"speak-{job.job_id}")

    async def _speak(self, job: Job) -> None:
        self._say(job, f.ConversationStarted, answer_to_audio_ms=120)
        told, last_word = TALKS[job.script.talk]
        for kind, more in told:
            await self._clock.sleep(job.script.speaks_for_s / len(told))
            if not job.alive:
                return
            self._say(job, kind, **more)
        if last_word != "delivered":
            await self._clock.sleep(GOODBYE_S)
        self._end(job, last_word)

    def _happens(self, job: Job, moment: str) -> bool:
        """Die as the script has it."""
        if moment == job.script.crashes_on:
            if moment == "ready":
                self._say(job, f.AgentReady, renewal=0)
                job.ready = True
            self.lose(job, told=True)
        elif moment == job.script.falls_silent_on:
            self.lose(job, told=False)
        return not job.alive

    def leave(self, job: Job, *, gap: bool) -> None:
        """Let an agent go of itself; with a `gap` it had lost its connection to the room before."""
        self._end(job, "failed", gap=gap)

    def _end(self, job: Job, reason: str, *, gap: bool = False) -> None:
        if job.alive:
            self._say(job, f.ConversationEnded, reason=reason, callee_seen=job.seen, gap=gap)
            job.alive, job.ended_at = False, self._clock.now()
            self._telephony.leave(job.room, f"agent-{job.job_id}")

    def _say(self, job: Job, kind: type[Any], number: int | None = None, **more: Any) -> None:
        if number is None:
            job.number += 1
        attempt, said = job.brief.attempt, number or job.number
        fact = kind(attempt=attempt, job_id=job.job_id, number=said, **more)
        job.said.append(kind.__name__)
        envelope = Envelope(
            type=fact.TYPE,
            source=f.fact_source(attempt, job.job_id),
            id=f"{attempt_id(job.brief.call_id, attempt)}/{job.job_id}/{said}",
            subject=job.brief.call_id,
            time=self._clock.now(),
            data=fact,
        )
        self._ship(job, envelope)

    def _ship(self, job: Job, envelope: Envelope) -> None:
        """Produce a fact; who simulates a worse world overrides this."""
        del job
        assert envelope.subject is not None
        self._broker.send(OBSERVATIONS, callee_of(envelope.subject), encode(envelope), headers_of(envelope))

    def lose(self, job: Job, *, told: bool) -> None:
        """End a job's process; its parent says so, or nobody does."""
        if job.alive:
            job.alive, job.lost_at, job.machine_gone = False, self._clock.now(), not told
            if told:
                self._say(job, f.AgentCrashed)
