"""The recording of one call: begun once the callee is there, ended before the room is, followed to its own end.

1. It never ends a call, except in mode `required`: then the call ends before anything is spoken.
2. Nobody waits for it, neither for the first word (but in modes `required` and `consent`) nor for the hang-up.
3. It is told of once: `RecordingStarted`, then `RecordingCompleted` or `RecordingFailed`; or `RecordingFailed` alone.
4. A room that has a recording already is not recorded twice: it is looked for before one is started.

The end, in this order: Egress is asked to stop, and has STOP_TIMEOUT_S to say that it takes nothing more from the room;
the room is deleted, which is the hang-up; the job's last word is said; then the file is waited for. Removing the callee
alone first would let the dialer take the room down all the same (its fence follows `CalleeLeft` at once, promise 6), and
would make a call that we ended look like one that the callee did. A room that somebody else deletes (a cancel, the kill
switch, the fence after the callee left) ends its recording as a stop does: livekit-egress sends an end of stream and
completes the file (pkg/pipeline/controller.go, `EndRecording`). Where the job's own process dies, so does the room, by
the dialer's fence or 20 s after the callee left (its `departure_timeout`); nobody follows such a recording.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from agent.egress import UNANSWERED, Egress, EgressFailed, Seen
from agent.leg import Leg
from agent.phrases import announcement
from agent.speech import Spoken, synthesize
from agent.voice import Voice
from runtime.logs import Log
from runtime.settings import Settings
from schemas.brief import Brief
from schemas.facts import Fact, RecordingCompleted, RecordingFailed, RecordingStarted
from schemas.values import room_name

REQUIRED_TIMEOUT_S: Final = 5.0
"""Mode `required`: how long the callee waits in silence for the recording to run; the call ends after it."""
CONSENT_WAIT_S: Final = 2.0
"""Mode `consent`: how long the talk waits, after the announcement, for the recording to run."""
STOP_TIMEOUT_S: Final = 1.0
"""How long a hang-up may wait for the recording to stop; it answers in a few milliseconds."""
LEFT_TIMEOUT_S: Final = 30.0
"""A recording ends so long after the callee left, whatever the job is busy with."""
START_LEFT_S: Final = 5.0
"""After the call: how long a start that is still without an answer is waited for."""
FOLLOW_TIMEOUT_S: Final = 40.0
"""After the call: how long the file may take to be in the bucket; `SESSION_END_TIMEOUT_S` of the worker has room for it."""
LOOK_EVERY_S: Final = 0.25
FIND_TRIES: Final = 2

Say = Callable[..., None]
"""`say(kind, **fields)`, as `Reporter.say`."""
LISTENER_TIMEOUT_S: Final = 5.0

log = Log("agent.recording")


def path_of(brief: Brief) -> str:
    """Return where in the bucket an attempt's recording lies."""
    return f"recordings/{brief.campaign_id}/{brief.call_id}-{brief.attempt}/recording.mp3"


