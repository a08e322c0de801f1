"""Calls measured: how soon a reply comes and what it waits for, and what calls cost the worker.

**The end of the callee's speech** is the end of its words. The rehearsal's phones send a pause and a mark after them
(540 ms, rehearsal/marks.py), and its recogniser knows the words when it has heard that mark: this stands for the
endpointing of a real one (`endpointing`, 300 ms of silence) and for its way to a final result.

Of a wave of calls at once: until the last answer the worker starts calls, from there to the first end it only talks. A
job's own cost is counted from the birth of its process, warming up and waiting included.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from statistics import mean
from typing import Any, Final

import orjson
from livekit import api

from bench.bare_call import MARK_MS, PAUSE_MS
from bench.call_bed import TRIALS, Kind, Stage
from bench.child import ask_once, running
from bench.latency import percentile
from bench.processes import Worker
from rehearsal.ear import heard_of
from rehearsal.run_env import BRAIN_VARIABLE
from rehearsal.talk import talk_of
from rehearsal.talks import silence, sounding
from rehearsal.witness import Dial

LOOK_EVERY_S: Final = 0.3
AMID_S: Final = 2.0
"""After the last answer of a wave: all of its calls talk."""
SPEAK_S: Final = 6.0
TURNS: Final = 5
ROOM_EMPTY_S: Final = 60
PARTS: Final = ("endpointing", "final", "llm", "tts", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one wave of calls cost, each figure a mean over its calls."""

    start_cpu_s: float
    """From the birth of a job's process to the INVITE, and the worker's share of starting."""
    ring_cpu_s: float
    talk_minute_cpu_s: float
    """From the answer to the hang-up, and the worker's share of talking."""
    born_cpu_s: float
    """Of the start: until the call was asked for, warming up and waiting."""
    call_mb: float
    worker_start_cpu_s: float
    worker_minute_cpu_s: float


@dataclass(slots=True)
class Turns:
    """What the callees waited for, in milliseconds."""

    reply: list[float] = field(default_factory=list)
    """End of the words to the first sound at the phone."""
    parts: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})


async def costs(stage: Stage, kind: Kind, calls: int) -> tuple[Cost, list[Dial]]:
    """Make a wave of calls and count."""
    memory: list[float] = []
    asked_at = time.time()
    looking = asyncio.create_task(_look(stage, calls, memory))
    try:
        dials = await stage.wave(kind, calls)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await stage.warm()  # every job has said its last word by then
    pids = jobs_of(stage)
    return cost_of(stage.worker, [(pids[dial.attempt_id], dial) for dial in dials], asked_at, memory), dials


async def _look(stage: Stage, calls: int, memory: list[float]) -> None:
    """Take the memory of all job processes while all calls talk."""
    while stage.talking() < calls:
        await asyncio.sleep(LOOK_EVERY_S)
    await asyncio.sleep(AMID_S)
    memory += stage.job_mb()


def cost_of(worker: Worker, jobs: Sequence[tuple[int, Dial]], asked_at: float, memory: list[float]) -> Cost:
    """Return what these calls cost, each job's process beside its dial."""
    count = len(jobs)
    spans = [_span(dial) for _, dial in jobs]
    answered, ended = max(s[1] for s in spans), min(s[2] for s in spans)
    starting = worker.shared_s(asked_at, answered) / count
    talking = worker.shared_s(answered, ended) / count / max(1.0, ended - answered)
    talks = [worker.used_s(pid, s[1], s[2]) / (s[2] - s[1]) for (pid, _), s in zip(jobs, spans, strict=True)]
    return Cost(
        start_cpu_s=mean(worker.cpu_s(pid, s[0]) for (pid, _), s in zip(jobs, spans, strict=True)) + starting,
        ring_cpu_s=mean(worker.used_s(pid, s[0], s[1]) for (pid, _), s in zip(jobs, spans, strict=True)),
        talk_minute_cpu_s=60 * (mean(talks) + talking),
        born_cpu_s=mean(worker.cpu_s(pid, asked_at) for pid, _ in jobs),
        call_mb=mean(sorted(memory)[-count:]) if memory else 0.0,
        worker_start_cpu_s=starting,
        worker_minute_cpu_s=60 * talking,
    )


