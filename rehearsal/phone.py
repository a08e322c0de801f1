"""One leg of a call: a phone in a room as livekit-sip would put it there, with real audio and a persona.

Order, as in livekit/sip pkg/sip/outbound.go: join and publish a track (`sip.callStatus=dialing`) → INVITE → `ringing`
→ 200 → `active` → subscribe → `hangup`. Whoever deletes the room or removes the participant before the answer has
cancelled the INVITE, after it has hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from livekit import api, rtc

from rehearsal import ear, talk, voice
from rehearsal.ear import Ear, HeardCall
from rehearsal.performance import Performance
from rehearsal.personas import Persona
from rehearsal.script import Script
from rehearsal.sip_outcomes import OUTCOMES, SipOutcome
from rehearsal.talk import Talk
from rehearsal.witness import EndedBy, Seen, Witness

JOIN_TIMEOUT_S: Final = 10.0
SOUND_FIRST: Final = 5
"""How much nicer Python is than libwebrtc's threads beside it."""
POST_DIAL_DELAY_S: Final = 0.1  # INVITE to the first response
LEAVE_TIMEOUT_S: Final = 5.0
HANGUP_TIMEOUT_S: Final = 0.3
"""Of the answer to the last status, which may take seconds: it is on its way, and who hangs up does not stay for that."""
QUEUE_MS: Final = 200
PATIENCE_S: Final = 2.0
"""Who hangs up early listens so long for the first mark of what it hears; sound without one is hung up on, too."""

