"""`amd_beep_to_message_ms`: from a voicemail's beep to the first sound of the message in its recording, on real calls.

The whole network runs: real broker, real livekit-server, dialer, agents, and phones that greet, beep and record. Each
message must be in the recording whole; one that is not is counted, and ends the run.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from typing import Final

from bench.bed import RUN_DIR
from bench.requests import place_call
from rehearsal import marks, network
from rehearsal.ear import HeardCall, heard_of
from rehearsal.hearing import Verdict, compare
from rehearsal.personas import PER_SCRIPT, SCRIPT_NAMES
from rehearsal.provision import provision
from rehearsal.supervisor import Supervisor
from rehearsal.talk import SAMPLE_RATE, Talk, talk_of
from rehearsal.witness import Dial, dials_of
from runtime.kafka import idempotent_producer
from schemas.topics import COMMANDS

AT_ONCE: Final = 2
POLL_S: Final = 0.1
CALL_TIMEOUT_S: Final = 90.0
"""Longest wait for one more call to end."""
SCRIPT: Final = "voicemail_beep"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A campaign that leaves messages, the area code of its language, and its message as the phone should hear it."""

    campaign: str
    area: str
    language: str
    message: str


LINES: Final = (
    _Line(
        campaign="renewal",
        area="646",
        language="en-US",
        message="A message for Ann: your card can be renewed at Main Street. Goodbye.",
    ),
)


async def beep_to_message(rounds: int) -> list[float]:
    """Make `PER_SCRIPT` calls a round; returns every delay in milliseconds. Raises: NotReady, TimeoutError."""
    run_dir = (RUN_DIR / "amd").resolve()
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    laid_out = network.lay_out(run_dir, provision())
    async with Supervisor(run_dir) as supervisor:
        await network.start(laid_out, supervisor)
        producer = idempotent_producer(laid_out.bootstrap, "bench-amd")
        await producer.start()
        try:
            calls = [(line, n) for n in range(rounds * PER_SCRIPT) for line in LINES]
            for sent, (line, n) in enumerate(calls):
                await _ended(laid_out, sent + 1 - AT_ONCE)
                number = f"+1{line.area}55501{SCRIPT_NAMES.index(SCRIPT) * PER_SCRIPT + n % PER_SCRIPT:02d}"
                asked = place_call(number, f"amd-{n}", pepper=laid_out.pepper, campaign=line.campaign)
                await producer.send_and_wait(COMMANDS.name, value=asked.value, key=asked.key, partition=asked.partition)
            dials = await _ended(laid_out, len(calls))
        finally:
            await producer.stop()
    by_area = {line.area: line for line in LINES}
    return [_delay_ms(laid_out, dial, by_area[dial.number[2:5]]) for dial in dials]


def _delay_ms(laid_out: network.Network, dial: Dial, line: _Line) -> float:
    heard: HeardCall | None = heard_of(laid_out.carrier_dir, dial.attempt_id)
    talk: Talk | None = talk_of(laid_out.carrier_dir, dial.attempt_id)
    assert heard is not None, "a phone left no recording"
    assert talk is not None, "a phone left no account of its call"
    beep = talk.of("beep")[0]
    recorded = heard.samples[round(beep.end_ms * SAMPLE_RATE / 1000) :]
    found = compare(recorded, SAMPLE_RATE, line.message, line.language)
    assert found.verdict is Verdict.SAME, f"a mailbox holds something else: {found.reason}"
    return marks.decode(recorded, SAMPLE_RATE)[0].start * 1000 / SAMPLE_RATE


async def _ended(laid_out: network.Network, count: int) -> list[Dial]:
    """Wait until so many dials have ended."""
    known = -1
    while True:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while True:
                ended = [d for d in dials_of(laid_out.carrier_dir / "witness.jsonl") if d.ended_at is not None]
                if len(ended) >= count:
                    return ended
                if len(ended) > known:
                    known = len(ended)
                    break
                await asyncio.sleep(POLL_S)
