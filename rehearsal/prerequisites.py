"""What a machine must have before anything is downloaded; runs on the bare system Python, with its standard library only.

`python3 -m rehearsal.prerequisites` names each missing thing with the line that installs it, in under 2 s, and ends
with 1 if there is any. It must speak on old Pythons too: no syntax of ours that 3.7 does not know.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple  # noqa: UP035 -- older Pythons must get as far as the check

PYTHON_MIN = (3, 11)
PYTHON_BELOW = (3, 14)
GO_MIN = (1, 26)
"""What livekit-server's go.mod asks for; an older Go from 1.21 on fetches that toolchain itself, if it is allowed to."""
GO_FETCHES_TOOLCHAIN = (1, 21)
JAVA_MIN = (17,)
MAVEN_MIN = (3, 6, 3)
DISK_FREE_MIN_GB = 3
COMMAND_TIMEOUT_S = 1.5
TRIAL_TIMEOUT_S = 0.5
_LOOPBACK = "127.0.0.1"
_SOCKET_TIMEOUT_S = 0.5

Version = Tuple[int, ...]  # noqa: UP006


class Missing(NamedTuple):
    """One thing that is missing: what, what was found in its place, and how to get it (Debian; anywhere)."""

    name: str
    found: str
    install: str
    otherwise: str


def check(place: Optional[Path] = None) -> List[Missing]:  # noqa: UP006, UP045
    """Return what is missing; `place` is where the downloads will go. Takes under 2 s, whatever hangs."""
    checks = (_python, _venv, _make, _go, _java, _maven, _loopback, lambda: _disk(place or cache_dir()))
    with ThreadPoolExecutor(len(checks)) as pool:
        return [missing for missing in pool.map(lambda one: one(), checks) if missing is not None]


def cache_dir() -> Path:
    """Return where downloads are kept: DIALER_CACHE_DIR, or `.cache` in the repository."""
    given = os.environ.get("DIALER_CACHE_DIR")
    return Path(given).expanduser().resolve() if given else Path(__file__).resolve().parent.parent / ".cache"


def _python() -> Optional[Missing]:  # noqa: UP045
    here = sys.version_info[:2]
    if PYTHON_MIN <= here < PYTHON_BELOW:
        return None
    names = [f"python3.{minor}" for minor in range(PYTHON_BELOW[1] - 1, PYTHON_MIN[1] - 1, -1)]
    other = next((name for name in names if _runs(name)), None)
    advice = f"{other} is here: run `make PYTHON={other} …`" if other else "https://www.python.org/downloads/, or pyenv"
    return Missing(
        "Python 3.11, 3.12 or 3.13",
        f"this is {platform.python_version()} ({sys.executable})",
        "apt-get install -y python3.11 python3.11-venv",
        advice,
    )


def _venv() -> Optional[Missing]:  # noqa: UP045
    # Debian splits the standard library: without python3-venv there is `venv` but no `ensurepip`.
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return None
    version = "{}.{}".format(*sys.version_info[:2])
    return Missing(
        "Python's venv", "no ensurepip", f"apt-get install -y python{version}-venv", "a complete Python build"
    )


def _make() -> Optional[Missing]:  # noqa: UP045
    if shutil.which("make"):
        return None
    return Missing("make", "not on the PATH", "apt-get install -y make", "GNU make 4 from your package manager")


def _go() -> Optional[Missing]:  # noqa: UP045
    install = "apt-get install -y golang-1.26-go   # or newer, where your Debian has it"
    otherwise = "https://go.dev/dl/, unpacked, with its bin directory on the PATH"
    found = _output(["go", "env", "GOVERSION", "GOTOOLCHAIN"])
    if found is None:
        return Missing("Go 1.26 or newer", _absence("go"), install, otherwise)
    lines = found.split()
    version, toolchain = _version(lines[0] if lines else ""), lines[1] if len(lines) > 1 else ""
    fetches = version >= GO_FETCHES_TOOLCHAIN and not toolchain.startswith("local")
    if version >= GO_MIN or fetches or not version:
        return None
    hint = otherwise if version < GO_FETCHES_TOOLCHAIN else f"`go env -w GOTOOLCHAIN=auto`, or {otherwise}"
    return Missing("Go 1.26 or newer", f"Go {_dotted(version)} (GOTOOLCHAIN={toolchain or 'unset'})", install, hint)


