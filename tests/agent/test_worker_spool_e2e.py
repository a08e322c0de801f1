"""Workers that die, end and come back: on a real livekit-server and a real broker that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress

import aiohttp
import pytest

from rehearsal.ports import free_port
from rehearsal.process_spec import ProcessSpec
from schemas import facts
from tests.agent.conftest import AGENT_NAME, PERSONA, Call, Stage, agent_spec
from tests.doubles.waiting import until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.livekit,
    pytest.mark.broker,
]
LIVE_JOB_S = 5.0
"""Promise 4: an agent whose process died is out of the call within so many seconds."""


async def page(spec: ProcessSpec, path: str) -> tuple[int, str]:
    """Return a page of a worker: 0 where nobody answers."""
    address = f"http://127.0.0.1:{spec.env['DIALER_AGENT_PORT']}{path}"
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as http, http.get(address) as answer:
            return answer.status, await answer.text()
    return 0, ""


async def is_ready(spec: ProcessSpec) -> None:
    """Wait until a worker says that livekit-server has it on its list."""
    async with asyncio.timeout(30):
        while (await page(spec, "/ready"))[0] != 200:
            await asyncio.sleep(0.05)


async def ends(stage: Stage, name: str) -> float:
    """Ask a worker to go; return how many seconds it took."""
    began = time.monotonic()
    stage.supervisor.kill(name, signal.SIGTERM)
    async with asyncio.timeout(60):
        assert await stage.supervisor.wait_exit(name) == 0
    return time.monotonic() - began


async def ringing(stage: Stage, agent_name: str = AGENT_NAME) -> Call:
    """Return a call whose phone rings and is never answered."""
    call = await stage.place(agent_name=agent_name)
    await stage.comes(call, facts.AgentReady.TYPE)
    await stage.dial(call, PERSONA["no_answer"])
    await stage.until(lambda: [f for f in stage.facts(call) if f.data.get("status") == "ringing"], "ringing")
    return call


def files(stage: Stage) -> list[str]:
    return [path.name for path in stage.spool_dir.glob("*.spool")]


async def test_a_worker_is_ready_once_livekit_has_it_and_an_idle_one_ends_soon(stage: Stage) -> None:
    """`/ready` is 200 from the registration on: a call that is placed then is taken; SIGTERM ends it in seconds."""
    spec = agent_spec(stage, "idle", restart=False, DIALER_AGENT_NAME="idle")
    await stage.supervisor.start([spec])
    await is_ready(spec)
    call = await stage.place(agent_name="idle")
    await stage.comes(call, facts.AgentReady.TYPE)
    await stage.hang_up(call)
    await stage.comes(call, facts.ConversationEnded.TYPE)
    took_s = await ends(stage, "idle")
    print(f"\nSIGTERM of an idle worker: {took_s:.1f} s")
    assert took_s < 8


async def test_a_worker_without_livekit_is_alive_and_not_ready(stage: Stage) -> None:
    """`/` says that the process lives, `/ready` that it is of no use; it still ends soon."""
    nowhere = f"ws://127.0.0.1:{free_port()}"
    spec = agent_spec(stage, "lonely", restart=False, LIVEKIT_URL=nowhere)
    await stage.supervisor.start([spec])
    async with asyncio.timeout(30):
        while (await page(spec, "/"))[0] != 200:
            await asyncio.sleep(0.05)
    status, said = await page(spec, "/ready")
    assert status == 503 and '"registered": false' in said
    took_s = await ends(stage, "lonely")
    print(f"\nSIGTERM of a worker that still starts: {took_s:.1f} s")
    assert took_s < 15, "the modules of its processes are imported to the end: seconds, more on a busy machine"


async def test_a_killed_workers_calls_end_at_once_and_another_worker_tells(stage: Stage) -> None:
    """SIGKILL of the parent alone while a phone rings: its job hangs up and writes its last word; a neighbour ships it."""
    spec = agent_spec(stage, DIALER_AGENT_NAME="doomed")
    with (stage.supervisor.run_dir / "doomed.log").open("wb") as log:
        worker = await asyncio.create_subprocess_exec(
            *spec.argv, env=spec.env, cwd=spec.cwd, stderr=log, start_new_session=True
        )
    try:
        await is_ready(spec)
        call = await ringing(stage, "doomed")
        assert call.ringing is not None
        began = time.monotonic()
        worker.kill()
        async with asyncio.timeout(LIVE_JOB_S):
            await call.ringing
        rang_on_s = time.monotonic() - began
        last = await stage.comes(call, facts.ConversationEnded.TYPE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        await worker.wait()
    told_s = stage.arrived[last.id] - began
    print(f"\nSIGKILL of the worker: its phone rang on for {rang_on_s:.1f} s; its last word came after {told_s:.1f} s")
    assert (last.data["reason"], last.data["gap"]) == ("failed", True)
    await until(lambda: not files(stage))


async def test_a_call_that_ends_while_the_broker_hangs_is_told_after_its_workers_death(stage: Stage) -> None:
    """The broker hangs, the call ends, its facts are on disk, the worker is killed; all of them come when both are back."""
    call = await ringing(stage)
    stage.supervisor.kill("kafka", signal.SIGSTOP)
    try:
        await stage.hang_up(call)
        await until(lambda: bool(files(stage)))
        log = stage.supervisor.log_path("agent")
        await until(lambda: f'"job done","call_id":"{call.call_id}"' in log.read_text())
        stage.supervisor.kill("agent", signal.SIGKILL)  # with all its processes, as a container dies
    finally:
        stage.supervisor.kill("kafka", signal.SIGCONT)
    await stage.comes(call, facts.ConversationEnded.TYPE, timeout_s=60)
    numbers = [fact.data["number"] for fact in stage.facts(call)]
    assert sorted(numbers) == list(range(1, max(numbers) + 1)), "nothing between was lost"
    await until(lambda: not files(stage))
