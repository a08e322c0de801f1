"""The read side as a process: it starts, serves, ends as asked, and says in one line why it ended otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from runtime.kafka import admin
from schemas.topics import AUDIT, EVENTS

START_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start(*arguments: str, **settings: str) -> Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIALER_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "projections", *arguments, env=kept | settings, stdout=PIPE, stderr=PIPE
    )


async def end_of(process: Process) -> tuple[int, str, str]:
    async with asyncio.timeout(START_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def make_topics(bootstrap: str) -> None:
    client = admin(bootstrap)
    await client.start()
    try:
        for topic in (EVENTS, AUDIT):
            try:
                await client.create_topics([NewTopic(topic.name, topic.partitions, 1, topic_configs=topic.config)])
            except TopicAlreadyExistsError:
                continue
    finally:
        await client.close()


@pytest.mark.broker
async def test_it_serves_until_it_is_asked_to_end_and_rebuilds(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Ready over HTTP; SIGTERM ends it with 0; a rebuild of the same database says what it did."""
    await make_topics(kafka_bootstrap)
    port = free_port()
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "DIALER_STORE_PATH": str(tmp_path / "read.sqlite"),
        "DIALER_PROJECTIONS_PORT": str(port),
    }
    process = await start(**settings)
    try:
        async with asyncio.timeout(START_S), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while not await is_ready(client):
                assert process.returncode is None, (await end_of(process))[2]
            assert (await client.get("/health")).json() == {"status": "ok"}
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    code, _, err = await end_of(process)
    assert code == 0, err
    code, out, err = await end_of(await start("rebuild", **settings))
    assert code == 0, err
    assert "call_status: made anew from" in out
    assert "timeline: made anew from" in out


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/ready")).status_code == 200
    except httpx.TransportError:
        await asyncio.sleep(0.05)  # Not listening yet; the loop's timeout bounds this.
        return False


async def test_without_kafka_it_ends_with_one_line_that_says_what_to_check(tmp_path: Path) -> None:
    """Exit code 1, for the supervisor to start it again."""
    process = await start(
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}",
        DIALER_STORE_PATH=str(tmp_path / "read.sqlite"),
        DIALER_PROJECTIONS_PORT="0",
    )
    code, _, err = await end_of(process)
    assert code == 1
    assert "KAFKA_BOOTSTRAP_SERVERS" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"DIALER_STORE_PTAH": "x"}, "DIALER_STORE_PTAH is not a setting"),
        ({"DIALER_PROJECTIONS_HOST": "0.0.0.0"}, "DIALER_API_KEYS"),
    ],
)
async def test_a_wrong_setting_ends_it_with_2_and_names_the_setting(settings: dict[str, str], word: str) -> None:
    """Before anything is started."""
    code, _, err = await end_of(await start(**settings))
    assert code == 2
    assert word in err.splitlines()[-1]


async def test_a_taken_port_and_a_strange_database_are_told_in_one_line(tmp_path: Path) -> None:
    """A database that is none is a failure from outside, a port that is taken a wrong setting; each says what to do."""
    strange = tmp_path / "strange.sqlite"
    strange.write_bytes(b"this is no database, but it is long enough to be looked at" * 40)
    code, _, err = await end_of(await start(DIALER_STORE_PATH=str(strange), DIALER_PROJECTIONS_PORT="0"))
    assert (code, "DIALER_STORE_PATH" in err.splitlines()[-1]) == (1, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = await end_of(await start(DIALER_PROJECTIONS_PORT=str(taken.getsockname()[1])))
    assert (code, "DIALER_PROJECTIONS_PORT" in err.splitlines()[-1]) == (2, True)


async def test_help_teaches_the_commands() -> None:
    """What it does, the commands, the settings, the exit codes."""
    code, out, _ = await end_of(await start("--help"))
    assert code == 0
    for word in ("rebuild", "--no-audit", "DIALER_STORE_PATH", "exit codes", "/v1/calls/{call_id}"):
        assert word in out
