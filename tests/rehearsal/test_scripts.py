"""A phone with a script converses with a caller in a real room, and what it did and heard can be judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from livekit import rtc

from rehearsal import ear, hearing, marks
from rehearsal.personas import PER_SCRIPT, SCRIPT_NAMES, persona_of
from rehearsal.script import Script, script_of
from rehearsal.talk import Talk, talk_of
from rehearsal.witness import EndedBy
from tests.rehearsal.conftest import FACT_S, Agent, Network, until

pytestmark = [pytest.mark.livekit, pytest.mark.slow, pytest.mark.realtime]

GREETING = "Hello, this is Main Street Pharmacy."
QUESTION = "Is this Ann?"
MESSAGE = "This is Main Street Pharmacy. Your order is ready."


def number_of(name: str, area: str = "646") -> str:
    return f"+1{area}55501{SCRIPT_NAMES.index(name) * PER_SCRIPT:02d}"


class Caller:
    """An agent that hears which lines the phone speaks, and when its beep is over."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.lines: list[int] = []
        self.keys: list[str] = []
        self.beeped = asyncio.Event()
        agent.room.on("sip_dtmf_received", lambda dtmf: self.keys.append(dtmf.digit))

    async def listen(self) -> None:
        await until(lambda: self.agent.tracks, "the agent has the callee's track")
        decoder = marks.Decoder(16_000)
        stream = rtc.AudioStream(self.agent.tracks[0], sample_rate=16_000, num_channels=1, frame_size_ms=50)
        toned = False
        try:
            async for event in stream:
                samples = np.frombuffer(event.frame.data, dtype=np.int16)
                self.lines += [mark.code for mark in decoder.feed(samples) if mark.side is marks.Side.END]
                tone = _is_tone(samples)
                if toned and not tone:
                    self.beeped.set()
                toned = tone
        finally:
            await stream.aclose()

    async def heard(self, script: Script, place: int, language: str = "en") -> None:
        """Wait until the phone has spoken so many of its lines."""
        wanted = [marks.code_of(line) for line in script.lines(language)[: place + 1]]
        await until(lambda: self.lines == wanted, f"line {place} of {script.name} was spoken")


def _is_tone(samples: np.ndarray) -> bool:
    power = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2
    return bool(power.sum() > 1e9 and power[45:56].sum() > 0.9 * power.sum())


@asynccontextmanager
async def call(network: Network, number: str, room: str) -> AsyncIterator[Caller]:
    await network.room(room)
    caller = Caller(await network.agent(room))
    listening = asyncio.create_task(caller.listen())
    try:
        await network.dial(number, room)
        yield caller
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def talk(network: Network, room: str) -> Talk:
    found = talk_of(network.directory, room)
    assert found is not None
    return found


def spoken(found: Talk) -> list[str]:
    return [moment.text for moment in found.of("say")]


@pytest.mark.parametrize(("area", "language"), [("646", "en"), ("917", "es")])
async def test_a_person_answers_what_is_asked_turn_by_turn(network: Network, area: str, language: str) -> None:
    """Each line comes after the caller's turn, and the phone stays on the line at its end."""
    script = script_of("talks")
    async with call(network, number_of("talks", area), f"talks-{language}") as caller:
        for place, words in enumerate((GREETING, QUESTION, "Which day?")):
            await caller.heard(script, place, language)
            await caller.agent.say(words)
        await caller.heard(script, 3, language)
        await network.hang_up(f"talks-{language}")
        dial = await network.ended(f"talks-{language}")
    found = talk(network, f"talks-{language}")
    assert dial.ended_by is EndedBy.CALLER_BYE and found.finished and spoken(found) == script.lines(language)
    wanted = [str(marks.code_of(words)) for words in (GREETING, QUESTION, "Which day?")]
    assert [moment.text for moment in found.of("mark_end")] == wanted
    turns = [(m.begin_ms, m.what) for m in found.moments if m.what in ("say", "mark_end")]
    assert [what for _, what in sorted(turns)] == ["say", "mark_end"] * 3 + ["say"]


async def test_a_person_interrupts_in_the_middle_of_a_sentence(network: Network) -> None:
    """The line begins before the caller's words are over."""
    async with call(network, number_of("interrupts"), "interrupts") as caller:
        await caller.heard(script_of("interrupts"), 0)
        await caller.agent.say("This is a long sentence, which nobody would want to hear to its very end, not even I.")
        await caller.heard(script_of("interrupts"), 1)
        await network.hang_up("interrupts")
        await network.ended("interrupts")
    found = talk(network, "interrupts")
    begin, end, second = found.of("mark_begin")[0], found.of("mark_end")[0], found.of("say")[1]
    assert begin.begin_ms + 1000 < second.begin_ms < end.begin_ms


