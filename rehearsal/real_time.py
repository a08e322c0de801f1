"""Sound first: the threads that carry it are scheduled in real time, as Asterisk (`-p`) and FreeSWITCH (`-rp`) run theirs.

    python rehearsal/real_time.py RUN_DIR

A thread that must send or play 10 ms of sound every 10 ms waits behind whatever burns the processors otherwise, and
WebRTC's jitter buffer makes up what comes too late: measured, every damaged recording had all its packets and 60 to
180 ms of invented sound. libwebrtc's threads are short-lived and made per call, so they are looked for every second, in
the process groups that the run directory's pid files name. Where we may not (no CAP_SYS_NICE) it says so and ends: then
a busy machine can be heard. A script of its own: standard library only, so that it starts at once.
Source: sched(7).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOOK_EVERY_S = 1.0
RELAY_PRIORITY, SOUND_PRIORITY = 1, 2  # the lowest of the real-time ones suffice; libwebrtc takes 49 for itself
RELAY = "livekit"
"""The process that does nothing but carry sound, in bursts too (handshakes, garbage): all its threads, behind the others."""
CARRIERS = frozenset({RELAY, "carrier", "agent"})
SOUND_THREADS = frozenset(
    {"AudioSourceCapt", "AudioEncoderQue", "worker_thread 0", "network_thread", "SyntheticAudioD", "livekit-audio"}
)
"""libwebrtc's and livekit's, as the kernel has them (15 characters): capture, encode, pace, send and receive, play out."""


def _pid_of(run_dir: Path, name: str) -> int:
    try:
        return int((run_dir / "pids" / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return 0  # not started yet, or between two lives


def _group_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except (OSError, IndexError):
        return 0


def threads(run_dir: Path) -> Iterator[tuple[int, int]]:
    """Name the threads of a run directory's processes that carry sound, each with the priority it shall have."""
    groups = {pid: name for name in CARRIERS if (pid := _pid_of(run_dir, name))}
    for process in Path("/proc").glob("[0-9]*"):
        name = groups.get(_group_of(process))
        if name is None:
            continue
        for task in process.glob("task/*"):
            try:
                if name == RELAY:
                    yield int(task.name), RELAY_PRIORITY
                elif (task / "comm").read_text().strip() in SOUND_THREADS:
                    yield int(task.name), SOUND_PRIORITY
            except OSError:  # it ended meanwhile
                continue


def hasten(run_dir: Path) -> None:
    """Schedule those threads in real time that are not yet. Raises: PermissionError."""
    for thread, priority in threads(run_dir):
        try:
            if os.sched_getscheduler(thread) == os.SCHED_OTHER:
                os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(priority))
        except ProcessLookupError:
            continue


def main() -> None:
    """Do it every second until killed."""
    run_dir = Path(sys.argv[1])
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(SOUND_PRIORITY))
        while True:
            hasten(run_dir)
            time.sleep(LOOK_EVERY_S)
    except (PermissionError, AttributeError) as error:
        print(f"sound is not scheduled in real time ({type(error).__name__}): a busy machine may be heard", flush=True)


if __name__ == "__main__":
    main()
