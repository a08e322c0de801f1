"""No process outlives its supervisor, however that one dies. A script of its own: standard library only, no imports of ours.

`orphans.py exec PARENT NICENESS -- ARGV…` becomes ARGV, with the kernel asked to kill it when its parent dies
(PR_SET_PDEATHSIG: it is tied to the parent's *thread*, and says nothing to grandchildren) and to serve it before others,
or after them. `orphans.py watch` therefore reads `+PGID` and
`-PGID` lines from its standard input, a pipe whose other end only the supervisor holds, and at the end of that pipe
kills every process group that was not taken back. Doing it after the fork, in a program of its own, keeps Python code
out of the child of a process with threads (`preexec_fn`).
Source: prctl(2); signal(7); sched(7), "The autogroup feature".
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127


def exec_argv(parent: int, niceness: int, argv: list[str]) -> list[str]:
    """Return the command line that runs `argv` at a niceness (nice(1)), so that it dies with `parent`."""
    this = str(Path(__file__).resolve())
    return [sys.executable, "-I", "-S", this, "exec", str(parent), str(niceness), "--", *argv]


def watch_argv() -> list[str]:
    """Return the command line of the watcher."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), "watch"]


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def _be_nice(niceness: int) -> None:
    """Set our niceness, and that of our session: with autogroups a nice value counts within one session only."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        Path("/proc/self/autogroup").write_text(str(niceness))
    except OSError:  # we may not (below 0 is for the privileged), or there is no such feature: all are served alike
        return


def _become(argv: list[str]) -> None:
    # What we inherited as ignored would stay ignored after exec; our own handlers do not survive it anyway.
    for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- no shell is the point
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        sys.exit(_NOT_FOUND)


def _watch() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


if __name__ == "__main__":
    if sys.argv[1] == "exec":
        _die_with(int(sys.argv[2]))
        _be_nice(int(sys.argv[3]))
        _become(sys.argv[5:])
    else:
        _watch()