def _span(dial: Dial) -> tuple[float, float, float]:
    """Return when it was dialled, answered and over, by the wall clock."""
    assert dial.answered_at is not None
    assert dial.ended_at is not None
    return dial.invite_at.timestamp(), dial.answered_at.timestamp(), dial.ended_at.timestamp()


def _lines(stage: Stage) -> Iterator[dict[str, Any]]:
    """Give the worker's log, job processes included."""
    for line in (stage.network.run_dir / "logs" / "agent.log").read_bytes().splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            yield orjson.loads(line)


def jobs_of(stage: Stage) -> dict[str, int]:
    """Return the process of each attempt that is done."""
    done = (line for line in _lines(stage) if line.get("message") == "job done")
    return {f"{line['call_id']}-{line['attempt']}": line["pid"] for line in done}


def turns_of(stage: Stage, dials: Sequence[Dial], found: Turns) -> None:
    """Add what the callees of these calls waited for, by what their phones heard, split by what the agent says."""
    told = {dial.attempt_id: list[dict[str, Any]]() for dial in dials}
    for line in _lines(stage):
        if line.get("message") == "replied" and (name := f"{line['call_id']}-{line['attempt']}") in told:
            told[name].append(line)
    for dial in dials:
        waits = waits_of(stage, dial)
        replies = told[dial.attempt_id]
        # The first thing a phone says is a hello, which the greeting answers.
        for waited_ms, said in zip(waits[1:], replies, strict=False):
            split(found, waited_ms + MARK_MS, said)


def split(found: Turns, reply_ms: float, said: dict[str, Any]) -> None:
    """Add one reply: what the agent knows of it, and the rest, which is the network's (and its buffers')."""
    since_words_ms = said["heard_ms"] + PAUSE_MS  # the recogniser's last word ends where the mark begins
    parts = {
        "endpointing": MARK_MS,
        "final": since_words_ms - MARK_MS + said["turn_ms"],
        "llm": said["api_ms"] + said["sentence_ms"],
        "tts": said["speech_ms"],
    }
    found.reply.append(reply_ms)
    for name, took_ms in parts.items():
        found.parts[name].append(took_ms)
    found.parts["network"].append(reply_ms - sum(parts.values()))


async def silences(stage: Stage, tell: Callable[[str], None]) -> float:
    """Try the line with callees and agent APIs that do not simply answer; returns its longest silence in milliseconds."""
    wanted = [(kind.campaign, next(kind.numbers)) for kind in stage.trials]
    dials = {dial.number: dial for dial in await stage.ask(wanted)}
    found = dict[str, float]()
    for (_, number), (campaign, script) in zip(wanted, TRIALS, strict=True):
        found[f"{campaign} {script}"] = max(waits_of(stage, dials[number]), default=0.0)
    tell("longest silences, ms: " + ", ".join(f"{name} {ms:.0f}" for name, ms in found.items()))
    return max(found.values())


def waits_of(stage: Stage, dial: Dial) -> list[float]:
    """Return how long nobody was heard after each thing the phone said."""
    directory = stage.network.carrier_dir
    talk, heard = talk_of(directory, dial.attempt_id), heard_of(directory, dial.attempt_id)
    assert talk is not None, "a phone that does not talk"
    assert heard is not None
    loud = sounding(heard.samples)
    return [silence(talk, said, loud) for said in talk.of("say")]


# -- limits -----------------------------------------------------------------------------------------------------------


async def bare_minute(stage: Stage, sources: int, *, with_ear: bool) -> float:
    """Return the processor time of a minute of speech by bare sources, so many at once; with an ear, of listening too."""
    env = stage.network.env
    keys = {"url": env["LIVEKIT_URL"], "key": env["LIVEKIT_API_KEY"], "secret": env["LIVEKIT_API_SECRET"]}
    listen_url = f"ws://127.0.0.1:{stage.network.ports.speech}/v1/listen" if with_ear else ""
    async with _rooms(keys, sources) as rooms, running("bare_far_end") as far_end:
        await far_end.ask(**keys, rooms=rooms, seconds=SPEAK_S * 3 if with_ear else 0)
        asked = [ask_once("bare_source", **keys, room=room, seconds=SPEAK_S, listen_url=listen_url) for room in rooms]
        found = await asyncio.gather(*asked)
    return 60 * mean(float(one["cpu_s"]) / float(one["seconds"]) for one in found)


