"""The command line: help that teaches, errors in one line with the right exit code, nothing printed that is sealed."""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest

from dialer.cli.commands import EXIT_FAILED, EXIT_SETTINGS, main, parser
from dialer.cli.explain import chain
from dialer.cli.reading import event_line
from dialer.topic_setup import create_or_verify
from rehearsal.ports import free_port
from runtime.kafka import idempotent_producer
from schemas.topics import EVENTS, REJECTED, TOPICS
from tests.doubles.world import ANN, World, id_of

CALL = id_of(ANN)


def subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in of._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment without any setting of ours."""
    for name in list(os.environ):
        if name.startswith(("DIALER_", "KAFKA_", "LIVEKIT_", "QUERY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("DIALER_URL", f"http://127.0.0.1:{free_port()}")
    yield monkeypatch


# ---- help and errors ---------------------------------------------------------------------------------------------


def test_every_command_says_what_it_is_for() -> None:
    """In the list of commands, and each option in its own help."""
    top = parser()
    (action,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    told = {choice.dest: choice.help for choice in action._choices_actions}
    assert set(told) == set(subcommands(top))
    assert all(told.values())
    expected = {"serve", "agent", "projections", "call", "cancel", "suppress", "lift", "status", "events", "explain"}
    others = {"topics", "rejected", "config", "rehearse", "stop", "resume", "control", "campaigns"}
    assert expected | others == set(told)
    for name, command in subcommands(top).items():
        for option in command._actions:
            if option.option_strings and option.dest not in {"help", "rest"}:
                assert option.help, f"{name} {option.option_strings}"


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Who types `dialer --help` can place a call."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "dialer call --campaign rx-refill" in said
    assert "dialer explain CALL" in said


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("dialer")
    return line


@pytest.mark.parametrize(
    "arguments",
    [
        ["call"],
        ["call", "--campaign", "c"],
        ["ring"],
        [],
        ["call", "--priority", "high"],
        ["cancel"],
        ["events", "--x"],
        ["stop"],
        ["stop", "--all", "--campaign", "c"],
        ["resume", "--all", "--now"],
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It says what is missing and where help is."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == EXIT_SETTINGS
    assert "--help" in one_line(capsys)


def test_an_unknown_setting_is_named(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt setting is an error, not a default."""
    environment.setenv("DIALER_PROT", "1")
    assert main(["config"]) == EXIT_SETTINGS
    assert "DIALER_PROT is not a setting" in one_line(capsys)


@pytest.mark.parametrize("name", ["DIALER_PORT", "DIALER_BATCH_MAX", "DIALER_SESSION_TIMEOUT_S"])
def test_a_setting_out_of_range_is_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """With what is wrong."""
    environment.setenv(name, "-1")
    assert main(["config"]) == EXIT_SETTINGS
    assert name in one_line(capsys)


