"""What a job and its worker's parent process say to each other: JSON lines over a Unix socket.

Job to parent: one `hello`, then `fact`s in their order, then `goodbye`. Parent to job: one `ack` for each fact that
Kafka or the spool has, renewals of readiness excepted. A socket that ends without a last word is a job that died.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from schemas.facts import AgentReady, ConversationEnded, Fact

SOCKET_VARIABLE: Final = "DIALER_AGENT_SOCKET"
"""Environment variable with the socket's path; the parent sets it before its first job process starts."""
LINE_BYTES_MAX: Final = 64 * 1024
GOODBYE: Final = b'{"goodbye":true}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who speaks on this socket."""

    call_id: str
    attempt: int
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One fact on its way: its type, when the job saw it, and its data as plain JSON."""

    type: str
    time: datetime
    data: dict[str, Any]

    @property
    def number(self) -> int:
        """Return the fact's place in the job's numbering."""
        return int(self.data["number"])

    @property
    def renewal(self) -> int:
        """Return which renewal of readiness this is; 0 for every other fact."""
        return int(self.data["renewal"]) if self.type == AgentReady.TYPE else 0

    @property
    def is_last_word(self) -> bool:
        """Tell whether the job has nothing to say after this."""
        return self.type == ConversationEnded.TYPE


def told(type_name: str, fact: Fact, time: datetime) -> Told:
    """Return a fact as it travels."""
    return Told(type=type_name, time=time, data=asdict(fact))


def hello_line(hello: Hello) -> bytes:
    """Write the first line."""
    return orjson.dumps({"hello": hello}) + b"\n"


def fact_line(fact: Told) -> bytes:
    """Write a fact."""
    return orjson.dumps({"fact": fact}) + b"\n"


def ack_line(number: int) -> bytes:
    """Write that the fact of that number is safe."""
    return b'{"ack":%d}\n' % number


def read_hello(line: bytes) -> Hello:
    """Read the first line of a job. Raises: ValueError, KeyError or TypeError for anything else."""
    return Hello(**orjson.loads(line)["hello"])


def read_line(line: bytes) -> Told | None:
    """Read a later line of a job; None is its goodbye. Raises: ValueError, KeyError or TypeError for anything else."""
    said = orjson.loads(line)
    if "goodbye" in said:
        return None
    fact = said["fact"]
    return Told(type=fact["type"], time=datetime.fromisoformat(fact["time"]), data=fact["data"])


def read_ack(line: bytes) -> int:
    """Read the parent's line."""
    return int(orjson.loads(line)["ack"])