_OWN_ENDS: Final = frozenset({EndedBy.CALLEE_BYE, EndedBy.MAX_DURATION, EndedBy.TRANSFERRED})
"""Ends that livekit-sip brings about itself: it sets `hangup` and leaves as a client would."""
_ROOM_ENDS: Final[dict[int, tuple[EndedBy, EndedBy]]] = {
    rtc.DisconnectReason.DUPLICATE_IDENTITY: (EndedBy.DUPLICATE_IDENTITY, EndedBy.DUPLICATE_IDENTITY),
    rtc.DisconnectReason.ROOM_DELETED: (EndedBy.CANCELLED, EndedBy.CALLER_BYE),
    rtc.DisconnectReason.ROOM_CLOSED: (EndedBy.CANCELLED, EndedBy.CALLER_BYE),
    rtc.DisconnectReason.PARTICIPANT_REMOVED: (EndedBy.CANCELLED, EndedBy.CALLER_BYE),
}
"""What the end of the room means for the leg: before the answer, and after it; any other reason is ROOM_LOST."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a leg is asked to do; `attributes` are complete but for `sip.callStatus`."""

    dial_id: str
    attempt_id: str
    number: str
    room: str
    identity: str
    name: str
    metadata: str
    attributes: dict[str, str] = field(default_factory=dict)
    ringing_timeout_s: float
    max_call_duration_s: float
    media_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What all legs of a carrier share: the LiveKit server behind it, its keys, its witness and its directory."""

    livekit_url: str
    api_key: str
    api_secret: str
    witness: Witness
    directory: Path


def warm_up() -> None:
    """Start the native runtime before the first call, and let its threads go before ours: sound has deadlines."""
    rtc.AudioResampler(voice.SAMPLE_RATE, ear.SAMPLE_RATE)
    os.nice(SOUND_FIRST)  # on Linux of this thread alone, and of those it starts from now on


class JoinRefusedError(Exception):
    """The room could not be joined: nothing was dialed."""


class Leg:
    """A phone from its join to its end. `await join()`, then `await run()` once, in a task of its own."""

    def __init__(self, order: Order, persona: Persona, refusal: SipOutcome | None, exchange: Exchange) -> None:
        self.order, self.persona = order, persona
        self._refusal, self._exchange = refusal, exchange
        self._room = rtc.Room()
        self._source: rtc.AudioSource | None = None
        self._ear: Ear | None = None
        self._performance: Performance | None = None
        self._answer_to_audio_ms: float | None = None
        self._gone: asyncio.Future[EndedBy] = asyncio.get_running_loop().create_future()
        self.status = "dialing"
        self.answered: asyncio.Future[SipOutcome | None] = asyncio.get_running_loop().create_future()
        """Done when the INVITE has its final response: None for an answer, else why not."""

    @property
    def participant_sid(self) -> str:
        """LiveKit's id of the participant, once joined."""
        return self._room.local_participant.sid

    async def join(self) -> None:
        """Join the room and publish the phone's track. Raises: JoinRefusedError when there is no such room."""
        self._room.on("disconnected", self._on_disconnected)
        self._room.on("track_published", self._on_track_published)
        self._room.on("track_subscribed", self._on_track_subscribed)
        options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=JOIN_TIMEOUT_S)
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                await self._room.connect(self._exchange.livekit_url, self._token(), options)
        except (rtc.ConnectError, TimeoutError) as error:
            raise JoinRefusedError from error
        self._source = rtc.AudioSource(voice.SAMPLE_RATE, 1, queue_size_ms=self._queue_ms())
        track = rtc.LocalAudioTrack.create_audio_track("phone", self._source)
        publish = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=True, red=False)
        await self._room.local_participant.publish_track(track, publish)
        if self.persona.script is not None:
            self._performance = self._rehearsed(self.persona.script, self._source)

    def _queue_ms(self) -> int:
        """Return 0 for a phone that speaks once: without a queue a silent phone costs no timer, half of a live one's cost.

        One that speaks again must send its silence, too: else its clock stands still between two utterances, and the far
        end's jitter buffer takes the second for one that is seconds late, and stretches it beyond recognition.
        """
        return 0 if self.persona.script is None else QUEUE_MS

    def _rehearsed(self, script: Script, source: rtc.AudioSource) -> Performance:
        talk_ = Talk(
            attempt_id=self.order.attempt_id,
            persona=self.persona.name,
            script=script.name,
            language=self.persona.language,
        )
        return Performance(script, self.persona.language, source, self._room, talk_)

    def _token(self) -> str:
        order = self.order
        token = (
            api.AccessToken(self._exchange.api_key, self._exchange.api_secret)
            .with_identity(order.identity)
            .with_name(order.name)
            .with_metadata(order.metadata)
            .with_kind("sip")
            .with_attributes({**order.attributes, "sip.callStatus": self.status})
            .with_grants(api.VideoGrants(room_join=True, room=order.room, can_update_own_metadata=True))
        )
        return str(token.to_jwt())

    async def run(self) -> None:
        """Dial, talk and hang up; never raises for what LiveKit or a caller does."""
        ended_by, refusal = EndedBy.SHUTDOWN, None
        try:
            refusal = await self._ring()
            ended_by = await self._talk() if refusal is None else self._why_not(refusal)
        finally:
            ended_at = datetime.now(UTC)
            if self._performance is not None:
                self._performance.over()
            try:
                await self._leave(ended_by, refusal)
            finally:  # last, so that whoever reads this line finds the recording
                self._settle(refusal or OUTCOMES["shutting_down"])  # livekit-sip leaves the room, then answers
                sip_status = refusal.sip_status if refusal is not None else None
                self._exchange.witness.saw(
                    Seen.ENDED, self.order.dial_id, ended_at, ended_by=ended_by, sip_status=sip_status
                )

    def hang_up(self, ended_by: EndedBy) -> None:
        """End the leg from outside (the carrier stops); the first reason counts."""
        if not self._gone.done():
            self._gone.set_result(ended_by)

    # -- dialing ------------------------------------------------------------------------------------------------------

    async def _ring(self) -> SipOutcome | None:
        order, persona = self.order, self.persona
        self._saw(
            Seen.INVITE,
            attempt_id=order.attempt_id,
            number=order.number,
            room=order.room,
            identity=order.identity,
            persona=persona.name,
        )
        given_up_at = time.monotonic() + min(order.ringing_timeout_s, order.max_call_duration_s)
        if await self._ends_within(POST_DIAL_DELAY_S):
            return OUTCOMES["ring_timeout"]
        if self._refusal is not None and not persona.refuses_ringing:
            return self._refusal
        await self._set_status("ringing")
        self._saw(Seen.RINGING)
        responds = persona.answers or self._refusal is not None
        left_s = max(0.0, given_up_at - time.monotonic())
        rings_for_s = persona.rings_for_s if responds else left_s
        if await self._ends_within(min(rings_for_s, left_s)) or rings_for_s >= left_s:
            return OUTCOMES["ring_timeout"]  # a CANCEL looks the same to the one who waits (sipResponse, ctx.Done)
        return self._refusal

    def _why_not(self, refusal: SipOutcome) -> EndedBy:
        if self._gone.done():
            return self._gone.result()
        return EndedBy.RING_TIMEOUT if refusal.sip_status is None else EndedBy.REFUSED

    def _settle(self, outcome: SipOutcome | None) -> None:
        """Answer the one who waits for the INVITE; the first answer counts."""
        if not self.answered.done():
            self.answered.set_result(outcome)

    async def _ends_within(self, seconds: float) -> bool:
        """Wait; True when the leg was ended from outside meanwhile."""
        await asyncio.wait([self._gone], timeout=seconds)
        return self._gone.done()

    # -- talking ------------------------------------------------------------------------------------------------------

    async def _talk(self) -> EndedBy:
        self._ear = Ear(self._on_first_sound, self._performance.on_mark if self._performance is not None else None)
        if self._performance is not None:
            self._performance.answered(self._ear)
        self._saw(Seen.ANSWERED)
        # Not awaited: two calls in 80 had no subscription for the 5 s that this may take; who picked up listens at once.
        telling = asyncio.create_task(self._set_status("active"))
        await asyncio.sleep(0)  # it is sent before the subscription
        for participant in self._room.remote_participants.values():
            for publication in participant.track_publications.values():
                self._subscribe(publication, participant)
        self._settle(None)
        speaking = asyncio.create_task(self._speak())
        endings = [asyncio.create_task(ending) for ending in self._endings(self._ear)]
        try:
            done, _ = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in (telling, speaking, *endings):
                task.cancel()
            await asyncio.gather(telling, speaking, *endings, return_exceptions=True)

    def _endings(self, ear_: Ear) -> list[Coroutine[Any, Any, EndedBy]]:
        async def after(seconds: float, ended_by: EndedBy) -> EndedBy:
            await asyncio.sleep(seconds)
            return ended_by

        async def gone() -> EndedBy:
            return await asyncio.shield(self._gone)

        async def had_enough(seconds: float) -> EndedBy:
            await ear_.first_sound.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await ear_.first_mark.wait()
            return await after(seconds, EndedBy.CALLEE_BYE)

        endings = [gone(), after(self.order.max_call_duration_s, EndedBy.MAX_DURATION)]
        if not self.persona.sends_audio:
            endings.append(after(self.order.media_timeout_s, EndedBy.MEDIA_TIMEOUT))
        if self.persona.hangs_up_after_s is not None:
            endings.append(had_enough(self.persona.hangs_up_after_s))
        if self._performance is not None:
            endings.append(self._perform(self._performance))
        return endings

    async def _perform(self, performance: Performance) -> EndedBy:
        await performance.run()
        return EndedBy.CALLEE_BYE

    async def _speak(self) -> None:
        """Say the persona's words, marked, in real time; silence afterwards is suppressed (no packets), as DTX does."""
        if not self.persona.sends_audio or self._source is None or self._performance is not None:
            return
        await voice.speak(self.persona.says, self._source)

    def _on_first_sound(self, since_answer_ms: float) -> None:
        self._answer_to_audio_ms = round(since_answer_ms, 1)
        self._saw(Seen.FIRST_AUDIO, answer_to_audio_ms=self._answer_to_audio_ms)

    # -- the room -----------------------------------------------------------------------------------------------------

    def _subscribe(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        if self._ear is not None and publication.kind == rtc.TrackKind.KIND_AUDIO:
            self._ear.listen(participant, publication.source)
            publication.set_subscribed(True)

    def _on_track_published(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        if self.status == "active":
            self._subscribe(publication, who)

    def _on_track_subscribed(self, track: rtc.Track, *_: object) -> None:
        if self._ear is not None:
            self._ear.watch(track)

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        self._ended_by_room(reason, answered=self._ear is not None)

    def _ended_by_room(self, reason: int, *, answered: bool) -> None:
        before, after = _ROOM_ENDS.get(reason, (EndedBy.ROOM_LOST, EndedBy.ROOM_LOST))
        self.hang_up(after if answered else before)

    async def _set_status(self, status: str) -> None:
        self.status = status
        if self._room.isconnected():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANGUP_TIMEOUT_S if status == "hangup" else LEAVE_TIMEOUT_S):
                    await self._room.local_participant.set_attributes({"sip.callStatus": status})

    async def _leave(self, ended_by: EndedBy, refusal: SipOutcome | None) -> None:
        if ended_by in _OWN_ENDS:  # refusals and drops set no status (participant.go)
            await self._set_status("hangup")
        self.status = "hangup"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._room.disconnect(reason=leave_reason(ended_by, refusal))
        if self._source is not None:
            await self._source.aclose()
        if self._ear is not None:
            await self._ear.close()
            heard = HeardCall(
                attempt_id=self.order.attempt_id,
                dial_id=self.order.dial_id,
                answer_to_audio_ms=self._answer_to_audio_ms,
                samples=self._ear.heard,
                reception=self._ear.reception,
            )
            await asyncio.to_thread(ear.save, self._exchange.directory, heard)
            if self._performance is not None:
                said = self._performance.recording()
                await asyncio.to_thread(talk.save, self._exchange.directory, self._performance.talk, said)

    def _saw(self, seen: Seen, **fields: Any) -> None:
        self._exchange.witness.saw(seen, self.order.dial_id, **fields)


def leave_reason(ended_by: EndedBy, refusal: SipOutcome | None) -> rtc.DisconnectReason.ValueType:
    """The disconnect reason that livekit-sip gives when it leaves (pkg/sip/participant.go)."""
    if refusal is not None:
        return rtc.DisconnectReason.Value(refusal.disconnect_reason)
    if ended_by in _OWN_ENDS:
        return rtc.DisconnectReason.CLIENT_INITIATED
    return rtc.DisconnectReason.UNKNOWN_REASON