def test_serve_names_what_is_not_set(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it connects to anything."""
    assert main(["serve"]) == EXIT_SETTINGS
    assert "DIALER_PEPPER is not set" in one_line(capsys)


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", CALL], ["cancel", CALL], ["explain", CALL], ["stop", "--all"]]
)
def test_a_dialer_that_is_away_is_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """It says where was looked, and what to do."""
    assert main(arguments) == EXIT_FAILED
    assert "is `dialer serve` up, is DIALER_URL right?" in one_line(capsys)


@pytest.mark.parametrize(
    "arguments", [["events", "--no-follow"], ["rejected"], ["topics"], ["stop", "--all", "--kafka"]]
)
def test_a_kafka_that_is_away_is_one_line(
    environment: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    """Libraries' own warnings are not ours to print; asked as a process, so that nothing hides."""
    done = subprocess.run(
        [sys.executable, "-m", "dialer", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == EXIT_FAILED
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("dialer: ")
    assert "Traceback" not in line
    assert "127.0.0.1" in line or "KAFKA_BOOTSTRAP_SERVERS" in line


def test_config_masks_secrets(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """All settings with their effective values; a secret from a file is read and masked."""
    secret = base64.b64encode(b"hush" * 8).decode()
    environment.setenv("DIALER_PEPPER", secret)
    (tmp_path / "key").write_text(secret + "\n")
    environment.setenv("DIALER_MASTER_KEY_FILE", str(tmp_path / "key"))
    environment.setenv("DIALER_PORT", "4711")
    assert main(["config"]) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1] for line in shown.splitlines()}
    assert secret not in shown
    assert (rows["DIALER_PEPPER"], rows["DIALER_MASTER_KEY"], rows["DIALER_PORT"]) == ("********", "********", "4711")
    assert all(len(line.split()) > 2 for line in shown.splitlines())


# ---- HTTP --------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A dialer that answers what it is told to, and remembers what it was asked."""

    url: str
    asked: list[tuple[str, str, Any, str | None]]
    answers: dict[str, tuple[int, Any]]


@pytest.fixture
def server(environment: pytest.MonkeyPatch) -> Iterator[Server]:
    asked: list[tuple[str, str, Any, str | None]] = []
    answers: dict[str, tuple[int, Any]] = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = orjson.loads(self.rfile.read(length)) if length else None
            asked.append((self.command, self.path, body, self.headers.get("authorization")))
            status, document = answers.get(self.path, (404, {"detail": "no such call"}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(orjson.dumps(document))

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=listening.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{listening.server_port}"
    environment.setenv("DIALER_URL", url)
    yield Server(url, asked, answers)
    listening.shutdown()
    listening.server_close()


def test_call_prints_the_calls_id(
    server: Server, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked is what the API takes; the key goes along."""
    environment.setenv("DIALER_API_KEY", "k1")
    server.answers["/v1/calls"] = (202, {"call_id": CALL, "callee_key": CALL[:26]})
    arguments = ["call", "--campaign", "rx-refill", "--request", "r-1", "--to", ANN, "--var", "first_name=Ann=a"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == CALL + "\n"
    ((method, path, body, key),) = server.asked
    assert (method, path, key) == ("POST", "/v1/calls", "Bearer k1")
    assert body["variables"] == {"first_name": "Ann=a"}


def test_a_variable_without_a_value_is_one_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is asked."""
    assert main(["call", "--campaign", "c", "--request", "r", "--to", ANN, "--var", "first_name"]) == EXIT_FAILED
    assert "NAME=VALUE" in one_line(capsys)
    assert server.asked == []


def test_a_problem_is_one_line_and_401_says_which_setting(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The problem's detail, and the status."""
    server.answers[f"/v1/calls/{CALL}"] = (422, {"detail": "call_id: pattern"})
    assert main(["cancel", CALL]) == EXIT_FAILED
    assert one_line(capsys) == "dialer: call_id: pattern (HTTP 422)"
    server.answers[f"/v1/calls/{CALL}"] = (401, {"detail": "an API key is needed"})
    assert main(["cancel", CALL]) == EXIT_FAILED
    assert "set DIALER_API_KEY" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["cancel", CALL], ("DELETE", f"/v1/calls/{CALL}", None)),
        (["suppress", ANN], ("POST", "/v1/suppressions", {"to": ANN, "reason": "requested"})),
        (["suppress", CALL[:26]], ("POST", "/v1/suppressions", {"callee_key": CALL[:26], "reason": "requested"})),
        (["lift", CALL[:26]], ("DELETE", f"/v1/suppressions/{CALL[:26]}", None)),
    ],
)
def test_stops_are_asked_for(server: Server, arguments: list[str], asked: tuple[str, str, Any]) -> None:
    """By number or by pseudonym."""
    server.answers[asked[1]] = (202, {"call_id": None, "callee_key": CALL[:26]})
    assert main(arguments) == 0
    assert server.asked[0][:3] == asked


def view(**over: Any) -> dict[str, Any]:
    """What GET /v1/control answers."""
    dialers = [{"dialer": name, "applied": 7, "confirmed": True} for name in ("dialer-a", "dialer-b")]
    return {"after": 7, "confirmed": True, "said": [], "dialers": dialers, "loud_partitions": []} | over


def test_a_stop_waits_for_confirmations_and_names_who_is_missing(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Body, answer and exit code of the kill switch."""
    server.answers["/v1/control/stop"] = (202, {"after": 7, "key": "*", "state": "stopped", "hang_up": True})
    server.answers["/v1/control?after=7"] = (200, view())
    assert main(["stop", "--all", "--now"]) == 0
    assert capsys.readouterr().out == "stop all campaigns: accepted as 7; confirmed by 2 dialers\n"
    assert server.asked[0][:3] == ("POST", "/v1/control/stop", {"all": True, "now": True})
    late = {"dialer": "dialer-b", "applied": None, "confirmed": False}
    missing = view(confirmed=False, dialers=[view()["dialers"][0], late], loud_partitions=[3, 17])
    server.answers["/v1/control?after=7"] = (200, missing)
    assert main(["stop", "--campaign", "rx-refill", "--timeout-s", "0"]) == EXIT_FAILED
    line = one_line(capsys)
    assert "stop rx-refill: accepted as 7, but not confirmed by dialer-b and phones may ring" in line
    assert "on partitions 3, 17" in line
    assert server.asked[2][2] == {"campaign_id": "rx-refill", "now": False}


def test_a_resume_says_what_is_stopped_still(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Each word is taken back by itself."""
    said = [
        {"key": "*", "state": "running", "hang_up": False, "offset": 9},
        {"key": "rx-refill", "state": "stopped", "hang_up": True, "offset": 7},
    ]
    server.answers["/v1/control/resume"] = (202, {"after": 9})
    server.answers["/v1/control?after=9"] = server.answers["/v1/control"] = (200, view(said=said, dialers=[]))
    assert main(["resume", "--all"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "resume all campaigns: accepted as 9; no dialer is up; it holds for the next",
        "rx-refill is stopped still",
    ]
    assert main(["control"]) == 0
    assert "rx-refill                       stopped, what rings or talks is hung up" in capsys.readouterr().out


def test_explain_shows_the_causal_chain_with_gaps(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A hand-made timeline: times from the first record, long gaps by name, causes, the permit."""
    head = {"source": "/dialer", "cause": None}
    permit = {"policy": "s1", "window": "none", "zones": ["America/New_York"], "consent_id": None}
    events = [
        head | {"at": "2026-11-22T15:00:00Z", "type": "dialer.event.call_requested.v1", "id": "k-1", "cause": "cmd-1",
                "data": {"campaign_id": "rx-refill", "to": {"key": "1", "box": "x"}}},
        head | {"at": "2026-11-22T15:00:01.500Z", "type": "dialer.event.dial_started.v1", "id": "k-2", "cause": "turn/1",
                "data": {"attempt": 1, "trunk": "t", "permit": permit}},
        head | {"at": "2026-11-22T15:00:31.500Z", "type": "agent.fact.callee_status.v1", "id": "f-3", "cause": "f-3",
                "data": {"attempt": 1, "job_id": "AJ_1", "number": 3, "status": "active"}},
    ]  # fmt: skip
    assert chain(events) == [
        "   0.000s  decided    call_requested         campaign_id=rx-refill  ← cmd-1",
        "   1.500s  decided    dial_started           attempt=1, trunk=t  ← turn/1",
        "           allowed by  policy=s1, window=none, zones=['America/New_York']",
        "           … 30.0 s",
        "  31.500s  agent saw  callee_status          attempt=1, status=active, job_id=AJ_1",
    ]
    view = {"campaign_id": "rx-refill", "status": "ended", "outcome": "delivered", "attribution": "callee"}
    server.answers[f"/v1/calls/{CALL}"] = (200, view)
    server.answers[f"/v1/calls/{CALL}/events"] = (200, {"events": events})
    assert main(["explain", CALL]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"call {CALL}\ncampaign rx-refill: ended, delivered (whose doing: callee)\n")
    assert "… 30.0 s" in said
    assert chain([]) == []


async def test_events_of_a_real_call_are_shown_without_what_is_sealed() -> None:
    """Every record the owner writes can be shown, and no box is."""
    world = World()
    await world.start(ANN)
    world.place()
    await world.clock.advance(60)
    lines = [event_line(event) for event in world.log()]
    await world.close()
    assert "to=sealed, variables=sealed" in lines[0]
    assert not any("box" in line for line in lines)
    assert len(lines) > 10


# ---- a real broker -----------------------------------------------------------------------------------------------


@pytest.fixture
async def broker(kafka_bootstrap: str, environment: pytest.MonkeyPatch) -> AsyncIterator[str]:
    await create_or_verify(kafka_bootstrap)
    environment.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)
    yield kafka_bootstrap


async def cli(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialer", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def write(bootstrap: str, topic: str, document: dict[str, Any]) -> None:
    producer = idempotent_producer(bootstrap, "test")
    await producer.start()
    try:
        await producer.send_and_wait(topic, orjson.dumps(document), key=b"k", partition=5)
    finally:
        await producer.stop()


@pytest.mark.broker
async def test_topics_verifies_what_is_there(broker: str) -> None:
    """A line a topic, and 0 where all is right."""
    code, out, err = await cli("topics")
    assert (code, err) == (0, "")
    assert all(topic.name in out for topic in TOPICS)


@pytest.mark.broker
async def test_events_prints_one_calls_records_masked(broker: str) -> None:
    """To the log's end and no further."""
    event = {
        "type": "dialer.event.call_requested.v1",
        "time": "2026-11-22T15:00:00Z",
        "subject": CALL,
        "sequence": "000000000001",
        "data": {"campaign_id": "rx-refill", "to": {"key": "1", "box": "c2VhbGVk"}, "consent": None},
    }
    await write(broker, EVENTS.name, event)
    await write(broker, EVENTS.name, event | {"subject": id_of(ANN, "r-other")})
    code, out, err = await cli("events", "--no-follow", "--call", CALL)
    assert (code, err) == (0, "")
    assert set(out.splitlines()) == {
        f"2026-11-22T15:00:00Z  {CALL}  000000000001  dialer.event.call_requested  campaign_id=rx-refill, to=sealed"
    }


@pytest.mark.broker
async def test_rejected_prints_where_and_why(broker: str) -> None:
    """Never the bytes: there are none."""
    data = {"topic": "dialer.commands", "partition": 3, "offset": 4711, "length": 12, "hmac": "ab", "field": "to"}
    await write(broker, REJECTED.name, {"time": "2026-11-22T15:00:00Z", "data": data | {"rule": "letters"}})
    code, out, err = await cli("rejected")
    assert (code, err) == (0, "")
    assert "2026-11-22T15:00:00Z  dialer.commands/3/4711  12 bytes  to: letters" in out.splitlines()