async def test_keys_reach_the_room_as_dtmf(network: Network) -> None:
    """`sip_dtmf_received` at the caller, in their order."""
    async with call(network, number_of("presses_keys"), "keys") as caller:
        await caller.heard(script_of("presses_keys"), 0)
        await caller.agent.say(QUESTION)
        await until(lambda: caller.keys == ["1", "#"], "both keys arrived")
        await network.hang_up("keys")
        await network.ended("keys")
    assert [moment.text for moment in talk(network, "keys").of("press")] == ["1", "#"]


async def test_a_menu_goes_on_at_a_key_of_the_callers(network: Network) -> None:
    """The phone takes what the room sends."""
    async with call(network, number_of("menu"), "menu") as caller:
        await caller.heard(script_of("menu"), 0)
        await caller.agent.room.local_participant.publish_dtmf(code=2, digit="2")
        await caller.heard(script_of("menu"), 1)
        await network.hang_up("menu")
        await network.ended("menu")
    assert [moment.text for moment in talk(network, "menu").of("key")] == ["2"]


@pytest.mark.parametrize("name", ["voicemail_beep", "voicemail_long"])
async def test_a_mailbox_beeps_and_records_what_is_said_then(network: Network, name: str) -> None:
    """The message is whole in the recording, behind the beep."""
    async with call(network, number_of(name), name) as caller:
        await asyncio.wait_for(caller.beeped.wait(), FACT_S)
        await caller.agent.say(MESSAGE)
        await network.hang_up(name)
        await network.ended(name)
    found, heard = talk(network, name), ear.heard_of(network.directory, name)
    assert heard is not None
    (beep,), (record,) = found.of("beep"), found.of("record")
    assert beep.end_ms <= record.begin_ms < beep.end_ms + 300
    recorded = heard.samples[round(record.begin_ms * ear.SAMPLE_RATE / 1000) :]
    assert hearing.compare(recorded, ear.SAMPLE_RATE, MESSAGE).reason == ""


@pytest.mark.parametrize(("name", "ends"), [("mailbox_full", 0), ("screening_refuses", 1)])
async def test_a_machine_hangs_up_after_its_last_words(network: Network, name: str, ends: int) -> None:
    """A full mailbox at once; a screener after it was told who is calling."""
    async with call(network, number_of(name), name) as caller:
        await caller.heard(script_of(name), 0)
        if ends:
            await caller.agent.say(MESSAGE)
        dial = await network.ended(name)
    found = talk(network, name)
    assert dial.ended_by is EndedBy.CALLEE_BYE and found.finished and spoken(found) == script_of(name).lines("en")


async def test_a_screener_puts_the_call_through(network: Network) -> None:
    """Who is calling and why is answered by a person's hello."""
    async with call(network, number_of("screening_connects"), "screened") as caller:
        await caller.heard(script_of("screening_connects"), 0)
        await caller.agent.say(MESSAGE)
        await caller.heard(script_of("screening_connects"), 2)
        await network.hang_up("screened")
        await network.ended("screened")
    assert len(talk(network, "screened").of("say")) == 3


async def test_a_silent_phone_stays_on_the_line(network: Network) -> None:
    """It says hello and nothing more, whatever is said to it; only the caller ends the call."""
    async with call(network, number_of("stays_silent"), "silent") as caller:
        await caller.agent.say(QUESTION)
        await caller.agent.say("Are you there?")
        await network.hang_up("silent")
        assert (await network.ended("silent")).ended_by is EndedBy.CALLER_BYE
    assert spoken(talk(network, "silent")) == ["Hello?"]


async def test_who_hears_nothing_hangs_up(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person says hello, nobody speaks, and the call ends from the callee's side, the script unfinished."""
    async with call(network, number_of("talks"), "unheard"):
        dial = await network.ended("unheard")
    assert dial.ended_by is EndedBy.CALLEE_BYE and not talk(network, "unheard").finished


def test_numbers_choose_scripts_by_area_and_ending() -> None:
    """The area chooses the language, the ending the script; other areas have none."""
    assert persona_of("+16465550100").name == "talks" and persona_of("+19175550104").name == "talks_es"
    assert persona_of("+16465550199").name == "says_nothing" and persona_of("+12125550100").script is None
