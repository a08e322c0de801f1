"""Two-way calls as they are held: the worker as deployed, a real room, the speech service, the brain, and a phone that talks."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from agent.sentences import Sentences
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
]
GREETING = "Hello Ann, this is the clinic. Would you like to make an appointment?"
WHO, YES, TUESDAY = "Who is this, please?", "Yes, please.", "Tuesday at ten is fine."
CLINIC = "I am calling from the clinic to make an appointment with you. Would you like one?"
OFFER = "Good. Would Tuesday at ten in the morning suit you?"
BOOKED = "You are booked for Tuesday at ten. Thank you, goodbye."
SAID = (WHO, YES, TUESDAY)


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


async def test_an_appointment_is_made(talk: Stage) -> None:
    """Greeting, three turns, a goodbye of the agent API's: heard, told, sealed, and answered soon."""
    call, phone = await place(talk)
    await phone.picked_up()
    await phone.hears(GREETING)
    gaps = []
    for words, answer in ((WHO, CLINIC), (YES, OFFER), (TUESDAY, BOOKED)):
        silent_at = await phone.says(words)
        gaps.append(await phone.hears(_sentences(answer)[0], Side.BEGIN) - silent_at)
        await phone.hears(_sentences(answer)[-1])
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
    print(f"\nreply_ms {replies}; at the phone, to the end of the first mark {[round(gap * 1000) for gap in gaps]}")
    assert len(replies) == 3 and max(replies) < 4000
