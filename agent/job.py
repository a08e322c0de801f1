"""One job: an attempt's agent, in a process of its own, from its brief to its last word.

The brief is opened, the message synthesised and the track published before readiness is said; the last word and the
hang-up are in `session_ended`, which runs however the job ends (reference/livekit.md 1.6).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from livekit import api, rtc
from livekit.agents import AutoSubscribe, JobContext, JobProcess
from livekit.rtc.participant import PublishTrackError

from agent import one_way_call, two_way_call
from agent.brief import BriefRefused, open_brief, socket_path
from agent.ending import Reason
from agent.leg import Leg
from agent.line import Line
from agent.recogniser import RecogniserFailed
from agent.recording import Recorder
from agent.reporter import Reporter
from agent.speech import SpeechFailed
from agent.spool import Spool
from agent.turn import Relay
from agent.twilio import TurnFailed
from agent.voice import Voice
from agent.wire import Hello
from runtime.clock import SystemClock
from runtime.logs import Log
from runtime.settings import Settings, read_settings
from schemas.brief import Brief
from schemas.facts import AgentApiFailed, ConversationEnded

CONNECT_TIMEOUT_S: Final = 20.0
RENEW_EVERY_S: Final = 2.0
LAST_WORD_TIMEOUT_S: Final = 10.0
HANG_UP_TIMEOUT_S: Final = 5.0
HANG_UP_PAUSES_S: Final = (0.0, 0.5, 1.0)
SOUND_FIRST: Final = 5
"""How much nicer Python is than libwebrtc's threads beside it: it works in bursts, they have deadlines every 10 ms."""
_CONVERSATION: Final = "conversation"

log = Log("agent.job")


@dataclass(slots=True, kw_only=True)
class Conversation:
    """What `session_ended` must know."""

    brief: Brief
    leg: Leg
    reporter: Reporter
    recorder: Recorder
    reason: Reason = "failed"
    call: Call | None = None
    crashed: bool = False
    """A bug ended it: there is no last word, and the parent says so."""


class Call(Protocol):
    """A call that is ready to be dialled, whichever type it has."""

    async def run(self, line: Line) -> Reason:
        """Take it from readiness to its end."""
        ...

    async def apologise(self, line: Line) -> None:
        """Say goodbye after a bug, if possible."""
        ...

    async def aftermath(self) -> None:
        """Wait for what the end of the call does not wait for."""
        ...


_SERVICES: Final[dict[type[Exception], str]] = {SpeechFailed: "speak", RecogniserFailed: "listen", TurnFailed: "turn"}
_CALLS: Final[dict[str, Callable[[Brief, Settings], contextlib.AbstractAsyncContextManager[Call]]]] = {
    "one_way": one_way_call.prepared,
    "two_way": two_way_call.prepared,
}


def warm_up(process: JobProcess) -> None:
    """Make an idle process ready: settings read, the native runtime started, so that no job pays for it."""
    process.userdata["settings"] = read_settings(os.environ)
    rtc.AudioResampler(48_000, 24_000)
    os.nice(SOUND_FIRST)  # on Linux of this thread alone, and of those it starts from now on


async def entrypoint(ctx: JobContext) -> None:
    """Work on one attempt. LiveKit calls this in a warm process."""
    settings: Settings = ctx.proc.userdata["settings"]
    try:
        brief = open_brief(ctx.job.metadata, ctx.job.room.name, settings)
    except BriefRefused as refused:
        log.alarm("a brief was refused", rule=str(refused), job_id=ctx.job.id)
        ctx.shutdown("brief refused")
        return
    hello = Hello(call_id=brief.call_id, attempt=brief.attempt, job_id=ctx.job.id)
    clock = SystemClock()
    reporter = await Reporter.connect(socket_path(), hello, Spool.of(settings, clock), clock)
    leg = Leg(ctx.room, brief.callee_identity, reporter.say)
    recorder = Recorder(brief, leg, settings, reporter.say)
    conversation = Conversation(brief=brief, leg=leg, reporter=reporter, recorder=recorder)
    ctx.proc.userdata[_CONVERSATION] = conversation
    try:
        conversation.reason = await _converse(ctx, conversation, settings)
    except asyncio.CancelledError:
        await _orphaned(ctx, conversation)
        raise
    finally:
        ctx.shutdown("the conversation is over")


async def _converse(ctx: JobContext, conversation: Conversation, settings: Settings) -> Reason:
    brief, leg, reporter = conversation.brief, conversation.leg, conversation.reporter
    if brief.type not in _CALLS:
        log.alarm("a call type is not built", call_id=brief.call_id, attempt=brief.attempt)
        return "failed"
    async with contextlib.AsyncExitStack() as stack:
        preparing = asyncio.create_task(stack.enter_async_context(_CALLS[brief.type](brief, settings)), name="prepare")
        try:
            voice = await _join(ctx, leg, brief, settings)
            call = await preparing
            if not await conversation.recorder.prepare():
                return "failed"
        except (rtc.ConnectError, PublishTrackError, TimeoutError) as error:
            why = type(error).__name__
            log.warning("the room cannot be joined", why=why, call_id=brief.call_id, attempt=brief.attempt)
            return "failed"
        except (SpeechFailed, RecogniserFailed, TurnFailed) as failure:
            service, code = _SERVICES[type(failure)], failure.code
            log.warning("a service failed", service=service, code=code, call_id=brief.call_id, attempt=brief.attempt)
            reporter.say(AgentApiFailed, service=service, code=code)
            return "failed"
        finally:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        conversation.call = call
        line = Line(room=ctx.room, leg=leg, voice=voice, reporter=reporter, recorder=conversation.recorder)
        reporter.ready()
        renewing = asyncio.create_task(_renew(reporter), name="renew")
        try:
            return await _held(call, line, conversation)
        finally:
            renewing.cancel()
    raise AssertionError("a call is held or has failed")


