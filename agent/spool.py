"""Facts that Kafka does not have yet, on disk: one sealed file a job, which outlives the process that wrote it.

A file is a line that names its key, then a box a line (AES-GCM under `BRIEF_KEY`, the only key that a worker which was
started again holds, too); what a death cut off in the middle of a line is no box, and is left out. Who writes a file
holds its lock. A lock that can be had belonged to a process that is gone: whoever has it ships the file and deletes it.
A fact may be shipped twice for that; its id and number are its own, and the owner counts it once. Source: design §6.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Final

import orjson

from agent.wire import Hello, Told, read_hello, read_line
from runtime.clock import Clock
from runtime.metrics import BOUND, FILL
from runtime.seal import DataKey, SealBroken, data_key, open_value
from runtime.settings import Settings, brief_keys
from schemas.facts import (
    AgentCrashed,
    CalleeStatus,
    CallTransferred,
    ConversationEnded,
    NotificationDelivered,
    OptOutHeard,
    VoicemailLeft,
)
from schemas.values import Sealed

SUFFIX: Final = ".spool"
UNFINISHED_SUFFIX: Final = ".new"
"""A file's name until its first facts are safe in it."""
UNFINISHED_AGE_S: Final = 60.0
NAME_BYTES: Final = 16
VERSION: Final = 1


class Worth(IntEnum):
    """What a fact is worth when there is no room for all; renewals of readiness are worth no disk at all."""

    LEAST = 0
    ORDINARY = 1
    KEPT = 2
    """Never dropped, not even by a full spool: without it somebody would be rung again, or a call would hang."""


_KEPT: Final = frozenset(
    fact.TYPE
    for fact in (
        OptOutHeard,
        ConversationEnded,
        AgentCrashed,
        NotificationDelivered,
        VoicemailLeft,
        CallTransferred,
        CalleeStatus,
    )
)
_LEAST: Final = frozenset({"agent.fact.turn_taken.v1"})
"""By far the most facts of a conversation (issue S3)."""
_SHARE: Final = {Worth.LEAST: 0.5, Worth.ORDINARY: 1.0, Worth.KEPT: float("inf")}
"""How full the spool may be for a fact of that worth."""


def worth_of(fact: Told) -> Worth:
    """Return what a fact is worth."""
    if fact.type in _KEPT:
        return Worth.KEPT
    return Worth.LEAST if fact.type in _LEAST else Worth.ORDINARY


class SpoolFailed(Exception):
    """The disk did not take it: what was to be written is not safe. The text is the system's reason."""


class SpoolUnreadable(Exception):
    """A file whose key is not held, or that is none of ours; it is left where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One fact in the spool, and whose."""

    hello: Hello
    fact: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of a whole directory; `age_max` is how long a fact that is not kept is worth shipping."""

    bytes_max: int
    files_max: int
    age_max: timedelta


class SpoolFile:
    """One job's file, locked for as long as it is open."""

    def __init__(self, path: Path, descriptor: int, name: str, key: DataKey, clock: Clock, size: int) -> None:
        self._path, self._descriptor, self._name, self._key, self._clock = path, descriptor, name, key, clock
        self._size = size
        self._count = 0
        self._open = True
        self._writing = threading.Lock()

    def append(self, entries: Sequence[Entry]) -> None:
        """Write facts and wait until the disk has them. Raises: SpoolFailed; the file then is as it was before."""
        with self._writing:
            if not self._open:
                raise SpoolFailed("closed")
            boxes = [self._box(self._count + place, entry) for place, entry in enumerate(entries)]
            raw = b"".join(boxes) if self._count else b"".join([self._header(), *boxes])
            try:
                self._write(raw)
                if self._count == 0:
                    self._publish()
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
                raise SpoolFailed(os.strerror(error.errno or 0)) from None
            self._size += len(raw)
            self._count += len(entries)

    def entries(self) -> tuple[list[Entry], int]:
        """Return the facts in their order, and how many boxes are broken. A torn end is neither."""
        raw = _whole(self._descriptor)
        boxes = raw.split(b"\n")[1:-1]
        found = [self._opened(place, box) for place, box in enumerate(boxes)]
        good = [entry for entry in found if entry is not None]
        return good, len(found) - len(good)

    def delete(self) -> None:
        """Remove the file: all of it was shipped."""
        with self._writing:
            if self._open:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
                self._shut()

    def close(self) -> None:
        """Leave the file to whoever comes next."""
        with self._writing:
            if self._open:
                self._shut()

    def _shut(self) -> None:
        self._open = False
        if self._path.suffix == UNFINISHED_SUFFIX:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _header(self) -> bytes:
        return orjson.dumps({"v": VERSION, "key": self._key.key_id, "name": self._name}) + b"\n"

    def _box(self, place: int, entry: Entry) -> bytes:
        plain = orjson.dumps({"hello": entry.hello, "fact": entry.fact})
        return self._key.seal(plain, self._place(place), self._clock.random_bytes).box.encode() + b"\n"

    def _opened(self, place: int, box: bytes) -> Entry | None:
        try:
            plain = open_value(self._key, Sealed(key=self._key.key_id, box=box.decode("ascii")), self._place(place))
        except (SealBroken, UnicodeDecodeError):
            return None
        return None if plain is None else Entry(hello=read_hello(plain), fact=_fact(plain))

    def _place(self, place: int) -> bytes:
        return f"spool.v{VERSION}|{self._name}|{place}".encode()

    def _write(self, raw: bytes) -> None:
        at = self._size
        while raw:
            written = os.pwrite(self._descriptor, raw, at)
            at, raw = at + written, raw[written:]
        os.fsync(self._descriptor)

    def _publish(self) -> None:
        """Give the file its name, now that it holds something: a name without content is never seen."""
        published = self._path.with_suffix(SUFFIX)
        self._path.rename(published)
        self._path = published
        _sync_directory(published.parent)


