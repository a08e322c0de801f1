"""Provisioning, the broker and the LiveKit server: real tools, real processes."""

# ruff: noqa: F811 -- fixtures are imported here and are arguments below

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from livekit import api, rtc

from rehearsal import kafka, livekit_server, provision
from rehearsal.ports import free_ports
from rehearsal.provision import Part, ProvisionFailed
from rehearsal.supervisor import Supervisor
from tests.platform_fixtures import kafka_bootstrap, livekit, provisions  # noqa: F401

TIMEOUT_S = 60.0
ROOT = Path(__file__).parents[2]
FLAKY = """
import pathlib, sys
tries = pathlib.Path(sys.argv[2])
count = int(tries.read_text()) + 1 if tries.exists() else 1
tries.write_text(str(count))
(pathlib.Path(sys.argv[1]) / "half").write_text("x")
if count < int(sys.argv[3]):
    print("connection reset by peer"); raise SystemExit(5)
(pathlib.Path(sys.argv[1]) / "product").write_text("whole")
"""


def flaky(tmp_path: Path, succeeds_at: int) -> Part:
    tries = tmp_path / "tries"
    return Part(
        name="thing",
        version="1",
        duration="no time",
        proof="product",
        argv=lambda target: [sys.executable, "-c", FLAKY, str(target), str(tries), str(succeeds_at)],
    )


def make(part: Part, root: Path) -> list[str]:
    said: list[str] = []
    provision._make(part, root, said.append)
    return said


def test_a_failed_download_is_tried_once_more(tmp_path):
    """The second try starts from nothing."""
    said = make(flaky(tmp_path, 2), tmp_path)
    assert any("trying once more: connection reset" in line for line in said)
    place = provision.place(flaky(tmp_path, 2), tmp_path)
    assert (place / "product").read_text() == "whole"
    assert provision.is_complete(flaky(tmp_path, 2), tmp_path)


def test_a_download_that_fails_shows_the_tools_last_words_and_leaves_nothing(tmp_path):
    """What is half there is not taken for good."""
    part = flaky(tmp_path, 99)
    with pytest.raises(ProvisionFailed, match=r"(?s)thing: .* failed \(5\).*connection reset by peer"):
        make(part, tmp_path)
    assert not provision.is_complete(part, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tries"]


def test_a_part_without_its_marker_is_not_complete(tmp_path):
    """The marker is written last, so its absence means an interruption; another version is another place."""
    part = flaky(tmp_path, 1)
    make(part, tmp_path)
    assert not provision.is_complete(dataclasses.replace(part, version="2"), tmp_path)
    marker = provision.place(part, tmp_path) / "complete.json"
    assert json.loads(marker.read_text()) == {"name": "thing", "version": "1"}
    marker.unlink()
    assert not provision.is_complete(part, tmp_path)


def test_a_missing_tool_is_named(tmp_path):
    """No traceback when the tool is not there."""
    part = dataclasses.replace(flaky(tmp_path, 1), argv=lambda _: ["no-such-maven"])
    with pytest.raises(ProvisionFailed, match="no-such-maven: No such file"):
        make(part, tmp_path)


def test_a_long_download_says_something_all_along(tmp_path, monkeypatch):
    """A line each PROGRESS_S, with time, size and the tool's last words, and never an address."""
    assert provision.PROGRESS_S < 5
    monkeypatch.setattr(provision, "PROGRESS_S", 0.2)
    code = (
        "import time, sys; print('Fetched https://host.invalid/x.jar', flush=True); time.sleep(1); open('product', 'w')"
    )
    part = dataclasses.replace(flaky(tmp_path, 1), argv=lambda _: [sys.executable, "-c", code])
    progress = [line for line in make(part, tmp_path) if "MiB" in line]
    assert len(progress) >= 3
    assert any("Fetched" in line for line in progress)
    assert not any("://" in line for line in progress)


def test_provisioning_twice_does_nothing(provisions):
    """From a full cache nothing is run and nothing is said."""
    said: list[str] = []
    assert provision.provision(said.append) == provisions
    assert said == []
    version = subprocess.run([provisions.livekit, "--version"], capture_output=True, text=True, check=True).stdout
    assert provision.LIVEKIT_VERSION.removeprefix("v") in version


@pytest.mark.broker
async def test_the_broker_takes_the_topics_and_transactions_of_the_design(kafka_bootstrap):
    """10 topics of 24 partitions; a transaction's record is read committed, with a 4 MiB record in it."""
    prefix = uuid.uuid4().hex[:8]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        config = {"max.message.bytes": str(kafka.RECORD_BYTES_MAX)}
        await admin.create_topics([NewTopic(f"{prefix}-{n}", 24, 1, topic_configs=config) for n in range(10)])
        async with asyncio.timeout(TIMEOUT_S):  # the controller answers before the broker has heard of them
            while True:
                described = await admin.describe_topics([f"{prefix}-{n}" for n in range(10)])
                if all(topic["partitions"] for topic in described):
                    break
                await asyncio.sleep(0.05)
        assert [len(topic["partitions"]) for topic in described] == [24] * 10
    finally:
        await admin.close()
    body = os.urandom(4 * 1024 * 1024)
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap, transactional_id=prefix, max_request_size=kafka.RECORD_BYTES_MAX
    )
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(f"{prefix}-0", body, partition=7)
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        f"{prefix}-0",
        bootstrap_servers=kafka_bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=kafka.RECORD_BYTES_MAX,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            assert (await consumer.getone()).value == body
    finally:
        await consumer.stop()


