"""The rehearsal's LiveKit: the real livekit-server, single node, loopback only, without Redis (the carrier speaks SIP).

`room.auto_create` is false: a room that was deleted stays deleted, which is what the dialer's fence rests on.
Source: reference/livekit.md §5.1; livekit-server pkg/config/config.go, pkg/service/server.go (healthCheck).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import yaml
from livekit import api

from rehearsal.ports import LOOPBACK
from rehearsal.process_spec import RELAY, ProcessSpec

NAME: Final = "livekit"
READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 3.0
"""Then SIGKILL: it keeps nothing on disk, but waits for participants to leave, and loses a SIGTERM that comes in the
100 ms after its port opens (pkg/service/server.go, Start and Stop)."""
SECRET_LENGTH_MIN: Final = 32
EMPTY_TIMEOUT_S: Final = 300
DEPARTURE_TIMEOUT_S: Final = 20
_REQUEST_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitServer:
    """One livekit-server: its binary, its ports, its key pair, and who hears its webhooks."""

    binary: Path
    data_dir: Path
    http_port: int
    rtc_tcp_port: int
    rtc_udp_port: int
    api_key: str
    api_secret: str
    webhook_urls: tuple[str, ...] = ()
    log_level: str = "info"

    def __post_init__(self) -> None:
        assert len(self.api_secret) >= SECRET_LENGTH_MIN, "livekit-server wants a secret of 32 characters or more"

    @property
    def url(self) -> str:
        """Return the address as rooms are joined (WebSocket)."""
        return f"ws://{LOOPBACK}:{self.http_port}"

    @property
    def http_url(self) -> str:
        """Return the address of the API (Twirp)."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def config_file(self) -> Path:
        """Return where the configuration is written."""
        return self.data_dir / "livekit.yaml"


def server_config(server: LiveKitServer) -> str:
    """Return the content of the configuration file."""
    config: dict[str, object] = {
        "port": server.http_port,
        "bind_addresses": [LOOPBACK],
        "rtc": {
            "tcp_port": server.rtc_tcp_port,
            "udp_port": server.rtc_udp_port,
            # All three matter on loopback; a given node_ip also keeps it from asking a STUN server outside.
            "node_ip": LOOPBACK,
            "enable_loopback_candidate": True,
            "interfaces": {"includes": ["lo"]},
            "use_external_ip": False,
        },
        "keys": {server.api_key: server.api_secret},
        "room": {
            "auto_create": False,
            "empty_timeout": EMPTY_TIMEOUT_S,
            "departure_timeout": DEPARTURE_TIMEOUT_S,
        },
        "logging": {"level": server.log_level, "json": True},
    }
    if server.webhook_urls:
        config["webhook"] = {"api_key": server.api_key, "urls": list(server.webhook_urls)}
    return yaml.safe_dump(config, sort_keys=False)


def prepare(server: LiveKitServer) -> None:
    """Write the configuration, readable by its owner only: it holds the secret."""
    server.data_dir.mkdir(parents=True, exist_ok=True)
    server.config_file.touch(mode=0o600)
    server.config_file.chmod(0o600)
    server.config_file.write_text(server_config(server))


def server_spec(server: LiveKitServer) -> ProcessSpec:
    """Return the server as a process for the supervisor; `prepare` comes first."""

    async def ready() -> bool:
        return await is_answering(server)

    return ProcessSpec(
        name=NAME,
        argv=[str(server.binary), "--config", str(server.config_file)],
        # A LIVEKIT_* variable of ours must not override the file. Garbage is collected a quarter as often: the heap is small.
        env={name: value for name, value in os.environ.items() if not name.startswith("LIVEKIT_")} | {"GOGC": "400"},
        cwd=server.data_dir,
        ready=ready,
        ready_timeout_s=READY_TIMEOUT_S,
        stop_timeout_s=STOP_TIMEOUT_S,
        niceness=RELAY,
    )


async def is_answering(server: LiveKitServer) -> bool:
    """Tell whether the server is healthy and its API takes our key.

    `/` answers 406 while the node is not one that rooms and workers may be placed on ("could not find any available
    nodes"). Tried, 4 of 4: a worker that registers the moment this holds is offered its first job, so nobody has to
    wait the 2 s of reference/livekit.md on top.
    """
    token = api.AccessToken(server.api_key, server.api_secret).with_grants(api.VideoGrants(room_list=True)).to_jwt()
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
    list_rooms = f"{server.http_url}/twirp/livekit.RoomService/ListRooms"
    try:
        async with aiohttp.ClientSession(timeout=timeout, headers={"Authorization": f"Bearer {token}"}) as http:
            async with http.get(f"{server.http_url}/") as health:
                if health.status != 200:
                    return False
            async with http.post(list_rooms, json={}) as rooms:
                return rooms.status == 200
    except (TimeoutError, aiohttp.ClientError):
        return False
