"""One attempt's agent without media: what it sees of the leg, what it says, in the order and numbering of the real one.

It is a second reading of design §6, made for the rehearsal alone: accounts must not depend on the agent's own code.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from livekit.protocol import models

from rehearsal.signalling import JoinRefusedError, SignalledRoom
from schemas import facts as f
from schemas import topics
from schemas.brief import Brief
from schemas.envelope import Envelope, encode, headers_of
from schemas.values import attempt_id, callee_of, partition_of

SPEAKS_FOR_S: Final = 6.0
TAIL_S: Final = 0.7
RENEW_EVERY_S: Final = 2.0
CALLEE_TIMEOUT_S: Final = 330.0
GRACE_S: Final = 60.0
AGAIN_AFTER_S: Final = 0.5
LAST_WORD_TIMEOUT_S: Final = 60.0
_STATUSES: Final = frozenset({"dialing", "ringing", "automation", "active", "hangup"})


def say(message: str, **fields: Any) -> None:
    """Write a line of the process's log."""
    print(json.dumps({"at": datetime.now(UTC).isoformat(), "message": message, **fields}), flush=True)


class Voice:
    """The facts of one job on their way to Kafka, in order."""

    def __init__(self, producer: AIOKafkaProducer, brief: Brief, job_id: str) -> None:
        self._producer, self._brief, self._job_id = producer, brief, job_id
        self._number = self._renewals = 0
        self._waiting: asyncio.Queue[Envelope | None] = asyncio.Queue()
        self._sending = asyncio.create_task(self._send(), name="facts")

    def say(self, kind: type[Any], **fields: Any) -> None:
        """Say the next fact."""
        self._number += 1
        self._put(kind, self._number, "", fields)

    def renew(self) -> None:
        """Say readiness again, which was the first fact; left out while Kafka is away."""
        self._renewals += 1
        if self._waiting.empty():
            self._put(f.AgentReady, 1, f"/r{self._renewals}", {"renewal": self._renewals})

    async def end(self) -> None:
        """Wait until Kafka has everything, or for so long."""
        self._waiting.put_nowait(None)
        await asyncio.wait([self._sending], timeout=LAST_WORD_TIMEOUT_S)
        self._sending.cancel()

    def _put(self, kind: type[Any], number: int, suffix: str, fields: dict[str, Any]) -> None:
        brief = self._brief
        fact = kind(attempt=brief.attempt, job_id=self._job_id, number=number, **fields)
        envelope = Envelope(
            type=kind.TYPE,
            source=f.fact_source(brief.attempt, self._job_id),
            id=f"{attempt_id(brief.call_id, brief.attempt)}/{self._job_id}/{number}{suffix}",
            subject=brief.call_id,
            time=datetime.now(UTC),
            data=asdict(fact),
        )
        self._waiting.put_nowait(envelope)

    async def _send(self) -> None:
        key = callee_of(self._brief.call_id)
        while (envelope := await self._waiting.get()) is not None:
            while True:
                try:
                    await self._producer.send_and_wait(
                        topics.OBSERVATIONS.name,
                        value=encode(envelope),
                        key=key.encode(),
                        partition=partition_of(key),
                        headers=list(headers_of(envelope)),
                    )
                    break
                except KafkaError as error:
                    say("a fact waits for Kafka", why=type(error).__name__)
                    await asyncio.sleep(AGAIN_AFTER_S)


class Job:
    """One attempt's agent."""

    def __init__(self, brief: Brief, job_id: str, voice: Voice, http: aiohttp.ClientSession) -> None:
        self._brief, self._voice = brief, voice
        self.room = SignalledRoom(http, self._changed, self._gone, self._thrown_out)
        self.job_id = job_id
        self._status = ""
        self._seen, self._answered = asyncio.Event(), asyncio.Event()
        self._over: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._gap = True
        self._stayed = False

    async def run(self, url: str, token: str) -> None:
        """Work on it from the join to the last word."""
        try:
            await self.room.join(url, token)
        except JoinRefusedError:
            self._last_word("failed")
            return
        self._gap = False
        self._voice.say(f.AgentReady)
        renewing = asyncio.create_task(self._renew(), name="renew")
        try:
            reason = await self._converse()
        finally:
            renewing.cancel()
        self._last_word(reason)

    async def _converse(self) -> str:
        if not await self._comes(self._seen, CALLEE_TIMEOUT_S):
            return self._reason("no_callee")
        if not await self._comes(self._answered, self._brief.ring_timeout_s + GRACE_S):
            return self._reason("too_long")
        self._voice.say(f.ConversationStarted, answer_to_audio_ms=0)
        if not await self._lasts(SPEAKS_FOR_S):
            if self._over.result() == "callee_left":
                self._voice.say(f.CalleeHungUp, spoken_ms=0)
            return self._reason("failed")
        self._voice.say(f.NotificationDelivered, spoken_ms=int(SPEAKS_FOR_S * 1000))
        await self._lasts(TAIL_S)
        return "delivered"

    def _last_word(self, reason: str) -> None:
        seen = self._seen.is_set()
        self._voice.say(f.ConversationEnded, reason=reason, callee_seen=seen, gap=self._gap, stayed=self._stayed)

    def _reason(self, otherwise: str) -> str:
        if not self._over.done():
            return otherwise
        return _REASONS[self._over.result()]

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            self._voice.renew()

    async def _comes(self, stage: asyncio.Event, timeout_s: float) -> bool:
        waiting: asyncio.Future[Any] = asyncio.ensure_future(stage.wait())
        await asyncio.wait([waiting, self._over], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return stage.is_set() and not self._over.done()

    async def _lasts(self, seconds: float) -> bool:
        await asyncio.wait([self._over], timeout=seconds)
        return not self._over.done()

    # -- what it sees -------------------------------------------------------------------------------------------------

    def _changed(self, participant: models.ParticipantInfo) -> None:
        if participant.identity != self._brief.callee_identity:
            return
        if not self._seen.is_set():
            self._seen.set()
            self._voice.say(f.CalleeJoined)
        status = participant.attributes.get("sip.callStatus", "")
        if status != self._status and status in _STATUSES:
            self._status = status
            self._voice.say(f.CalleeStatus, status=status)
            if status == "active":
                self._answered.set()

    def _gone(self, participant: models.ParticipantInfo) -> None:
        taken_down = participant.disconnect_reason in _TAKEN_DOWN  # our own end follows, and says what it was
        if participant.identity == self._brief.callee_identity and self._seen.is_set() and not taken_down:
            reason = models.DisconnectReason.Name(participant.disconnect_reason)
            self._voice.say(f.CalleeLeft, reason=reason)
            self._end("callee_left")

    def _thrown_out(self, reason: int) -> None:
        closed = reason in _CLOSED_ON_PURPOSE
        self._gap = self._gap or not closed
        self._stayed = reason in _TAKEN_DOWN and not self._over.done()
        self._end("room_closed" if closed else "room_lost")

    def _end(self, why: str) -> None:
        if not self._over.done():
            self._over.set_result(why)


_REASONS: Final = {"callee_left": "callee_left", "room_closed": "cancelled", "room_lost": "failed"}
_TAKEN_DOWN: Final = frozenset(models.DisconnectReason.Value(name) for name in ("ROOM_DELETED", "ROOM_CLOSED"))
_CLOSED_ON_PURPOSE: Final = _TAKEN_DOWN | {models.DisconnectReason.Value("PARTICIPANT_REMOVED")}
