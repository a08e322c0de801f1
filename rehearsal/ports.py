"""Free ports for the rehearsal, on loopback.

They are taken from below the kernel's range of ephemeral ports: a port drawn by `bind(0)` comes from that range, and any
outgoing connection may sit on it at the moment when a killed process is restarted and wants it back.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
PORT_MIN: Final = 22_000
PORT_MAX: Final = 31_999
_EPHEMERAL_MIN: Final = 32_768
_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES_MAX: Final = 2_000


class NoFreePort(Exception):
    """No free port was found on loopback."""


def free_ports(count: int) -> tuple[int, ...]:
    """Return distinct ports that are free on 127.0.0.1 for TCP and UDP alike, and were so all at the same moment.

    Raises: NoFreePort.
    """
    below = min(PORT_MAX, _ephemeral_min() - 1)
    lowest = PORT_MIN if below > PORT_MIN else 1_024
    highest = below if below > PORT_MIN else PORT_MAX
    ports: list[int] = []
    with ExitStack() as held:
        for _ in range(_TRIES_MAX):
            if len(ports) == count:
                break
            port = random.randint(lowest, highest)
            if port not in ports and _take(port, held):
                ports.append(port)
    if len(ports) < count:
        raise NoFreePort(f"found {len(ports)} free ports of {count} on {LOOPBACK}; close other rehearsals")
    return tuple(ports)


def free_port() -> int:
    """Return one free port. Raises: NoFreePort."""
    return free_ports(1)[0]


def is_free(port: int) -> bool:
    """Tell whether a given port is free on 127.0.0.1 for TCP and UDP."""
    with ExitStack() as held:
        return _take(port, held)


def _take(port: int, held: ExitStack) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        sock = held.enter_context(socket.socket(socket.AF_INET, kind))
        if kind == socket.SOCK_STREAM:
            # As servers do: a connection in TIME_WAIT does not make a port taken.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
        except OSError:
            return False
    return True


def _ephemeral_min() -> int:
    try:
        return int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_MIN
