"""Two-way calls as they are held: the worker as deployed, a real room, the speech service, the brain, and a phone that talks."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web

from agent.sentences import Sentences
from rehearsal import serving
from rehearsal.ear import SAMPLE_RATE
from rehearsal.marks import Side
from runtime.seal import aad, data_key, open_value
from schemas import facts, values
from schemas.conversation import AgentApi, Conversation
from schemas.values import Sealed
from tests.agent.conftest import Call, Stage
from tests.agent.talking import TalkingPhone, register

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.livekit,
    pytest.mark.broker,
    pytest.mark.e2e,
    pytest.mark.realtime,
]
GREETING = "Hello Ann, this is the clinic. Would you like to make an appointment?"
WHO, YES, TUESDAY = "Who is this, please?", "Yes, please.", "Tuesday at ten is fine."
CLINIC = "I am calling from the clinic to make an appointment with you. Would you like one?"
OFFER = "Good. Would Tuesday at ten in the morning suit you?"
BOOKED = "You are booked for Tuesday at ten. Thank you, goodbye."
HOURS = (
    "Let me tell you about our opening hours in detail. We are open on Monday from eight to six."
    " On Tuesday we are open from nine to five. On Wednesday we are closed in the afternoon."
    " On Thursday and Friday we are open all day long."
)
STOP, PERSON = "Please stop calling me.", "I would like to talk to a person."
WAIT = "Wait, wait. Who is this?"
MAILBOX = "You have reached the voice mailbox of Ann. Please leave your message after the tone."
SORRY = "I am sorry, I did not get that. Could you say it again, please?"
BYE = "I have to end the call now. Goodbye."
NO_MORE = "I understand. We will not call you again. Goodbye."
SAID = (WHO, YES, TUESDAY, STOP, PERSON, WAIT, MAILBOX)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def talk(stage: Stage) -> AsyncIterator[Stage]:
    """The stage, with a recogniser that knows what the phones say."""
    await register(stage.speech_port, *SAID)
    yield stage


async def place(
    stage: Stage, model: str = "scheduler", *, greeting: str = GREETING, **more: Any
) -> tuple[Call, TalkingPhone]:
    """Have a two-way call's phone ring, with its agent ready."""
    brief = {name: more.pop(name) for name in ("language", "max_call_duration_s") if name in more}
    api = AgentApi(url=f"http://127.0.0.1:{stage.brain_port}/v1", model=model, timeout_s=1.5)
    conversation = Conversation(**{"agent_api": api, **more})
    call = await stage.place(greeting, type="two_way", conversation=conversation, **brief)
    await stage.comes(call, facts.AgentReady.TYPE)
    phone = await stage.dial(call, kind=TalkingPhone)
    assert isinstance(phone, TalkingPhone)
    return call, phone


def said(stage: Stage, call: Call) -> list[tuple[str, str]]:
    """Return who said what, as it is on the log, opened with the callee's key."""
    key = data_key("d1", base64.urlsafe_b64decode(call.brief.data_key))
    place = aad(values.callee_of(call.call_id), facts.TurnTaken.TYPE, "text")
    found = []
    for fact in stage.facts(call):
        if fact.type == facts.TurnTaken.TYPE:
            words = open_value(key, Sealed(**fact.data["text"]), place)
            assert words is not None
            found.append((fact.data["speaker"], words.decode()))
    return found


def told(stage: Stage, call: Call) -> list[str]:
    """Return the names of a call's facts after the answer, turns left out."""
    names = [fact.type.removeprefix("agent.fact.").removesuffix(".v1") for fact in stage.facts(call)]
    left_out = {"agent_ready", "callee_joined", "callee_status", "turn_taken", "callee_left"}
    return [name for name in names if name not in left_out]


def _sentences(text: str) -> list[str]:
    """Cut a text as the agent speaks it: each piece has marks of its own."""
    cut = Sentences()
    return [*cut.add(text), cut.rest()]


async def ended(stage: Stage, call: Call) -> str:
    """Wait for the last word; returns the reason."""
    last = await stage.comes(call, facts.ConversationEnded.TYPE, timeout_s=40)
    return str(last.data["reason"])


