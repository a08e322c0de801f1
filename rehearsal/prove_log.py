"""The log of a proof as a file beside its other files, so that a call can be looked into when the broker is gone.

One JSON object a line, in the order it was read: decisions and copied facts, without what is sealed.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson

from rehearsal.reader import Logged
from schemas import topics

NAME: Final = "events.jsonl"
_LEFT_OUT: Final = frozenset({"to", "variables", "message", "permit", "rules"})


class LogFile:
    """Takes in records as they are read; a context manager."""

    def __init__(self, run_dir: Path) -> None:
        self._file = (run_dir / NAME).open("wb")

    def record(self, record: Logged) -> None:
        """Write a record of `dialer.events`."""
        if record.topic == topics.EVENTS.name:
            data = {name: value for name, value in record.data.items() if name not in _LEFT_OUT}
            line = {"at": record.at, "call_id": record.call_id, "type": record.type, "data": data}
            self._file.write(orjson.dumps(line) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