def _java() -> Optional[Missing]:  # noqa: UP045
    otherwise = "any JDK or JRE from 17 on, with `java` on the PATH or JAVA_HOME set"
    home = os.environ.get("JAVA_HOME")
    inside = str(Path(home) / "bin" / "java") if home else ""
    program = inside if inside and Path(inside).exists() else "java"
    found = _output([program, "-version"])
    if found is None:
        return Missing("Java 17 or newer", _absence("java"), "apt-get install -y openjdk-17-jre-headless", otherwise)
    version = _version(found[found.find("version") :] if "version" in found else "")
    if not version or version >= JAVA_MIN:
        return None
    return Missing(
        "Java 17 or newer", f"Java {_dotted(version)}", "apt-get install -y openjdk-17-jre-headless", otherwise
    )


def _maven() -> Optional[Missing]:  # noqa: UP045
    otherwise = "https://maven.apache.org/download.cgi, unpacked, with its bin directory on the PATH"
    found = _output(["mvn", "-version"])
    if found is None:
        return Missing("Maven 3.6.3 or newer", _absence("mvn"), "apt-get install -y maven", otherwise)
    version = _version(found[found.find("Apache Maven") :] if "Apache Maven" in found else "")
    if not version or version >= MAVEN_MIN:
        return None
    return Missing("Maven 3.6.3 or newer", f"Maven {_dotted(version)}", "apt-get install -y maven", otherwise)


def _loopback() -> Optional[Missing]:  # noqa: UP045
    """Try what Kafka (TCP) and WebRTC (UDP) need: a byte from 127.0.0.1 to itself."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.bind((_LOOPBACK, 0))
            server.listen(1)
            with socket.create_connection(server.getsockname(), _SOCKET_TIMEOUT_S):
                pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_SOCKET_TIMEOUT_S)
            sock.bind((_LOOPBACK, 0))
            sock.sendto(b"?", sock.getsockname())
            sock.recv(1)
    except OSError as error:
        up = "ip link set lo up"
        return Missing(
            f"loopback ({_LOOPBACK})", str(error), up, "let local connections through the firewall or sandbox"
        )
    return None


def _disk(place: Path) -> Optional[Missing]:  # noqa: UP045
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    free_gb = shutil.disk_usage(str(there)).free / 1e9
    if free_gb >= DISK_FREE_MIN_GB:
        return None
    name = f"{DISK_FREE_MIN_GB} GB of free disk space"
    return Missing(
        name, f"{free_gb:.1f} GB free in {there}", f"df -h {there}", "or set DIALER_CACHE_DIR to a larger disk"
    )


def _output(command: List[str], timeout_s: float = COMMAND_TIMEOUT_S) -> Optional[str]:  # noqa: UP006, UP045
    """Return what a command prints; None if it is not there or fails; "" if it takes too long, which proves nothing."""
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    except OSError:
        return None
    return ran.stdout.decode(errors="replace") if ran.returncode == 0 else None


def _runs(program: str) -> bool:
    # A pyenv shim is on the PATH whether or not its Python is chosen: only running it tells.
    return shutil.which(program) is not None and bool(
        _output([program, "-c", "import ensurepip; print(1)"], TRIAL_TIMEOUT_S)
    )


def _absence(program: str) -> str:
    where = shutil.which(program)
    return f"{where} does not run (try it by hand)" if where else "not on the PATH"


def _version(text: str) -> Version:
    """Return the first version in a text, () if there is none. Java 8 calls itself 1.8, which compares as it should."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def report(missing: List[Missing], say: Callable[[str], None] = print) -> int:  # noqa: UP006
    """Say what is missing, three lines each; return the exit code."""
    for one in missing:
        say(f"missing: {one.name} ({one.found})")
        say(f"    Debian, Ubuntu:  {one.install}")
        say(f"    elsewhere:       {one.otherwise}")
    say("nothing was downloaded yet; install these, then run it again" if missing else "prerequisites: all there")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(report(check()))
