"""The rehearsal's broker: Apache Kafka itself, one KRaft node on loopback, started from plain jars with `java`.

The settings are a broker's defaults but for what one node needs (replication 1), what a rehearsal wants (no wait before
the first rebalance, few internal partitions) and what the design asks for (no topic by accident, records up to 5 MiB).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shlex
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from rehearsal.ports import LOOPBACK
from rehearsal.process_spec import ProcessSpec, log_tail, open_log

NAME: Final = "kafka"
RECORD_BYTES_MAX: Final = 5 * 1024 * 1024
READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
_FORMAT_TIMEOUT_S: Final = 60.0
_REQUEST_TIMEOUT_MS: Final = 2_000
_TOOL: Final = "org.apache.kafka.tools."

FAST_START: Final = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Boots in about 3.0 s instead of 4.1 (2 cores, measured); the code stays at the first compiler's speed, though."""
FULL_SPEED: Final = ("-Xmx512m",)
"""For measurements of throughput: as reference/kafka.md was measured."""

_LOG4J2: Final = """\
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server
logger.server.level = info
"""


class FormatFailed(Exception):
    """The broker's storage could not be prepared; the text has the tool's last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """One broker: where its jars and its data are, which ports it has. The data outlives the process."""

    jars: Path
    data_dir: Path
    port: int
    controller_port: int
    jvm_flags: tuple[str, ...] = FAST_START

    @property
    def bootstrap(self) -> str:
        """Return host:port as clients want it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def properties_file(self) -> Path:
        """Return where the broker's settings are written."""
        return self.data_dir / "server.properties"

    @property
    def log_dir(self) -> Path:
        """Return where the broker keeps its partitions."""
        return self.data_dir / "log"


def broker_properties(broker: Broker) -> str:
    """Return the content of `server.properties`."""
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{broker.controller_port}",
        "listeners": f"PLAINTEXT://{broker.bootstrap},CONTROLLER://{LOOPBACK}:{broker.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{broker.bootstrap}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": broker.log_dir,
        "auto.create.topics.enable": "false",
        "num.partitions": 1,
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "message.max.bytes": RECORD_BYTES_MAX,
        "replica.fetch.max.bytes": RECORD_BYTES_MAX,
        "log.cleaner.enable": "true",
        "log.cleaner.dedupe.buffer.size": 32 * 1024 * 1024,
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in settings.items())


async def prepare(broker: Broker) -> None:
    """Write the broker's settings and, the first time only, format its storage. Raises: FormatFailed."""
    broker.data_dir.mkdir(parents=True, exist_ok=True)
    broker.properties_file.write_text(broker_properties(broker))
    (broker.data_dir / "log4j2.properties").write_text(_LOG4J2)
    if (broker.log_dir / "meta.properties").exists():
        return
    log_path = broker.data_dir / "format.log"
    tool = ["kafka.tools.StorageTool", "format", "--cluster-id", _cluster_id(broker), "--ignore-formatted"]
    with open_log(log_path) as log:
        process = await asyncio.create_subprocess_exec(
            *_java(broker.jars, broker.jvm_flags),
            *tool,
            "--config",
            str(broker.properties_file),
            stdout=log,
            stderr=log,
        )
        try:
            async with asyncio.timeout(_FORMAT_TIMEOUT_S):
                code = await process.wait()
        except TimeoutError:
            code = None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if code != 0:
        raise FormatFailed(f"formatting {broker.log_dir} failed ({code}):\n{log_tail(log_path)}")


def broker_spec(broker: Broker) -> ProcessSpec:
    """Return the broker as a process for the supervisor; `prepare` comes first."""

    async def ready() -> bool:
        return await is_answering(broker.bootstrap)

    logging = f"-Dlog4j2.configurationFile={broker.data_dir / 'log4j2.properties'}"
    return ProcessSpec(
        name=NAME,
        argv=[*_java(broker.jars, (*broker.jvm_flags, logging)), "kafka.Kafka", str(broker.properties_file)],
        env=dict(os.environ),
        cwd=broker.data_dir,
        ready=ready,
        ready_timeout_s=READY_TIMEOUT_S,
        stop_timeout_s=STOP_TIMEOUT_S,
    )


async def is_answering(bootstrap: str) -> bool:
    """Tell whether a broker answers a metadata request and names itself as a member of its cluster."""
    host, _, port = bootstrap.rpartition(":")
    try:
        # First a bare connection: aiokafka logs an error for each one that is refused.
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    with closing(writer):
        pass
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await client.start()
        return bool((await client.describe_cluster())["brokers"])
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await client.close()


def console_producer(jars: Path, bootstrap: str, topic: str) -> str:
    """Return a line to paste into a shell: Kafka's own console producer, one record a line, no key."""
    return _tool_line(jars, "ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", topic)


def console_consumer(jars: Path, bootstrap: str, topic: str) -> str:
    """Return a line to paste into a shell: Kafka's own console consumer, from the start, committed records only."""
    options = ("--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning")
    return _tool_line(jars, "consumer.ConsoleConsumer", *options, "--isolation-level", "read_committed")


def _tool_line(jars: Path, tool: str, *options: str) -> str:
    return shlex.join([*_java(jars, ("-Xmx128m", "-XX:TieredStopAtLevel=1")), _TOOL + tool, *options])


def _java(jars: Path, flags: tuple[str, ...]) -> list[str]:
    home = os.environ.get("JAVA_HOME")
    java = Path(home) / "bin" / "java" if home else None
    program = str(java) if java and java.exists() else shutil.which("java") or "java"
    return [program, *flags, "-cp", str(jars / "*")]


def _cluster_id(broker: Broker) -> str:
    """Return a cluster id as Kafka writes them: 16 bytes in base64, here derived from the place of the data."""
    digest = hashlib.sha256(str(broker.data_dir.resolve()).encode()).digest()[:16]
    # A leading dash would be read as an option.
    return "A" + base64.urlsafe_b64encode(digest).decode().rstrip("=")[1:]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")