@pytest.mark.broker
async def test_a_topic_nobody_made_does_not_appear(kafka_bootstrap):
    """A misspelt topic is an error, not a new topic."""
    name = f"misspelt-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([name])
        assert described["error_code"] == 3  # UNKNOWN_TOPIC_OR_PARTITION
        assert name not in await admin.list_topics()
    finally:
        await admin.close()


@pytest.mark.broker
async def test_the_console_lines_can_be_pasted(kafka_bootstrap, provisions):
    """What the console producer's line sends, the console consumer's line reads."""
    topic = f"console-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    produce = kafka.console_producer(provisions.jars, kafka_bootstrap, topic)
    consume = kafka.console_consumer(provisions.jars, kafka_bootstrap, topic)
    shell = await asyncio.create_subprocess_shell(
        f"printf '%s\\n' '{{\"a\": 1}}' | {produce} && {consume} --max-messages 1", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(TIMEOUT_S):
        said, _ = await shell.communicate()
    assert shell.returncode == 0
    assert b'{"a": 1}' in said.splitlines()


@pytest.mark.broker
async def test_the_broker_keeps_its_data_over_a_stop_and_a_new_start(provisions, tmp_path):
    """As `make down` and `make up` do: same directory, other ports; storage is formatted once only."""
    for ports in (free_ports(2), free_ports(2)):
        broker = kafka.Broker(
            jars=provisions.jars, data_dir=tmp_path / "kafka", port=ports[0], controller_port=ports[1]
        )
        await kafka.prepare(broker)
        async with Supervisor(tmp_path) as supervisor:
            await supervisor.start([kafka.broker_spec(broker)])
            admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
            await admin.start()
            topics = await admin.list_topics()
            if not topics:
                await admin.create_topics([NewTopic("kept", 3, 1)])
            await admin.close()
    assert topics == ["kept"]


@pytest.mark.livekit
async def test_a_room_that_was_not_created_cannot_be_joined(livekit):
    """room.auto_create is off (the fence); a created room is joined, and its data arrive over WebRTC on loopback."""
    room_name = f"room-{uuid.uuid4().hex[:8]}"
    grants = api.VideoGrants(room_join=True, room=room_name)

    def token(identity: str) -> str:
        return api.AccessToken(livekit.key, livekit.secret).with_identity(identity).with_grants(grants).to_jwt()

    room, other = rtc.Room(), rtc.Room()
    with pytest.raises(rtc.ConnectError):
        await room.connect(livekit.url, token("early"))
    async with api.LiveKitAPI(livekit.http_url, livekit.key, livekit.secret) as client:
        created = await client.room.create_room(api.CreateRoomRequest(name=room_name))
        assert (created.empty_timeout, created.departure_timeout) == (300, 20)
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        other.on("data_received", lambda packet: heard.done() or heard.set_result(packet.data))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await other.connect(livekit.url, token("listener"))
                await room.connect(livekit.url, token("speaker"))
                while "listener" not in room.remote_participants:
                    await asyncio.sleep(0.02)
                await room.local_participant.publish_data(b"over loopback")
                assert await heard == b"over loopback"
        finally:
            await room.disconnect()
            await other.disconnect()
        await client.room.delete_room(api.DeleteRoomRequest(room=room_name))
    with pytest.raises(rtc.ConnectError):
        await rtc.Room().connect(livekit.url, token("late"))


@pytest.mark.livekit
async def test_livekit_tells_rooms_by_webhook_and_comes_back_after_a_kill(provisions, tmp_path):
    """A created room is told to the given address, signed; SIGKILL brings a new server on the same ports."""
    http_port, tcp_port, udp_port = free_ports(3)
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        assert b"authorization:" in head.lower()
        told.put_nowait(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(hear, "127.0.0.1", 0)
    webhook_port = listener.sockets[0].getsockname()[1]
    server = livekit_server.LiveKitServer(
        binary=provisions.livekit,
        data_dir=tmp_path / "livekit",
        http_port=http_port,
        rtc_tcp_port=tcp_port,
        rtc_udp_port=udp_port,
        api_key="devkey",
        api_secret="s" * 40,
        webhook_urls=(f"http://127.0.0.1:{webhook_port}/hook",),
    )
    livekit_server.prepare(server)
    assert server.config_file.stat().st_mode & 0o077 == 0
    async with listener, Supervisor(tmp_path) as supervisor, asyncio.timeout(TIMEOUT_S):
        await supervisor.start([livekit_server.server_spec(server)])
        old = supervisor.kill(livekit_server.NAME, signal.SIGKILL)
        await supervisor.wait_ready(livekit_server.NAME, not_pid=old)
        async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
            await client.room.create_room(api.CreateRoomRequest(name="told"))
        event = json.loads(await told.get())
        assert (event["event"], event["room"]["name"]) == ("room_started", "told")
    assert "s" * 40 not in supervisor.log_path(livekit_server.NAME).read_text()