async def _held(call: Call, line: Line, conversation: Conversation) -> Reason:
    """Hold the call; a bug ends it with a goodbye, and the parent tells of it as of any crash."""
    try:
        return await call.run(line)
    except Exception as bug:
        # Neither its text nor a trace with it: a library's error may quote what was said.
        frame = traceback.extract_tb(bug.__traceback__)[-1]
        where, brief = f"{Path(frame.filename).name}:{frame.lineno}", conversation.brief
        log.alarm(
            "a bug ended a call", error=type(bug).__name__, where=where, call_id=brief.call_id, attempt=brief.attempt
        )
        conversation.crashed = True
        await call.apologise(line)
        return "failed"


async def _join(ctx: JobContext, leg: Leg, brief: Brief, settings: Settings) -> Voice:
    """Be in the room, the track published. Raises: TurnFailed, ConnectError, PublishTrackError, TimeoutError."""
    relay = Relay.of(settings, SystemClock())
    rtc_config = None if relay is None else await relay.configuration(brief)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await ctx.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE, rtc_config=rtc_config)
            leg.watch()
            return await Voice.publish(ctx.room)
    except TimeoutError:
        if relay is None:
            raise
        await relay.distrust()  # a relay that takes nobody: libwebrtc would say so after 60 s
        raise TurnFailed("no_connection") from None


async def _renew(reporter: Reporter) -> None:
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        reporter.renew()


async def session_ended(ctx: JobContext) -> None:
    """Hang up on whoever is still there, say the last word, and wait until it is safe."""
    conversation: Conversation | None = ctx.proc.userdata.get(_CONVERSATION)
    if conversation is None:
        return
    try:
        await _end(ctx, conversation)
    except asyncio.CancelledError:
        await _orphaned(ctx, conversation)
        raise


async def _end(ctx: JobContext, conversation: Conversation) -> None:
    brief, leg, reporter = conversation.brief, conversation.leg, conversation.reporter
    await conversation.recorder.stop_and_wait_for_egress()
    leg.let_go = True
    if leg.present and not await hang_up(ctx.api, ctx.job.room.name):
        log.alarm("a hang-up failed", call_id=brief.call_id, attempt=brief.attempt)
    if conversation.call is not None:
        await conversation.call.aftermath()
    if conversation.crashed:
        await conversation.recorder.finish(reporter.afterword)
        await reporter.settled(LAST_WORD_TIMEOUT_S)
        await reporter.crash()
        return
    seen = leg.seen.is_set()
    reporter.last_word(ConversationEnded, reason=conversation.reason, callee_seen=seen, gap=leg.gap, stayed=leg.stayed)
    await conversation.recorder.finish(reporter.afterword)
    if not await reporter.settled(LAST_WORD_TIMEOUT_S):
        log.warning("facts are not safe", call_id=brief.call_id, attempt=brief.attempt)
    await reporter.goodbye()
    log.info("job done", call_id=brief.call_id, attempt=brief.attempt, reason=conversation.reason)


async def _orphaned(ctx: JobContext, conversation: Conversation) -> None:
    """End a call whose worker is dead: its facts to disk, its room deleted, so that the callee is not left in silence.

    livekit-agents 1.8.9 cancels the job then and calls nothing of ours any more, `session_ended` neither (proc_client).
    """
    reporter, seen = conversation.reporter, conversation.leg.seen.is_set()
    # `gap`: what comes into the room between this word and its deletion is seen by nobody.
    reporter.last_word(ConversationEnded, reason=conversation.reason, callee_seen=seen, gap=True)
    conversation.recorder.abandon(reporter.afterword)
    reporter.keep()
    async with api.LiveKitAPI() as client:  # the job's own session is closed
        if not await hang_up(client, ctx.job.room.name):
            log.alarm("a hang-up failed", call_id=conversation.brief.call_id, attempt=conversation.brief.attempt)


async def hang_up(client: api.LiveKitAPI, room: str) -> bool:
    """Delete the room, which ends the callee's leg; a room that is gone is a success. False when no try was answered."""
    for pause_s in HANG_UP_PAUSES_S:
        await asyncio.sleep(pause_s)
        try:
            async with asyncio.timeout(HANG_UP_TIMEOUT_S):
                await client.room.delete_room(api.DeleteRoomRequest(room=room))
        except api.TwirpError as error:
            if error.code == api.TwirpErrorCode.NOT_FOUND:
                return True
        except (aiohttp.ClientError, TimeoutError):
            continue
        else:
            return True
    return False
