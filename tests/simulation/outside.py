"""What stands around the dialers: agents whose facts travel, webhooks that are lost, forged, repeated and out of order.

Facts are never lost (the worker's parent keeps them until Kafka has them), only late, repeated, and out of order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dialer.webhooks import Forged, Webhooks
from schemas.envelope import Envelope, encode, headers_of
from schemas.facts import AgentReady
from schemas.observations import ParticipantLeft, RoomFinished
from schemas.topics import OBSERVATIONS
from schemas.values import attempt_of_room, callee_of
from tests.doubles.agents import Job, ScriptedAgents
from tests.simulation.kafka import SimBroker
from tests.simulation.loop import SeededLoop
from tests.simulation.process import WORLD

RENEWAL_LATE_S: Final = 1.0
"""A renewal that cannot be sent at once is not sent: it would claim too much (agent/lane.py)."""
API_KEY: Final = "devkey"
FORGER: Final = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJkZXZrZXkifQ.c2lnbmF0dXJlIG9mIHNvbWVib2R5IGVsc2U"


@dataclass
class Post:
    """How messages travel to Kafka: by chance late or twice; a storm makes it worse until it is over."""

    loop: SeededLoop
    broker: SimBroker
    chance: random.Random
    late: float = 0.05
    twice: float = 0.03

    def delay_s(self) -> float:
        """Draw how long a message takes."""
        late_s = self.chance.uniform(0.05, 6.0) if self.chance.random() < self.late else 0.0
        return late_s + self.chance.uniform(0.001, 0.01)

    def send(self, envelope: Envelope) -> None:
        """Produce an observation, once or twice, now or later."""
        for _ in range(2 if self.chance.random() < self.twice else 1):
            self.at(self.delay_s(), envelope, lambda: True)

    def at(self, wait_s: float, envelope: Envelope, leaves: Callable[[], bool]) -> None:
        """Produce it after a while; it waits for a broker that is away, and does not come where it never left."""
        self.loop.call_later(wait_s, self._arrive, envelope, leaves, context=WORLD)

    def _arrive(self, envelope: Envelope, leaves: Callable[[], bool]) -> None:
        away_s = self.broker.arrives()
        if away_s:
            self.at(away_s, envelope, leaves)
        elif leaves():
            assert envelope.subject is not None
            self.broker.send(OBSERVATIONS, callee_of(envelope.subject), encode(envelope), headers_of(envelope))


class TravellingAgents(ScriptedAgents):
    """Agents whose facts take the post: each job's in their order, as its lane sends them; some of them twice."""

    post: Post

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._lanes: dict[str, float] = {}
        self.heard_s: dict[str, float] = {}
        """When a job's readiness last reached Kafka."""

    def _ship(self, job: Job, envelope: Envelope) -> None:
        post, said_s = self.post, self.post.loop.time()
        at_s = self._lanes[job.job_id] = max(said_s + post.delay_s(), self._lanes.get(job.job_id, 0.0) + 0.001)

        def leaves() -> bool:
            now_s, fact = post.loop.time(), envelope.data
            if job.machine_gone or (isinstance(fact, AgentReady) and fact.renewal and now_s - said_s > RENEWAL_LATE_S):
                return False
            if isinstance(fact, AgentReady):
                self.heard_s[job.room] = now_s
            return True

        post.at(at_s - said_s, envelope, leaves)
        if post.chance.random() < post.twice and not isinstance(envelope.data, AgentReady):
            post.at(at_s - said_s + post.delay_s(), envelope, leaves)


class Hooks:
    """LiveKit's webhooks about rooms and callees' legs; hints only."""

    def __init__(self, post: Post, now: Callable[[], Any]) -> None:
        self._post, self._now = post, now
        self._verifier = Webhooks(API_KEY, "a secret of the simulation that is long enough")
        self.lost = 0.3
        self.count = 0
        self.forged_taken = 0

    def left(self, room: str, identity: str) -> None:
        """Tell that a participant left."""
        kind = "sip" if identity.startswith("callee-") else "agent"
        self._tell(room, lambda attempt: ParticipantLeft(attempt=attempt, kind=kind, reason="CLIENT_INITIATED"))

    def finished(self, room: str) -> None:
        """Tell that a room was closed."""
        self._tell(room, lambda attempt: RoomFinished(attempt=attempt))

    def forge(self, room: str) -> None:
        """Say what nobody at LiveKit said: the dialer's own check must refuse it."""
        self.count += 1
        body = f'{{"event":"room_finished","id":"EV_f{self.count}","room":{{"name":"{room}"}}}}'.encode()
        try:
            self._verifier.translate(body, FORGER)
        except Forged:
            return
        self.forged_taken += 1

    def _tell(self, room: str, payload: Callable[[int], Any]) -> None:
        place = attempt_of_room(room)
        if place is None or self._post.chance.random() < self.lost:
            return
        self.count += 1
        body = payload(place[1])
        name = f"EV_{self.count}"
        envelope = Envelope(
            type=body.TYPE, source="/livekit/webhook", id=name, subject=place[0], time=self._now(), data=body
        )
        self._post.send(envelope)


def worse(post: Post, hooks: Hooks) -> None:
    """Let the post be bad: half of all webhooks lost, and everything late or twice."""
    post.late, post.twice, hooks.lost = 0.4, 0.4, 0.5


def better(post: Post, hooks: Hooks, *, healed: bool = False) -> None:
    """Let the post be as usual, or perfect."""
    post.late, post.twice, hooks.lost = (0.0, 0.0, 0.0) if healed else (0.05, 0.03, 0.3)
