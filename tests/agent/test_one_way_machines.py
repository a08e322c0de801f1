"""One-way calls that listen while they speak: what a machine, a screener and a person get of them, heard at the phone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from rehearsal import marks
from rehearsal.ear import HeardCall
from rehearsal.hearing import Verdict, compare
from rehearsal.personas import SCRIPTED, Persona
from rehearsal.script import Pause, Script
from rehearsal.talk import Talk, talk_of
from schemas import facts, values
from schemas.brief import Words
from schemas.conversation import Conversation
from tests.agent.conftest import MESSAGE, Call, Stage

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.livekit,
    pytest.mark.broker,
    pytest.mark.e2e,
    pytest.mark.realtime,
]

VOICEMAIL = "Hello Ann, please call your pharmacy back at Main Street."
INTRODUCTION = "This is the pharmacy with news of a prescription."
BEEP_TO_MESSAGE_MAX_MS = 800
PHONES = {persona.name: replace(persona, rings_for_s=0.3) for persona in SCRIPTED["en"]}
LEAVE = Conversation(machine="leave_message")
HANG_UP = Conversation(machine="hangup")
WORDS = Words(voicemail=VOICEMAIL, introduction=INTRODUCTION)


@dataclass(frozen=True)
class Met:
    """How one call went: its facts, and what both ends of the line recorded."""

    told: list[str]
    categories: list[str]
    reason: str
    heard: HeardCall
    talk: Talk


async def ring(stage: Stage, phone: Persona, conversation: Conversation) -> Met:
    """Hold one call, from its room to the end of the phone's leg."""
    call: Call = await stage.place(conversation=conversation, words=WORDS)
    await stage.comes(call, facts.AgentReady.TYPE)
    await stage.dial(call, phone)
    ended = await stage.comes(call, facts.ConversationEnded.TYPE, timeout_s=60)
    _, heard = await stage.spoken(call)
    talk = talk_of(stage.supervisor.run_dir, values.attempt_id(call.call_id, 1))
    assert heard is not None and talk is not None
    seen = stage.facts(call)
    return Met(
        told=[fact.type.removeprefix("agent.fact.").removesuffix(".v1") for fact in seen],
        categories=[fact.data["category"] for fact in seen if fact.type == facts.AnswererDetected.TYPE],
        reason=ended.data["reason"],
        heard=heard,
        talk=talk,
    )


def said_after(met: Met, moment_ms: float, text: str) -> float:
    """Hold that the phone heard a text whole, once and alone after a moment; return how long after, in ms."""
    later = met.heard.samples[round(moment_ms * 16) :]
    verdict = compare(later, 16_000, text)
    assert verdict.verdict is Verdict.SAME, verdict.reason
    return marks.decode(later, 16_000)[0].start / 16


@pytest.mark.realtime
async def test_a_voicemail_gets_its_message_whole_right_after_the_beep(stage: Stage) -> None:
    """The message for people stops, the greeting is waited for, and the mailbox holds every word of its own message."""
    met = await ring(stage, PHONES["voicemail_beep"], LEAVE)
    assert met.categories[-1] == "machine-vm"
    assert met.reason == "voicemail_left"
    assert met.told.count("voicemail_left") == 1 and "notification_delivered" not in met.told
    beep = met.talk.of("beep")[0]
    after_ms = said_after(met, beep.end_ms, VOICEMAIL)
    print(f"\nthe message begins {after_ms:.0f} ms after the beep")
    assert after_ms <= BEEP_TO_MESSAGE_MAX_MS


@pytest.mark.realtime
async def test_a_voicemail_without_a_beep_gets_its_message_after_the_silence(stage: Stage) -> None:
    """No tone was promised: silence is the greeting's end."""
    met = await ring(stage, PHONES["voicemail_silence"], LEAVE)
    assert met.reason == "voicemail_left"
    said_after(met, met.talk.of("say")[0].end_ms, VOICEMAIL)


@pytest.mark.realtime
async def test_a_message_that_a_late_beep_comes_into_is_begun_again(stage: Stage) -> None:
    """What was said before the beep is not on the tape: the mailbox holds the message whole all the same."""
    steps = PHONES["voicemail_beep"].script.steps
    slow = Script(name="voicemail_slow", steps=(*steps[:2], Pause(seconds=5.5), *steps[3:]), is_machine=True)
    met = await ring(stage, replace(PHONES["voicemail_beep"], script=slow), LEAVE)
    assert met.reason == "voicemail_left"
    said_after(met, met.talk.of("beep")[0].end_ms, VOICEMAIL)


async def test_a_machine_is_hung_up_on_where_the_campaign_wants_that(stage: Stage) -> None:
    """`hangup`: nothing is left, and the message does not count as delivered."""
    met = await ring(stage, PHONES["voicemail_beep"], HANG_UP)
    assert met.categories[-1] == "machine-vm"
    assert met.reason == "machine_hung_up"
    assert not {"voicemail_left", "notification_delivered"} & set(met.told)


async def test_a_mailbox_that_takes_no_message_gets_none(stage: Stage) -> None:
    """`leave_message` leaves nothing where nobody would hear it."""
    met = await ring(stage, PHONES["mailbox_full"], LEAVE)
    assert met.categories[-1] == "machine-unavailable"
    assert met.reason in {"machine_hung_up", "callee_left"}
    assert "voicemail_left" not in met.told


@pytest.mark.realtime
async def test_a_person_hears_the_whole_message_though_somebody_listens(stage: Stage) -> None:
    """A person's words stop nothing."""
    met = await ring(stage, PHONES["business_greeting"], LEAVE)
    assert met.categories == ["human"]
    assert met.reason == "delivered"
    said_after(met, 0, MESSAGE)


async def test_a_screener_is_told_who_is_calling_and_the_person_hears_the_message(stage: Stage) -> None:
    """Who is calling and why; then what comes is judged again, and the message begins anew."""
    met = await ring(stage, PHONES["screening_connects"], HANG_UP)
    assert met.categories[0] == "call-screening" and met.categories[-1] in {"human", "uncertain"}
    assert met.reason == "delivered"
    codes = [moment.text for moment in met.talk.of("mark_begin")]
    wanted = [str(marks.code_of(text)) for text in (INTRODUCTION, MESSAGE)]
    assert codes[-2:] == wanted
