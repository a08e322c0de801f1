"""A clock that dies on order: how the crash matrix kills or pauses a real process precisely at a named step.

`DIALER_CRASH_AT` names a directory. A file in it, named as a step and holding `kill` or `stop`, is an order for whichever
process passes that step first: it takes the file away (into `done/`, with its pid and the time), then sends SIGKILL or
SIGSTOP to itself, so that nothing behind the step runs. Without the variable there is no such clock, and beside real
phones it is refused. Source: issue S2, crash matrix.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runtime.clock import SystemClock
from runtime.settings import Settings, SettingsError
from schemas.steps import Step

VARIABLE: Final = "DIALER_CRASH_AT"
DONE: Final = "done"
SIGNALS: Final[Mapping[str, signal.Signals]] = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class CrashClock(SystemClock):
    """The real clock, but that an order waits at its steps."""

    def __init__(self, orders: Path) -> None:
        super().__init__()
        self._orders = orders
        self._paths = {step: orders / step.value for step in Step}
        (orders / DONE).mkdir(parents=True, exist_ok=True)

    def passing(self, step: Step) -> None:
        """Die or stop here when it was ordered, and nobody else took the order."""
        if not self._paths[step].exists():
            return
        taken = self._orders / DONE / f"{step.value}-{os.getpid()}-{self.monotonic():.6f}"
        try:
            self._paths[step].rename(taken)
        except FileNotFoundError:
            return
        os.kill(os.getpid(), SIGNALS[taken.read_text().strip()])


def clock_of(environment: Mapping[str, str], settings: Settings) -> SystemClock:
    """Return production's clock, or the crash matrix's where it is asked for. Raises: SettingsError beside real phones."""
    orders = environment.get(VARIABLE)
    if not orders:
        return SystemClock()
    if settings.dial_real_phones == "yes":
        raise SettingsError(f"{VARIABLE} kills the process on order; it is for rehearsals and never beside real phones")
    return CrashClock(Path(orders))
