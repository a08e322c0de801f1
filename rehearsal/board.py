"""What a running rehearsal looks like: a live table in a terminal, plain lines anywhere else. It only ever watches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rehearsal.accounts import TERMINAL, outcome_of
from rehearsal.process_spec import ProcessEvent, What
from rehearsal.reader import Logged
from rehearsal.scenario import Request

LINE_EVERY_S: Final = 4.0
NOTES_MAX: Final = 6
REFRESH_PER_S: Final = 4
_STATUS: Final[Mapping[str, str]] = {
    "call_requested": "waiting",
    "call_deferred": "waiting",
    "attempt_opened": "opening",
    "dial_started": "dialing",
    "callee_ringing": "ringing",
    "call_answered": "talking",
    "retry_scheduled": "waiting",
}
"""What a decision makes of its call; the others change nothing here."""
_COLUMNS: Final = ("waiting", "opening", "dialing", "ringing", "talking")
_STYLES: Final[Mapping[str, str]] = {"ringing": "yellow", "talking": "green", "dialing": "cyan"}
_TOLD: Final = frozenset({What.READY, What.EXITED, What.RESTARTING, What.GAVE_UP, What.UNREADY})


class Board:
    """Takes in events of processes and calls; shows them. Use it as a context manager."""

    def __init__(self, title: str, began_at: float) -> None:
        self._title, self._began_at = title, began_at
        self._console = Console(soft_wrap=True)
        self._live: Live | None = None
        self._requests: Mapping[str, Request] = {}
        self._status: dict[str, str] = {}
        self._outcome: dict[str, str] = {}
        self._notes: list[str] = []
        self._line_at = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=REFRESH_PER_S, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()
            self._live = None

    @property
    def elapsed_s(self) -> float:
        """Return how long ago the run began."""
        return time.time() - self._began_at

    def say(self, text: str) -> None:
        """Show a line."""
        line = f"[{self.elapsed_s:5.1f} s] {text}"
        if self._live is None:
            print(line, flush=True)
            return
        self._notes = [*self._notes, line][-NOTES_MAX:]
        self._live.update(self._table())

    def process(self, event: ProcessEvent) -> None:
        """Take in what happened to a process."""
        if event.what in _TOLD:
            code = f" ({event.returncode})" if event.returncode is not None else ""
            self.say(f"{event.name} {event.what}{code} after {event.took_s:.1f} s")

    def expect(self, requests: Mapping[str, Request]) -> None:
        """Name the calls that will be there, by call_id."""
        self._requests = requests

    def record(self, record: Logged) -> None:
        """Take in a record of the log."""
        if record.call_id is None or not record.is_decision:
            return
        if record.name in TERMINAL:
            self._outcome[record.call_id] = outcome_of(record)
        elif record.name in _STATUS:
            self._status[record.call_id] = _STATUS[record.name]

    def tick(self) -> None:
        """Show where it stands: the table anew, or a line when it is time for one."""
        if self._live is not None:
            self._live.update(self._table())
        elif time.monotonic() - self._line_at >= LINE_EVERY_S:
            self._line_at = time.monotonic()
            self.say(self._summary())

    def _summary(self) -> str:
        now = Counter(status for call, status in self._status.items() if call not in self._outcome)
        parts = [f"{now[column]} {column}" for column in _COLUMNS if now[column]]
        return ", ".join([f"{len(self._outcome)} of {len(self._requests)} calls ended", *parts])

    def _table(self) -> Group:
        table = Table(title=f"{self._title}  {self.elapsed_s:.0f} s", title_justify="left", expand=False)
        table.add_column("persona")
        for column in ("asked", *_COLUMNS):
            table.add_column(column, justify="right", style=_STYLES.get(column, ""))
        table.add_column("ended", min_width=34)
        for persona, calls in self._by_persona().items():
            now = Counter(self._status.get(call, "") for call in calls if call not in self._outcome)
            ended = Counter(self._outcome[call] for call in calls if call in self._outcome)
            cells = [str(now[column] or "") for column in _COLUMNS]
            words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ended.items()))
            table.add_row(persona, str(len(calls)), *cells, words)
        return Group(table, Text("\n".join(self._notes), style="dim"))

    def _by_persona(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for call, request in self._requests.items():
            name = request.persona if request.role in {"persona", "repeated", "conflict"} else request.role
            groups.setdefault(str(name), []).append(call)
        return groups
