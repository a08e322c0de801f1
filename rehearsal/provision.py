"""Fetches and builds, once, what the rehearsal runs: Kafka by Maven; livekit-server and fake-gcs-server by Go.

Standard library only. Everything goes to the cache (`prerequisites.cache_dir`). Each part is made in a directory of its own beside its place
and moved there when it is whole, with `complete.json` written last: what an interrupted download left is never used.
`python -m rehearsal.provision` does it from the command line; a second run does nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rehearsal.prerequisites import cache_dir, check, report

LIVEKIT_VERSION: Final = "v1.13.5"
LIVEKIT_PACKAGE: Final = "github.com/livekit/livekit-server/cmd/server"
GCS_VERSION: Final = "v1.56.1"
GCS_PACKAGE: Final = "github.com/fsouza/fake-gcs-server"
POM: Final = Path(__file__).resolve().parent / "pom.xml"
PROGRESS_S: Final = 4.0
ATTEMPTS_MAX: Final = 2
PART_TIMEOUT_S: Final = 1_800.0
TAIL_LINES: Final = 25
_MARKER: Final = "complete.json"
_MIB: Final = 1024 * 1024

Say = Callable[[str], None]


class ProvisionFailed(Exception):
    """A part could not be fetched or built; the text has the tool's last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisions:
    """Where the parts are: the directory of Kafka's jars, the binaries of livekit-server and of fake-gcs-server."""

    jars: Path
    livekit: Path
    gcs: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing to make: `version` decides whether what is there still serves; `argv` and `env` get the target."""

    name: str
    version: str
    duration: str
    proof: str
    argv: Callable[[Path], Sequence[str]]
    env: Callable[[Path], Mapping[str, str]] = field(default=lambda _: {})
    finish: Callable[[Path], None] = field(default=lambda _: None)


def kafka_part() -> Part:
    """Return the broker's part; its version is the content of pom.xml."""
    return Part(
        name="kafka",
        version=hashlib.sha256(POM.read_bytes()).hexdigest()[:16],
        duration="about 15 s",
        proof="jars/kafka_2.13-*.jar",
        argv=lambda target: [
            *("mvn", "-B", "-f", str(POM), "dependency:copy-dependencies"),
            *(f"-DoutputDirectory={target / 'jars'}", "-DincludeScope=runtime"),
        ],
    )


def livekit_part() -> Part:
    """Return livekit-server's part."""
    return Part(
        name="livekit-server",
        version=LIVEKIT_VERSION,
        duration="about 3 minutes",
        proof="livekit-server",
        argv=lambda _: ["go", "install", "-v", f"{LIVEKIT_PACKAGE}@{LIVEKIT_VERSION}"],
        env=_go,
        finish=_name_livekit,
    )


def gcs_part() -> Part:
    """Return the part of the Cloud Storage server that recordings go to."""
    return Part(
        name="fake-gcs-server",
        version=GCS_VERSION,
        duration="about a minute",
        proof="fake-gcs-server",
        argv=lambda _: ["go", "install", "-v", f"{GCS_PACKAGE}@{GCS_VERSION}"],
        env=_go,
    )


def _go(target: Path) -> Mapping[str, str]:
    """Return Go's settings: a workspace or a cross-compiling environment of the user's must not change what is built."""
    return {"GOBIN": str(target), "GOWORK": "off", "GOOS": "", "GOARCH": "", "GO111MODULE": "on"}


def _name_livekit(target: Path) -> None:
    """Give the binary its name: `go install` names it after its folder."""
    (target / "server").rename(target / "livekit-server")


def provision(say: Say = print, cache: Path | None = None) -> Provisions:
    """Make sure that everything is in the cache, and return where. Fast when it is.

    Raises: ProvisionFailed.
    """
    root = cache or cache_dir()
    kafka, livekit, gcs = kafka_part(), livekit_part(), gcs_part()
    for part in (kafka, livekit, gcs):
        if not is_complete(part, root):
            with _locked(root, say):
                if not is_complete(part, root):  # another run may have made it while we waited
                    _make(part, root, say)
    return Provisions(
        jars=place(kafka, root) / "jars",
        livekit=place(livekit, root) / "livekit-server",
        gcs=place(gcs, root) / "fake-gcs-server",
    )


