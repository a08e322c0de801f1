"""Logs: one JSON object a line on standard error; static messages with fields, never a number, name or word.

Source: design §9; reference/style.md 4.4.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

import orjson

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_CHATTY: Final = ("aiokafka", "faststream", "httpx", "httpcore", "uvicorn.access")
SAME_LINES_MAX: Final = 10
SAME_LINES_S: Final = 10.0
"""A library says what one line of its code has to say so often in so many seconds, at most: without a broker, aiokafka's
clients together say 3,400 lines a second (measured), and a disk that is full already does not get emptier by that."""
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")


class JsonLines(logging.Formatter):
    """Write a record as one JSON object; a telephone number that a library put into its text is blotted out."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": _NUMBER.sub("#", record.getMessage()),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["trace"] = _NUMBER.sub("#", self.formatException(record.exc_info))
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()


class Sparing(logging.Filter):
    """Let through what a library repeats a few times, then count; the next line that gets through says how many did not."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], tuple[float, int]] = {}
        """By line of code: when its time began, and how often it spoke since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is written; ours always is."""
        if record.name.partition(".")[0] not in _CHATTY:
            return True
        place = (record.name, record.lineno)
        began, count = self._said.get(place, (record.created, 0))
        if record.created - began >= SAME_LINES_S:
            if count > SAME_LINES_MAX:
                record.__dict__["fields"] = {"left_out": count - SAME_LINES_MAX}
            began, count = record.created, 0
        self._said[place] = (began, count + 1)
        return count < SAME_LINES_MAX


def configure(process: str, level: str) -> None:
    """Send all logs of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process))
    handler.addFilter(Sparing())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS.get(level, logging.INFO))
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))


class Log:
    """A logger whose messages are static and whose facts are fields: `log.info("dial sent", call_id=…)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: Any) -> None:
        """Say something for who debugs."""
        self._logger.debug(message, extra={"fields": fields})

    def info(self, message: str, **fields: Any) -> None:
        """Say what happened."""
        self._logger.info(message, extra={"fields": fields})

    def warning(self, message: str, **fields: Any) -> None:
        """Say what may need a look."""
        self._logger.warning(message, extra={"fields": fields})

    def alarm(self, message: str, **fields: Any) -> None:
        """Say what somebody must look at now."""
        self._logger.error(message, extra={"fields": fields | {"alarm": True}})

    def crash(self, message: str, error: BaseException, **fields: Any) -> None:
        """Say what failed, with its trace."""
        self._logger.error(message, exc_info=error, extra={"fields": fields})
