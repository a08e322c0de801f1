"""Who owns which partition, by what the dialers log, and how soon a dead one's partitions are owned again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

OWNED: Final = "partition owned"
_POLL_S: Final = 0.05


class Owners:
    """Reads the dialers' logs as they grow."""

    def __init__(self, logs: Path, dialers: Sequence[str]) -> None:
        self._files = {dialer: logs / f"{dialer}.log" for dialer in dialers}
        self._read_to = dict.fromkeys(dialers, 0)
        self._last: dict[int, tuple[float, str]] = {}

    def partitions(self, dialer: str) -> frozenset[int]:
        """Return the partitions that a dialer was the last to take."""
        self._read()
        return frozenset(partition for partition, (_, name) in self._last.items() if name == dialer)

    async def owned_again(self, partitions: frozenset[int], since: float, timeout_s: float) -> float | None:
        """Wait until each was taken after `since` (Unix time); return how long after it the last was, None: not in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._read()
            taken = [self._last[partition][0] for partition in partitions]
            if all(at > since for at in taken):
                return max(taken) - since
            await asyncio.sleep(_POLL_S)
        return None

    def _read(self) -> None:
        found = sorted((at, name, partition) for name in self._files for at, partition in self._new_lines(name))
        for at, name, partition in found:
            self._last[partition] = (at, name)

    def _new_lines(self, name: str) -> Iterator[tuple[float, int]]:
        path = self._files[name]
        if not path.exists():
            return
        if path.stat().st_size < self._read_to[name]:  # put aside for having grown too long
            self._read_to[name] = 0
        with path.open("rb") as log:
            log.seek(self._read_to[name])
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read_to[name] += len(line)
                if OWNED.encode() in line:
                    said = json.loads(line)
                    yield datetime.fromisoformat(said["at"]).timestamp(), int(said["partition"])