@pytest.mark.realtime
async def test_an_appointment_is_made(talk: Stage) -> None:
    """Greeting, three turns, a goodbye of the agent API's: heard, told, sealed, and answered soon."""
    call, phone = await place(talk)
    await phone.picked_up()
    cpu_s, began_at = talk.worker_cpu_s(), time.monotonic()
    await phone.hears(GREETING)
    gaps = []
    for words, answer in ((WHO, CLINIC), (YES, OFFER), (TUESDAY, BOOKED)):
        silent_at = await phone.says(words)
        gaps.append(await phone.hears(_sentences(answer)[0], Side.BEGIN) - silent_at)
        await phone.hears(_sentences(answer)[-1])
    cpu_s, talked_s = talk.worker_cpu_s() - cpu_s, time.monotonic() - began_at
    assert await ended(talk, call) == "conversed"
    turns = said(talk, call)
    assert turns == [
        ("agent", GREETING),
        ("callee", WHO),
        ("agent", CLINIC),
        ("callee", YES),
        ("agent", OFFER),
        ("callee", TUESDAY),
        ("agent", BOOKED),
    ]
    assert told(talk, call) == ["conversation_started", "conversation_ended"]
    started = next(f for f in talk.facts(call) if f.type == facts.ConversationStarted.TYPE).data
    assert started["greeting_ms"] > 3000 and started["answer_to_audio_ms"] < 1500
    replies = [f.data["reply_ms"] for f in talk.facts(call) if f.type == facts.TurnTaken.TYPE and f.data["reply_ms"]]
    spoken_s = sum(f.data["spoken_ms"] or 0 for f in talk.facts(call) if f.type == facts.TurnTaken.TYPE) / 1000
    print(f"\n{cpu_s:.2f} CPU s in {talked_s:.1f} s, {spoken_s:.1f} s of them spoken by the agent")
    print(f"reply_ms {replies}; at the phone, to the end of the first mark {[round(gap * 1000) for gap in gaps]}")
    assert len(replies) == 3 and max(replies) < 4000


@pytest.mark.realtime
async def test_the_callee_interrupts(talk: Stage) -> None:
    """The agent falls silent in mid-sentence, says on the log what was heard of it, and answers what it was told."""
    call, phone = await place(talk, "talker")
    await phone.picked_up()
    await phone.hears(GREETING)
    await phone.says(YES)
    told_in_full = _sentences(HOURS)
    await phone.hears(told_in_full[0])
    began_at = phone.now_s()
    await phone.says(WAIT)
    await phone.hears(told_in_full[0], Side.BEGIN)
    answered_at = phone.heard_at_s()
    phone.hangs_up()
    assert await ended(talk, call) == "conversed"
    turns = said(talk, call)
    cut = turns[2][1]
    assert turns[2][0] == "agent" and told_in_full[0] in cut and HOURS.startswith(cut) and cut != HOURS
    assert ("callee", WAIT) in turns
    _, heard = await talk.spoken(call)
    assert heard is not None
    silent_at = last_sound_before(heard.samples, answered_at - 0.3)
    print(
        f"\nsilent {1000 * (silent_at - began_at):.0f} ms after the callee began (780 of them until the recogniser can know)"
    )
    assert silent_at - began_at < 2.0


@pytest.mark.realtime
async def test_an_agent_api_that_fails_is_excused_and_then_ends_the_call(talk: Stage) -> None:
    """500 on every try: excused once, then told, with a goodbye; nothing waits long in silence."""
    call, phone = await place(talk, "scheduler+error")
    await phone.picked_up()
    await phone.hears(GREETING)
    await phone.says(YES)
    await phone.hears(SORRY)
    await phone.says(YES)
    await phone.hears(BYE)
    assert await ended(talk, call) == "failed"
    failed = next(f for f in talk.facts(call) if f.type == facts.AgentApiFailed.TYPE)
    assert (failed.data["service"], failed.data["code"]) == ("agent_api", "status_500")


@pytest.mark.realtime
async def test_a_transfer_that_is_refused_is_talked_about(talk: Stage) -> None:
    """Nobody does SIP behind this LiveKit: the REFER is refused, the agent API is told, the call goes on."""
    call, phone = await place(talk, transfer_to={"desk": "tel:+12125550100"})
    await phone.picked_up()
    await phone.hears(GREETING)
    await phone.presses("1")
    await phone.hears("Thank you for pressing the key.")
    await phone.says(PERSON)
    await phone.hears("I am sorry, nobody can take your call there right now.")
    phone.hangs_up()
    assert await ended(talk, call) == "conversed"
    assert "dtmf_received" in told(talk, call) and "call_transferred" not in told(talk, call)


