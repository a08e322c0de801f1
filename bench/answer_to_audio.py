"""`answer_to_audio_ms`: from the answer to the first audio at the phone, as the carrier's witness has it.

The whole network runs: real broker, real livekit-server, dialer, agents, phones with real audio. Three calls at a time.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

from bench.bed import RUN_DIR
from bench.requests import place_call
from rehearsal import network
from rehearsal.provision import provision
from rehearsal.supervisor import Supervisor
from rehearsal.witness import Dial, dials_of
from runtime.kafka import idempotent_producer
from schemas.topics import COMMANDS

AT_ONCE: Final = 3
POLL_S: Final = 0.1
CALL_TIMEOUT_S: Final = 60.0
"""Longest wait for one more call to end."""
_AREAS: Final = ("212", "312", "415", "305", "404", "617", "206", "702", "303", "512")


def _numbers(count: int) -> list[str]:
    """Return numbers kept for fiction whose phones answer after 1.5 s (rehearsal/personas.py)."""
    return [f"+1{_AREAS[n % 10]}555010{n // 10 % 10}" for n in range(count)]


async def answer_to_audio(calls: int) -> list[float]:
    """Make the calls; returns every delay in milliseconds. Raises: NotReady, TimeoutError."""
    run_dir = (RUN_DIR / "network").resolve()
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    laid_out = network.lay_out(run_dir, provision())
    async with Supervisor(run_dir) as supervisor:
        await network.start(laid_out, supervisor)
        return await _call(laid_out, _numbers(calls))


async def _call(laid_out: network.Network, numbers: list[str]) -> list[float]:
    producer = idempotent_producer(laid_out.bootstrap, "bench-calls")
    await producer.start()
    witness = laid_out.carrier_dir / "witness.jsonl"
    ended: list[Dial] = []
    try:
        for sent, number in enumerate(numbers):
            ended = await _ended(witness, sent + 1 - AT_ONCE)
            command = place_call(number, f"audio-{sent}", pepper=laid_out.pepper)
            await producer.send_and_wait(
                COMMANDS.name, value=command.value, key=command.key, partition=command.partition
            )
        ended = await _ended(witness, len(numbers))
    finally:
        await producer.stop()
    heard = [dial.answer_to_audio_ms for dial in ended if dial.answer_to_audio_ms is not None]
    assert len(heard) == len(numbers), f"{len(numbers) - len(heard)} phones heard nothing"
    return heard


async def _ended(witness_file: Path, count: int) -> list[Dial]:
    """Wait until so many dials have ended."""
    known = -1
    while True:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while True:
                ended = [dial for dial in dials_of(witness_file) if dial.ended_at is not None]
                if len(ended) >= count:
                    return ended
                if len(ended) > known:
                    known = len(ended)
                    break
                await asyncio.sleep(POLL_S)