class Recorder:
    """One attempt's recording; with mode `off` it does nothing at all."""

    def __init__(self, brief: Brief, leg: Leg, settings: Settings, say: Say) -> None:
        self._brief, self._leg, self._settings, self._say = brief, leg, settings, say
        self._mode = brief.conversation.recording
        self._announcement: Spoken | None = None
        self._egress: Egress | None = None
        self._running: Seen | None = None
        self._told = False
        self._starting: asyncio.Task[bool] | None = None
        self._guard: asyncio.Task[None] | None = None

    async def prepare(self) -> bool:
        """Have ready what `answered` needs; False when nobody may be rung. Raises: SpeechFailed."""
        if self._mode == "required" and not self._settings.recording_bucket:
            log.alarm("a recording is required, and DIALER_RECORDING_BUCKET is not set", call_id=self._brief.call_id)
            return False
        if self._mode == "consent":
            brief = self._brief
            text = announcement(brief.language, brief.conversation.phrases)
            self._announcement = await synthesize(text, brief.language, self._settings)
        return True

    async def answered(self, voice: Voice) -> bool:
        """Begin as the mode has it, before the first word; False when the call must end unspoken."""
        match self._mode:
            case "off":
                return True
            case "best_effort":
                self._start()
                return True
            case "required":
                return await self._runs(REQUIRED_TIMEOUT_S)
            case "consent":
                if await self._announced(voice):
                    await self._runs(CONSENT_WAIT_S)
                return True

    async def stop_and_wait_for_egress(self) -> None:
        """Stop, and wait until nothing more is taken from the room; bounded, for a person may be on the line."""
        if self._egress is None or self._running is None:
            return  # a start without an answer yet: `finish` sees to it
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                seen = await self._egress.stop(self._running.egress_id)
                while seen is not None and seen.records:
                    await asyncio.sleep(LOOK_EVERY_S)
                    seen = await self._egress.look(self._running.egress_id)
        except (EgressFailed, TimeoutError) as failed:
            self._warn("a recording was not stopped before the room", failed)

    async def finish(self, say: Say) -> None:
        """Follow the recording to its end and tell of it; `say` is how, after the job's last word."""
        self._say = say
        if self._guard is not None:
            self._guard.cancel()
        if self._egress is None:
            return
        try:
            if self._starting is not None and not self._starting.done():
                await asyncio.wait({self._starting}, timeout=START_LEFT_S)
                await self._settle_start()
            if self._running is not None and not self._told:
                await self._follow(self._running)
        finally:
            await self._egress.close()

    async def _announced(self, voice: Voice) -> bool:
        """Say that it will be recorded; False when the callee was not there to the end of that."""
        assert self._announcement is not None  # `prepare`
        over = self._leg.over
        if not await voice.has_listener(over, LISTENER_TIMEOUT_S):
            return False
        return (await voice.play(self._announcement, over, lambda: None)).whole

    def abandon(self, say: Say) -> None:
        """Say that nobody follows the recording any more: the job has no time left for it."""
        self._say = say
        if self._running is not None and not self._told:
            self._failed(self._running.egress_id, "not_followed")

    # -- the beginning ------------------------------------------------------------------------------------------------

    def _start(self) -> asyncio.Task[bool]:
        """Start in the background, once."""
        if self._starting is None:
            self._egress = Egress(
                self._settings, room_name(self._brief.call_id, self._brief.attempt), path_of(self._brief)
            )
            self._starting = asyncio.create_task(self._begin(self._egress), name="start recording")
            self._guard = asyncio.create_task(self._stop_left_behind(), name="recording guard")
        return self._starting

    async def _begin(self, egress: Egress) -> bool:
        if not self._settings.recording_bucket:
            return self._failed(None, "no_bucket")
        try:
            self._running = await self._find(egress) or await self._started(egress)
        except EgressFailed as failed:
            return self._failed(None, failed.code)
        self._tell(RecordingStarted, egress_id=self._running.egress_id)
        return True

    async def _started(self, egress: Egress) -> Seen:
        """Start one. Raises: EgressFailed. A start without an answer may have come true: it is looked for, not repeated."""
        try:
            return await egress.start()
        except EgressFailed as failed:
            if failed.code not in UNANSWERED or (seen := await egress.find()) is None:
                raise
            return seen

    async def _find(self, egress: Egress) -> Seen | None:
        """Look for a recording that an earlier job of this room started. Raises: EgressFailed."""
        for last in range(1, FIND_TRIES + 1):
            try:
                return await egress.find()
            except EgressFailed:
                if last == FIND_TRIES:
                    raise
        return None

    async def _runs(self, timeout_s: float) -> bool:
        """Start, and wait until sound is being written; False when it is not by then. A leg that is over ends the wait."""
        running: asyncio.Future[Any] = asyncio.ensure_future(self._becomes_active())
        try:
            await asyncio.wait({running, self._leg.over}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return bool(running.result())
            if self._mode == "required" and not self._leg.over.done():
                self._failed(self._running.egress_id if self._running else None, "not_active_in_time")
            return False
        finally:
            running.cancel()

    async def _becomes_active(self) -> bool:
        if not await asyncio.shield(self._start()):
            return False
        assert self._egress is not None
        assert self._running is not None
        while not self._running.active:
            if self._running.ended:
                return self._failed(self._running.egress_id, self._running.code)
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self._running = await self._egress.look(self._running.egress_id)
            except EgressFailed:
                continue  # the caller's limit ends it
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _stop_left_behind(self) -> None:
        """Stop what still records when the callee is long gone: a job that hangs must not record an empty room."""
        await asyncio.shield(self._leg.over)
        await asyncio.sleep(LEFT_TIMEOUT_S)
        log.alarm("a recording outlasted its call", call_id=self._brief.call_id, attempt=self._brief.attempt)
        await self.stop_and_wait_for_egress()

    async def _settle_start(self) -> None:
        """Stop what started too late; a start without an answer may have come true all the same: look once more."""
        assert self._egress is not None
        assert self._starting is not None
        if self._starting.done():
            await self.stop_and_wait_for_egress()
            return
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        try:
            self._running = await self._egress.find()
        except EgressFailed as failed:
            self._warn("it is not known whether a recording runs", failed)
        if self._running is None:
            self._failed(None, "timeout")
        else:
            self._tell(RecordingStarted, egress_id=self._running.egress_id)
            await self.stop_and_wait_for_egress()

    async def _follow(self, seen: Seen) -> None:
        assert self._egress is not None
        why = "not_followed"
        try:
            async with asyncio.timeout(FOLLOW_TIMEOUT_S):
                while True:
                    try:
                        seen = await self._egress.look(seen.egress_id)
                    except EgressFailed as failed:
                        why = failed.code
                    else:
                        why = f"not_followed_{seen.code}"
                        if seen.ended:
                            break
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            self._failed(seen.egress_id, why)
            return
        if not seen.whole:
            self._failed(seen.egress_id, seen.code)
            return
        self._tell(
            RecordingCompleted,
            egress_id=seen.egress_id,
            path=seen.path or path_of(self._brief),
            duration_ms=seen.duration_ms,
            size_bytes=seen.size_bytes,
        )
        self._told = True

    # -- telling ------------------------------------------------------------------------------------------------------

    def _tell(self, kind: type[Fact], **fields: Any) -> None:
        if not self._told:
            self._say(kind, **fields)

    def _failed(self, egress_id: str | None, code: str) -> bool:
        self._tell(RecordingFailed, egress_id=egress_id, code=code)
        self._told = True
        self._warn("there is no whole recording", EgressFailed(code))
        return False

    def _warn(self, what: str, why: Exception) -> None:
        code = why.code if isinstance(why, EgressFailed) else "timeout"
        log.warning(what, code=code, call_id=self._brief.call_id, attempt=self._brief.attempt)