@pytest.mark.realtime
async def test_an_opt_out_is_told_twice_and_acknowledged(talk: Stage) -> None:
    """Words in a two-way call while the dialer's API is away, a key in a one-way call while it is there."""
    call, phone = await place(talk)
    await phone.picked_up()
    await phone.hears(GREETING)
    await phone.says(STOP)
    await phone.hears(NO_MORE)
    assert await ended(talk, call) == "opted_out"
    heard = next(f for f in talk.facts(call) if f.type == facts.OptOutHeard.TYPE)
    assert heard.data["evidence"] == "en-stop-calling"
    async with suppressions(talk.dialer_port) as asked:
        call = await talk.place(HOURS, conversation=Conversation(opt_out_key="9"))
        await talk.comes(call, facts.AgentReady.TYPE)
        keyed = await talk.dial(call, kind=TalkingPhone)
        assert isinstance(keyed, TalkingPhone)
        await keyed.picked_up()
        await talk.comes(call, facts.ConversationStarted.TYPE)
        await keyed.presses("9")
        await keyed.hears(NO_MORE)
        assert await ended(talk, call) == "opted_out"
        assert asked == [{"callee_key": values.callee_of(call.call_id), "reason": "opt_out"}]
    assert told(talk, call) == ["conversation_started", "dtmf_received", "opt_out_heard", "conversation_ended"]


@pytest.mark.realtime
async def test_a_mailbox_is_hung_up_on(talk: Stage) -> None:
    """The answerer's rules hear the first utterance of a two-way call, too; the agent API never hears of it."""
    call, phone = await place(talk, machine="hangup")
    await phone.picked_up()
    await phone.says(MAILBOX)
    assert await ended(talk, call) == "machine_hung_up"
    detected = next(f for f in talk.facts(call) if f.type == facts.AnswererDetected.TYPE)
    assert detected.data["category"] == "machine-vm"


@pytest.mark.realtime
async def test_the_longest_call_ends_with_a_goodbye(talk: Stage) -> None:
    """`max_call_duration_s` holds, the goodbye within it."""
    call, phone = await place(talk, max_call_duration_s=13)
    await phone.picked_up()
    await phone.hears(BYE)
    assert await ended(talk, call) == "too_long"
    dial, _ = await talk.spoken(call)
    assert dial.ended_by == "caller_bye"


async def test_a_bug_ends_the_call_with_a_goodbye_and_is_told_as_a_crash(talk: Stage) -> None:
    """A brief that cannot be (two-way without an agent API) stands for any bug of ours."""
    call, phone = await place(talk, agent_api=None)
    await phone.picked_up()
    await phone.hears(BYE)
    await talk.comes(call, facts.AgentCrashed.TYPE)
    dial, _ = await talk.spoken(call)
    assert dial.ended_by == "caller_bye"
    assert facts.ConversationEnded.TYPE not in {fact.type for fact in talk.facts(call)}


async def test_no_log_of_the_worker_holds_a_word(talk: Stage) -> None:
    """After all calls of this module: no word that was said, name, room, identity or number is in any line."""
    log = talk.supervisor.log_path("agent").read_text()
    assert "replied" in log and "a turn failed" in log and "a bug ended a call" in log
    texts = (*SAID, GREETING, HOURS, BOOKED, CLINIC, OFFER, SORRY, BYE, NO_MORE)
    words = ("appointment", "clinic", "Tuesday", "Wednesday", "mailbox", "Ann", "stop calling", "person.")
    for secret in (*texts, *words, "callee-", "call-", "2125550100", "data_key", "brain-key"):
        assert secret not in log, secret


def last_sound_before(samples: Any, until_s: float) -> float:
    """Return when the last sound before a time ended, in seconds of the recording."""
    window = SAMPLE_RATE // 50
    whole = samples[: int(until_s * SAMPLE_RATE)]
    loud = [n for n in range(0, len(whole) - window, window) if np.abs(whole[n : n + window].astype(int)).max() > 400]
    return (loud[-1] + window) / SAMPLE_RATE


@contextlib.asynccontextmanager
async def suppressions(port: int) -> AsyncIterator[list[Any]]:
    """Listen where the dialer's API would, and keep what it is asked."""
    asked: list[Any] = []

    async def suppress(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({}, status=202)

    app = web.Application()
    app.router.add_post("/v1/suppressions", suppress)
    runner, _ = await serving.start(app, port)
    try:
        yield asked
    finally:
        await runner.cleanup()
