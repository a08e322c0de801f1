"""The supervisor, with real processes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import aiohttp
import pytest

from rehearsal.detached import announce_ready, await_ready, is_running, running, start_detached, stop_detached
from rehearsal.ports import free_port, free_ports, is_free
from rehearsal.process_spec import Predicate
from rehearsal.supervisor import NotReady, ProcessEvent, ProcessSpec, Supervisor, What

TIMEOUT_S = 20.0
ROOT = Path(__file__).parents[2]


def http_answers(port: int) -> Predicate:
    async def answers() -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    return answers


def http_server(name: str, port: int, cwd: Path) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        argv=[sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        cwd=cwd,
        ready=http_answers(port),
        ready_timeout_s=TIMEOUT_S,
        stop_timeout_s=5.0,
    )


def script(name: str, code: str, *args: str, **options: object) -> ProcessSpec:
    spec = ProcessSpec(name=name, argv=[sys.executable, "-u", "-c", textwrap.dedent(code), *args], stop_timeout_s=5.0)
    return dataclasses.replace(spec, **options)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


async def until(fact, timeout_s: float = TIMEOUT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not fact():
            await asyncio.sleep(0.02)


def names(events: list[ProcessEvent], what: What) -> list[str]:
    return [event.name for event in events if event.what is what]


async def test_processes_start_in_order_and_stop_in_reverse(tmp_path):
    """The second starts once the first is ready; the stop goes the other way round."""
    events: list[ProcessEvent] = []
    first, second = free_ports(2)
    async with Supervisor(tmp_path, events.append) as supervisor:
        await supervisor.start([http_server("first", first, tmp_path), http_server("second", second, tmp_path)])
        assert [(e.name, e.what) for e in events] == [
            ("first", What.STARTING),
            ("first", What.READY),
            ("second", What.STARTING),
            ("second", What.READY),
        ]
        assert int((tmp_path / "pids" / "second.pid").read_text()) == supervisor.pid("second")
        pids = [supervisor.pid("first"), supervisor.pid("second")]
        assert all(map(alive, pids))
    assert names(events, What.STOPPED) == ["second", "first"]
    assert not any(map(alive, pids))
    assert list((tmp_path / "pids").iterdir()) == []
    assert "GET / HTTP/1.1" in (tmp_path / "logs" / "first.log").read_text()
    assert is_free(first)


async def test_stopping_twice_does_nothing_more(tmp_path):
    """`stop` is idempotent, also when called at once from two places."""
    events: list[ProcessEvent] = []
    supervisor = Supervisor(tmp_path, events.append)
    await supervisor.start([http_server("web", free_port(), tmp_path)])
    await asyncio.gather(supervisor.stop(), supervisor.stop())
    await supervisor.stop()
    assert names(events, What.STOPPED) == ["web"]


async def test_a_killed_process_comes_back_and_is_counted(tmp_path):
    """SIGKILL three times: a new pid each time, ready again, the counter says three."""
    events: list[ProcessEvent] = []
    async with Supervisor(tmp_path, events.append) as supervisor:
        await supervisor.start([http_server("web", free_port(), tmp_path)])
        for count in (1, 2, 3):
            old = supervisor.kill("web", signal.SIGKILL)
            new = await supervisor.wait_ready("web", not_pid=old, timeout_s=TIMEOUT_S)
            assert new != old
            assert supervisor.restarts("web") == count
        exits = [e for e in supervisor.history if e.what is What.EXITED]
        assert [e.returncode for e in exits] == [-signal.SIGKILL] * 3
    assert list(supervisor.history) == events


async def test_a_clean_exit_is_a_death_too(tmp_path):
    """A service that ends with 0 is started again."""
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start([script("once", "import time; time.sleep(0.1)")])
        await until(lambda: supervisor.restarts("once") >= 2)


async def test_a_process_that_is_not_restarted_gives_its_return_code(tmp_path):
    """A job (restart=False) is waited for."""
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start([script("job", "raise SystemExit(7)", restart=False)])
        assert await supervisor.wait_exit("job") == 7
        assert supervisor.restarts("job") == 0


async def test_a_process_that_dies_before_it_is_ready_shows_its_last_words(tmp_path):
    """The error has the tail of the log and comes at once, not after the timeout."""
    spec = script("broken", "print('no such pepper'); raise SystemExit(3)", ready=http_answers(1), ready_timeout_s=60.0)
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(NotReady, match=r"(?s)broken ended with 3.*no such pepper"):
            async with asyncio.timeout(TIMEOUT_S):
                await supervisor.start([spec])


async def test_a_process_that_never_becomes_ready_is_an_error_and_is_stopped(tmp_path):
    """It runs but does not answer: the error says so, and `stop` ends it."""
    spec = script("deaf", "import time; print('booting', flush=True); time.sleep(99)")
    spec = dataclasses.replace(spec, ready=http_answers(free_port()), ready_timeout_s=1.0)
    supervisor = Supervisor(tmp_path)
    with pytest.raises(NotReady, match=r"(?s)deaf is not ready after 1 s.*booting"):
        await supervisor.start([spec])
    pid = supervisor.pid("deaf")
    assert alive(pid)
    await supervisor.stop()
    assert not alive(pid)


async def test_a_program_that_does_not_exist_is_named(tmp_path):
    """A missing binary is said by name."""
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(NotReady, match="cannot run /no/such/binary: No such file"):
            await supervisor.start([ProcessSpec(name="gone", argv=["/no/such/binary"], ready=http_answers(1))])


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    """After stop_timeout_s comes SIGKILL."""
    spec = script(
        "stubborn",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(99)",
        stop_timeout_s=0.3,
    )
    supervisor = Supervisor(tmp_path)
    await supervisor.start([spec])
    await until(lambda: "up" in supervisor.log_path("stubborn").read_text())
    await supervisor.stop()
    assert supervisor.history[-1].returncode == -signal.SIGKILL


FORKING = """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    open(sys.argv[1], "w").write(str(child.pid) + "\\n")
    time.sleep(99)