def place(part: Part, root: Path) -> Path:
    """Return the directory of a finished part."""
    return root / f"{part.name}-{part.version}"


def is_complete(part: Part, root: Path) -> bool:
    """Tell whether a part is there, whole, and of the right version."""
    try:
        marker = json.loads((place(part, root) / _MARKER).read_text())
    except (OSError, ValueError):
        return False
    return marker == _marker(part) and any(place(part, root).glob(part.proof))


def _marker(part: Part) -> dict[str, str]:
    return {"name": part.name, "version": part.version}


def _make(part: Part, root: Path, say: Say) -> None:
    began = time.monotonic()
    target = root / f"{part.name}.partial"
    say(f"{part.name}: fetching ({part.duration}, once; kept in {root})")
    for attempt in range(1, ATTEMPTS_MAX + 1):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        code, tail = _run(part, target, say)
        if code == 0:
            break
        if attempt == ATTEMPTS_MAX:
            shutil.rmtree(target, ignore_errors=True)
            words = "\n".join(f"    {line}" for line in tail) or "    (it said nothing)"
            raise ProvisionFailed(f"{part.name}: `{part.argv(target)[0]}` failed ({code}); it said last:\n{words}")
        say(f"{part.name}: failed ({code}), trying once more: {tail[-1] if tail else ''}")
    part.finish(target)
    if not any(target.glob(part.proof)):
        raise ProvisionFailed(f"{part.name}: {part.argv(target)[0]} ended well, but made no {part.proof}")
    (target / _MARKER).write_text(json.dumps(_marker(part)))
    shutil.rmtree(place(part, root), ignore_errors=True)
    target.replace(place(part, root))
    say(f"{part.name}: ready after {time.monotonic() - began:.0f} s")


def _run(part: Part, target: Path, say: Say) -> tuple[int | str, list[str]]:
    """Run a part's tool with a line of progress at least every 5 s; return its code (or why not) and last lines."""
    argv = part.argv(target)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **part.env(target)},
            cwd=target,
        )
    except OSError as error:
        return f"{argv[0]}: {error.strerror}", []
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: tail.extend(line.rstrip() for line in lines), daemon=True)
    reader.start()
    began = time.monotonic()
    code: int | str | None = None
    try:
        while code is None:
            try:
                code = process.wait(PROGRESS_S)
            except subprocess.TimeoutExpired:
                passed_s = time.monotonic() - began
                say(f"{part.name}: [{passed_s:3.0f} s] {_size_mib(target):.0f} MiB; {_short(tail)}")
                if passed_s > PART_TIMEOUT_S:
                    code = f"stopped after {passed_s:.0f} s"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    reader.join(PROGRESS_S)
    if not reader.is_alive():  # else a child of the tool holds the pipe, and closing would wait for it
        lines.close()
    return code, list(tail)


def _short(tail: deque[str]) -> str:
    """Return the last thing said, without the address it came from."""
    words = [word for word in (tail[-1] if tail else "").split() if "://" not in word]
    return " ".join(words)[:80] or "working"


def _size_mib(directory: Path) -> float:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # a temporary file, gone meanwhile
            continue
    return total / _MIB


@contextmanager
def _locked(root: Path, say: Say) -> Iterator[None]:
    """Let one run at a time fill a cache; the kernel frees the lock when a run dies."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited_s = time.monotonic() - began
                if waited_s > PART_TIMEOUT_S:
                    raise ProvisionFailed(f"another run has held {root / 'lock'} for {waited_s:.0f} s") from None
                say(f"waiting for another run that fills {root}: [{waited_s:3.0f} s]")
                time.sleep(PROGRESS_S)
        yield


def main() -> int:
    """Check, then fetch; return the exit code."""
    missing = check()
    if missing:
        return report(missing)
    try:
        found = provision(lambda line: print(line, flush=True))
    except ProvisionFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"kafka: {found.jars}\nlivekit-server: {found.livekit}\nfake-gcs-server: {found.gcs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