@contextlib.asynccontextmanager
async def _rooms(keys: dict[str, str], count: int) -> AsyncIterator[list[str]]:
    names = [f"bare-{number}" for number in range(count)]
    async with api.LiveKitAPI(keys["url"], keys["key"], keys["secret"]) as client:
        for name in names:
            await client.room.create_room(api.CreateRoomRequest(name=name, empty_timeout=ROOM_EMPTY_S))
        yield names
        for name in names:
            await client.room.delete_room(api.DeleteRoomRequest(room=name))


async def bare_replies(stage: Stage) -> dict[str, list[float]]:
    """Return what turns take with the stand-ins alone, in milliseconds: no room, no call, none of our code."""
    speech = f"ws://127.0.0.1:{stage.network.ports.speech}/v1"
    return await ask_once(
        "bare_reply",
        listen_url=f"{speech}/listen",
        speak_url=f"{speech}/speak",
        brain_url=stage.network.env[BRAIN_VARIABLE],
        model="scheduler",
        text="Yes, this is me.",
        turns=TURNS,
    )


# -- all of it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured in one round."""

    waves: int
    calls: int


QUICK: Final = Size(1, 2)
FULL: Final = Size(1, 4)
PLAIN_START_CPU_S: Final = 0.25
PLAIN_IDLE_MB: Final = 50.0
"""A plain livekit-agents worker on such a machine (reference/livekit.md 9)."""
AT_ONCE: Final = 8

Found = dict[str, tuple[float, float]]


async def conversations(stage: Stage, size: Size, tell: Callable[[str], None]) -> Found:
    """Measure one round: each figure with its limit, which is taken in the same network."""
    found: Found = {"idle_process_mb": (mean(stage.job_mb()), PLAIN_IDLE_MB)}
    turns, talks, messages, limits = Turns(), list[Cost](), list[Cost](), list[float]()
    for _ in range(size.waves):
        cost, dials = await costs(stage, stage.two_way, size.calls)
        talks.append(cost)
        turns_of(stage, dials, turns)
        limits.append(await bare_minute(stage, size.calls, with_ear=False))
    for _ in range(max(1, size.waves - 1)):
        messages.append((await costs(stage, stage.one_way, size.calls))[0])
    with_ear = await bare_minute(stage, size.calls, with_ear=True)
    floor, limit = await bare_replies(stage), mean(limits)
    tell(f"{len(turns.reply)} replies; the stand-ins alone: {_medians(floor)}")
    tell(f"bare source {limit:.2f} CPU s a minute, with an ear and a recogniser {with_ear:.2f}")
    for kind, made in (("two_way", talks), ("one_way", messages)):
        tell(f"{kind}: {mean_cost(made)}")
    return found | _of_turns(turns, floor) | _of_costs(mean_cost(talks), mean_cost(messages), limit)


def _medians(taken: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {percentile(values, 0.5):.0f} ms" for name, values in taken.items())


def _of_turns(turns: Turns, floor: dict[str, list[float]]) -> Found:
    bare = {"endpointing": float(MARK_MS), "final": percentile(floor["heard"], 0.5) - MARK_MS, "network": 0.0}
    bare |= {part: percentile(floor[part], 0.5) for part in ("llm", "tts")}
    parts = {f"reply_{part}_ms": (percentile(turns.parts[part], 0.5), bare[part]) for part in PARTS}
    return {
        "reply_ms": (percentile(turns.reply, 0.5), percentile(floor["reply"], 0.5)),
        "reply_p95_ms": (percentile(turns.reply, 0.95), percentile(floor["reply"], 0.95)),
        **parts,
    }


def _of_costs(talk: Cost, message: Cost, limit: float) -> Found:
    return {
        "call_start_cpu_s": (talk.start_cpu_s, PLAIN_START_CPU_S),
        "one_way_start_cpu_s": (message.start_cpu_s, PLAIN_START_CPU_S),
        "talk_minute_cpu_s": (talk.talk_minute_cpu_s, limit),
        "one_way_minute_cpu_s": (message.talk_minute_cpu_s, limit),
        "call_mb": (talk.call_mb, PLAIN_IDLE_MB),
        "one_way_mb": (message.call_mb, PLAIN_IDLE_MB),
    }


def mean_cost(made: Sequence[Cost]) -> Cost:
    """Return the mean of waves."""
    return Cost(**{part.name: mean(getattr(one, part.name) for one in made) for part in fields(Cost)})