class Spool:
    """A directory of such files, shared by the workers of a machine."""

    def __init__(self, directory: Path, keys: dict[str, bytes], bounds: Bounds, clock: Clock) -> None:
        self._directory, self._bounds, self._clock = directory, bounds, clock
        self._keys = {name: data_key(name, secret) for name, secret in keys.items()}
        self._first = next(iter(self._keys.values()))

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Spool:
        """Return the spool of the settings. Raises: SettingsError."""
        bounds = Bounds(
            bytes_max=settings.agent_spool_bytes_max,
            files_max=settings.agent_spool_files_max,
            age_max=timedelta(hours=settings.agent_spool_age_max_h),
        )
        return cls(Path(settings.agent_spool_dir), brief_keys(settings.brief_key), bounds, clock)

    def prepare(self) -> None:
        """Make the directory and try it. Raises: SpoolFailed."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._directory.glob(f"*{UNFINISHED_SUFFIX}"):
                if time.time() - path.stat().st_mtime > UNFINISHED_AGE_S:
                    path.unlink(missing_ok=True)
            probe = self._directory / f"{self._new_name()}.probe"
            probe.touch(mode=0o600, exist_ok=False)
            probe.unlink()
        except OSError as error:
            raise SpoolFailed(os.strerror(error.errno or 0)) from None

    def measure(self) -> None:
        """Let the metrics show how full the directory is, and how old its oldest file."""
        for what, bound in (("bytes", self._bounds.bytes_max), ("files", self._bounds.files_max)):
            BOUND.labels(f"agent_spool_{what}").set(bound)
        BOUND.labels("agent_spool_age_seconds").set(self._bounds.age_max.total_seconds())
        FILL.labels("agent_spool_bytes").set_function(lambda: self._usage()[0])
        FILL.labels("agent_spool_files").set_function(lambda: self._usage()[1])
        FILL.labels("agent_spool_age_seconds").set_function(lambda: self._usage()[2])

    def fullness(self) -> float:
        """Return how full the directory is: 1 and more is full, by bytes or by files."""
        size, files, _ = self._usage()
        return max(size / self._bounds.bytes_max, files / self._bounds.files_max)

    def takes(self, facts: Sequence[Told]) -> list[Told]:
        """Return those of some facts for which there is room."""
        fullness = self.fullness()
        return [fact for fact in facts if fullness < _SHARE[worth_of(fact)]]

    def is_outdated(self, fact: Told) -> bool:
        """Tell whether nobody would take a fact any more: the owner counts late ones for a day."""
        return worth_of(fact) is not Worth.KEPT and fact.time + self._bounds.age_max < self._clock.now()

    def begin(self) -> SpoolFile:
        """Start a file; it is there once it has its first facts. Raises: SpoolFailed."""
        name = self._new_name()
        path = self._directory / f"{name}{UNFINISHED_SUFFIX}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SpoolFailed(os.strerror(error.errno or 0)) from None
        return SpoolFile(path, descriptor, name, self._first, self._clock, 0)

    def left(self) -> Iterator[Path]:
        """Return all files, oldest first; most are somebody's."""
        dated = []
        for path in self._directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                dated.append((path.stat().st_mtime, path))
        return (path for _, path in sorted(dated))

    def claim(self, path: Path) -> SpoolFile | None:
        """Take a file that nobody holds; None for one that somebody does, or that is gone. Raises: SpoolUnreadable."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            if not _locked(descriptor):
                os.close(descriptor)
                return None
            name, key = self._named(descriptor)
        except SpoolUnreadable:
            os.close(descriptor)
            raise
        return SpoolFile(path, descriptor, name, key, self._clock, 0)

    def _named(self, descriptor: int) -> tuple[str, DataKey]:
        try:
            header = orjson.loads(_whole(descriptor).split(b"\n", 1)[0])
            return str(header["name"]), self._keys[header["key"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise SpoolUnreadable("its key is not held, or it is no spool") from None

    def _usage(self) -> tuple[int, int, float]:
        size, files, oldest = 0, 0, time.time()
        for path in self._directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                size, files, oldest = size + status.st_size, files + 1, min(oldest, status.st_mtime)
        return size, files, time.time() - oldest if files else 0.0

    def _new_name(self) -> str:
        return self._clock.random_bytes(NAME_BYTES).hex()


def _fact(plain: bytes) -> Told:
    fact = read_line(plain)
    assert fact is not None, "only facts are spooled"
    return fact


def _locked(descriptor: int) -> bool:
    """Take the lock of a file that is still there: its last holder may have deleted it after we opened it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def _whole(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
