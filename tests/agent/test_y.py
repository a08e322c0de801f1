from __future__ import annotations
import asyncio, time, psutil, os, pytest
from schemas import facts
from tests.agent.conftest import Stage, _talks_udp
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.livekit, pytest.mark.broker]
async def test_idle(stage: Stage) -> None:
    calls = [await stage.place() for _ in range(3)]
    for c in calls: await stage.comes(c, facts.AgentReady.TYPE)
    w=psutil.Process(stage.supervisor.pid("agent"))
    jobs=[p for p in w.children(recursive=True) if _talks_udp(p)]
    lk=psutil.Process(stage.supervisor.pid("livekit"))
    await asyncio.sleep(3)
    a=[sum(p.cpu_times()[:2]) for p in jobs]; l0=sum(lk.cpu_times()[:2]); w0=sum(w.cpu_times()[:2]); t=time.monotonic()
    await asyncio.sleep(12)
    d=time.monotonic()-t
    print("RING cpu/s per job", [round((sum(p.cpu_times()[:2])-x)/d,4) for p,x in zip(jobs,a)], "at ready total", [round(x,2) for x in a], "livekit/s", round((sum(lk.cpu_times()[:2])-l0)/d,3), "parent/s", round((sum(w.cpu_times()[:2])-w0)/d,3), "rss", [p.memory_info().rss>>20 for p in jobs], [p.memory_full_info().pss>>20 for p in jobs])
    for c in calls: await stage.hang_up(c)