"""


async def test_what_a_dead_process_left_behind_goes_with_it(tmp_path):
    """The grandchild dies when its parent is killed, before the parent is started again."""
    note = tmp_path / "grandchild"
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start([script("forking", FORKING, str(note), restart=False)])
        await until(lambda: note.exists() and note.read_text().endswith("\n"))
        grandchild = int(note.read_text())
        assert alive(grandchild)
        supervisor.kill("forking", signal.SIGKILL)
        await until(lambda: not alive(grandchild))


async def test_a_process_runs_at_the_niceness_of_its_spec_and_its_session_with_it(tmp_path):
    """Under autogroups a nice value counts within one session only, so the session has one, too."""
    spec = ProcessSpec(name="patient", argv=[sys.executable, "-c", "import time; time.sleep(60)"], niceness=5)
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start([spec])
        pid = supervisor.pid("patient")
        await until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 5)
        autogroup = Path(f"/proc/{pid}/autogroup")
        await until(lambda: not autogroup.exists() or autogroup.read_text().split()[-1] == "5")


async def test_stopping_in_the_pause_before_a_restart_starts_nothing(tmp_path):
    """A stop that comes between two lives leaves nothing running."""
    supervisor = Supervisor(tmp_path)
    await supervisor.start([http_server("web", free_port(), tmp_path)])
    supervisor.kill("web")
    await until(lambda: bool(supervisor.history) and supervisor.history[-1].what is What.EXITED)
    await supervisor.stop()
    assert [e.what for e in supervisor.history][-2:] == [What.EXITED, What.STOPPED]


SUPERVISING = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rehearsal.supervisor import ProcessSpec, Supervisor
from rehearsal.detached import announce_ready
from rehearsal.stop_signals import cancel_on_signals

async def main():
    cancel_on_signals()
    run_dir = Path(sys.argv[2])
    async with Supervisor(run_dir) as supervisor:
        code = sys.argv[3]
        await supervisor.start([ProcessSpec(name="forking", argv=[sys.executable, "-c", code, str(run_dir / "grandchild")])])
        announce_ready(run_dir)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def supervising(run_dir: Path) -> list[str]:
    return [sys.executable, "-c", SUPERVISING, str(ROOT), str(run_dir), textwrap.dedent(FORKING)]


async def family(run_dir: Path) -> tuple[int, int]:
    pid_file, note = run_dir / "pids" / "forking.pid", run_dir / "grandchild"
    await until(lambda: pid_file.exists() and note.exists() and note.read_text().endswith("\n"))
    return int(pid_file.read_text()), int(note.read_text())


async def test_nothing_outlives_a_killed_supervisor(tmp_path):
    """SIGKILL to the supervisor ends its children and their children."""
    process = await asyncio.to_thread(subprocess.Popen, supervising(tmp_path))
    child, grandchild = await family(tmp_path)
    assert alive(child)
    assert alive(grandchild)
    process.kill()
    process.wait()
    await until(lambda: not alive(child) and not alive(grandchild))


async def test_ctrl_c_reaches_the_supervisor_only_and_it_stops_the_rest_itself(tmp_path):
    """SIGINT to the whole foreground group, twice as the impatient do: children get SIGTERM, nothing is left."""
    process = await asyncio.to_thread(subprocess.Popen, supervising(tmp_path), start_new_session=True)
    child, grandchild = await family(tmp_path)
    await until((tmp_path / "ready").exists)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    assert await asyncio.to_thread(process.wait, TIMEOUT_S) != 0
    assert not alive(child)
    assert not alive(grandchild)
    assert list((tmp_path / "pids").iterdir()) == []


async def test_a_detached_supervisor_starts_once_and_stops_with_its_children(tmp_path):
    """`start_detached` twice is one process; `stop_detached` ends it; a second stop finds nothing."""
    started, new = start_detached(tmp_path, supervising(tmp_path))
    try:
        assert new
        await asyncio.to_thread(await_ready, tmp_path, TIMEOUT_S, print)
        assert start_detached(tmp_path, supervising(tmp_path)) == (started, False)
        assert is_running(tmp_path)
        child, grandchild = await family(tmp_path)
        assert os.getsid(started.pid) == started.pid
    finally:
        stopped = await asyncio.to_thread(stop_detached, tmp_path, TIMEOUT_S)
    assert stopped
    assert not any(map(alive, (started.pid, child, grandchild)))
    assert not is_running(tmp_path)
    assert not stop_detached(tmp_path)


def test_a_stranger_with_our_pid_is_not_touched(tmp_path):
    """A pid file whose birth does not match means: not running."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    try:
        (tmp_path / "supervisor.json").write_text(f'{{"pid": {stranger.pid}, "birth": "another boot 1"}}')
        assert running(tmp_path) is None
        assert not stop_detached(tmp_path)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_detached_supervisor_that_ends_early_shows_its_last_words(tmp_path):
    """`await_ready` does not wait for a dead one."""
    start_detached(tmp_path, [sys.executable, "-c", "raise SystemExit('no jars')"])
    with pytest.raises(NotReady, match=r"(?s)supervisor ended.*no jars"):
        await_ready(tmp_path, TIMEOUT_S, print)


def test_a_new_detached_supervisor_is_not_ready_by_the_old_ones_word(tmp_path):
    """The mark of readiness is taken away at start."""
    announce_ready(tmp_path)
    start_detached(tmp_path, [sys.executable, "-c", "import time; time.sleep(99)"])
    try:
        with pytest.raises(NotReady, match="not everything is up"):
            await_ready(tmp_path, 0.3, print)
    finally:
        stop_detached(tmp_path)


def test_free_ports_are_distinct_and_outside_the_ephemeral_range():
    """No outgoing connection can sit on one of them."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < low
    assert all(is_free(port) for port in ports)
