"""The worker refuses what cannot work, in one line, and counts its jobs instead of the machine's load."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import worker
from agent.brief import BriefRefused, open_brief
from agent.refusals import check
from agent.spool import Spool
from runtime.clock import SystemClock
from runtime.seal import BriefBox
from runtime.settings import Settings, SettingsError, read_settings
from schemas import values
from schemas.brief import Brief

KEY = os.urandom(32)
GOOD = {
    "LIVEKIT_API_KEY": "devkey",
    "LIVEKIT_API_SECRET": "secretsecretsecretsecretsecret123",
    "BRIEF_KEY": f"k1:{base64.b64encode(KEY).decode()}",
}
RELAY = {"DIALER_ICE_TRANSPORT": "relay", "TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "t"}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"LIVEKIT_API_KEY": ""}, "LIVEKIT_API_KEY"),
        ({"LIVEKIT_API_SECRET": ""}, "LIVEKIT_API_SECRET"),
        ({"BRIEF_KEY": ""}, "BRIEF_KEY"),
        ({"DIALER_ICE_TRANSPORT": "relay"}, "TWILIO_ACCOUNT_SID"),
        ({"DIALER_ICE_TRANSPORT": "relay", "TWILIO_ACCOUNT_SID": "AC1"}, "TWILIO_AUTH_TOKEN"),
        ({**RELAY, "VAULT_ADDR": "http://127.0.0.1:8200"}, "VAULT_TOKEN"),
        ({**RELAY, "DIALER_TURN_URLS": "udp"}, "DIALER_TURN_URLS"),
        ({"DIALER_ICE_TRANSPORT": "direct"}, "DIALER_ICE_TRANSPORT"),
        ({"LIVEKIT_DEV_MODE": "1"}, "LIVEKIT_DEV_MODE"),
        ({"LIVEKIT_AGENT_NAME_OVERRIDE": "x"}, "DIALER_AGENT_NAME"),
        ({"DIALER_RECORDING_CREDENTIALS": "a token"}, "DIALER_RECORDING_CREDENTIALS"),
        ({"DIALER_RECORDING_CREDENTIALS": '{"type": "external_account"}'}, "DIALER_RECORDING_CREDENTIALS"),
        ({"DIALER_AGENT_IDLE_PROCESSES": "-1"}, "DIALER_AGENT_IDLE_PROCESSES"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(changes: dict[str, str], says: str) -> None:
    """Each refusal names the variable."""
    environment = GOOD | changes
    with pytest.raises(SettingsError, match=says):
        check(read_settings(environment), environment)


def test_the_key_of_a_service_account_is_taken_and_not_printed() -> None:
    """What Egress can use passes, and shows nowhere."""
    environment = GOOD | {"DIALER_RECORDING_CREDENTIALS": '{"type": "service_account", "private_key": "hush"}'}
    settings = read_settings(environment)
    check(settings, environment)
    assert "hush" not in repr(settings)


def test_the_worker_ends_with_one_line_for_the_operator() -> None:
    """`python -m agent` without settings: exit code 2, one line on standard error, no trace."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "agent"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines() == [
        "dialer agent: LIVEKIT_API_KEY is not set; give the key of your LiveKit server"
    ]


@pytest.mark.parametrize(
    ("directory", "says"), [("spool", "KAFKA_BOOTSTRAP_SERVERS"), ("taken/spool", "DIALER_AGENT_SPOOL_DIR")]
)
def test_a_worker_without_kafka_or_disk_ends_and_says_so(directory: str, says: str, tmp_path: Path) -> None:
    """A worker that cannot report must not take calls: exit code 1, so that its supervisor starts it again."""
    (tmp_path / "taken").write_text("a file")
    ours = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DIALER_AGENT_SPOOL_DIR": str(tmp_path / directory)}
    environment = GOOD | {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | ours
    ended = subprocess.run(
        [sys.executable, "-m", "agent"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert says in ended.stderr.splitlines()[-1]


@pytest.fixture
def server(tmp_path: Path) -> Any:
    settings = replace(read_settings(GOOD), agent_jobs_max=20, agent_idle_processes=3, agent_spool_dir=str(tmp_path))
    made = worker.CountingServer(settings, Spool.of(settings, SystemClock()))
    made._proc_pool = SimpleNamespace(processes=[])  # type: ignore[assignment]
    made._reserved_slots, made._devmode = 0, False
    return made


@pytest.mark.parametrize(
    ("running", "accepted", "free"), [(0, 0, True), (0, 8, True), (5, 14, True), (20, 0, False), (12, 8, False)]
)
def test_a_worker_is_full_when_its_jobs_are(server: Any, running: int, accepted: int, free: bool) -> None:
    """A burst onto an idle worker is taken, up to the number of jobs it may have; none beyond."""
    server._proc_pool.processes = [SimpleNamespace(running_job=object())] * running
    server._worker_load = server.load()
    server._reserved_slots = accepted
    assert server._is_available() is free
    assert server.load() < 0.7


def test_a_worker_whose_spool_is_full_takes_no_call(server: Any, tmp_path: Path) -> None:
    """What it could neither ship nor keep, it must not hear."""
    server._worker_load = server.load()
    assert server._is_available()
    for number in range(1000):
        (tmp_path / f"{number}.spool").touch()
    server._worker_load = server.load()
    assert not server._is_available()


def brief(**changes: Any) -> Brief:
    call = values.call_id(values.callee_key("+12125550123", b"p"), values.request_hash("rx", "1"))
    fields = {
        "call_id": call,
        "attempt": 1,
        "campaign_id": "rx",
        "campaign_hash": "h",
        "type": "one_way",
        "language": "en-US",
        "message": "Hello Ann",
        "callee_identity": values.callee_identity(call, 1),
        "ring_timeout_s": 30,
        "max_call_duration_s": 600,
        "data_key_id": "d",
        "data_key": "",
    }
    return Brief(**(fields | changes))


def settings() -> Settings:
    return read_settings(GOOD)


def test_a_brief_opens_for_its_own_room_only() -> None:
    """A brief that was copied to another attempt's room is refused; so are a foreign key and a broken box."""
    sealed = BriefBox({"k1": KEY}).seal(brief(), os.urandom)
    assert open_brief(sealed, values.room_name(brief().call_id, 1), settings()) == brief()
    cases = {
        "another_room": (sealed, values.room_name(brief().call_id, 2)),
        "does_not_open": (BriefBox({"k1": os.urandom(32)}).seal(brief(), os.urandom), "room"),
        "too_large": ("k1." + "A" * 40_000, "room"),
    }
    for rule, (metadata, room) in cases.items():
        with pytest.raises(BriefRefused, match=rule):
            open_brief(metadata, room, settings())


def test_a_refused_brief_says_nothing_of_its_content() -> None:
    """A brief of the wrong shape is refused without quoting it, in the error and in what it was raised from."""
    broken = brief(attempt="Ann Smith")
    sealed = BriefBox({"k1": KEY}).seal(broken, os.urandom)
    with pytest.raises(BriefRefused) as refused:
        open_brief(sealed, "room", settings())
    assert str(refused.value) == "does_not_open" and refused.value.__cause__ is None
