"""The store in SQLite: the embedded default. One connection and thread write, another reads beside it (WAL).

`synchronous=NORMAL`: a power cut may undo the last transactions, but rows and positions together, and the log gives
them again; FULL would buy nothing but a wait for the disk at every batch. Source: sqlite.org/wal.html; design §7.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import orjson

from projections import sqlite_tables as tables
from projections.errors import StoreUnusable
from projections.store import TIMELINE_MAX, Change, ModelName, PageKey, Side, Superseded
from schemas.outcomes import Status
from schemas.responses import CallView, EventView

BUSY_TIMEOUT_S: Final = 30.0
"""How long a transaction waits for another process's (a rebuild's) to end; each of them is one batch long."""
MEMORY: Final = ":memory:"
_OUTSIDE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""Primary result codes of failures from outside; any other is a bug of ours."""
T = TypeVar("T")


class SqliteStore:
    """The port `projections.store.Store` on a file, or on memory for tests."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._write_thread = ThreadPoolExecutor(1, "sqlite-write")
        self._read_thread = ThreadPoolExecutor(1, "sqlite-read") if path != MEMORY else self._write_thread
        self.db: sqlite3.Connection
        self._read_db: sqlite3.Connection

    @classmethod
    async def open(cls, path: str) -> SqliteStore:
        """Open the database, and make its tables where there are none. Raises: StoreUnusable."""
        store = cls(path)
        try:
            await store._in(store._write_thread, store._connect)
        except BaseException:
            await store.close()
            raise
        return store

    def _connect(self) -> None:
        if self._path != MEMORY:
            try:
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnusable(f"the directory of {self._path} cannot be made ({error.strerror})") from None
        self.db = self._connection()
        self._read_db = self.db if self._path == MEMORY else self._connection()
        if self._path != MEMORY:
            self.db.execute("PRAGMA journal_mode = WAL")
        with self._transaction() as db:
            self._make(db)

    def _connection(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -65536")
        return db

    def _make(self, db: sqlite3.Connection) -> None:
        for statement in tables.FIXED.split(";"):
            if statement.strip():
                db.execute(statement)
        found = db.execute("SELECT version FROM schema_version").fetchone()
        if found is None:
            db.execute("INSERT INTO schema_version VALUES (?)", (tables.SCHEMA_VERSION,))
        elif found[0] != tables.SCHEMA_VERSION:
            raise StoreUnusable(
                f"{self._path} has tables of version {found[0]}, this program makes version {tables.SCHEMA_VERSION}; "
                "move the file away: everything in it is made again from the log"
            )
        for model in ModelName:
            made = db.execute("INSERT OR IGNORE INTO models VALUES (?, 1, 1)", (model.value,)).rowcount
            if made:
                tables.make_generation(db, model, 1)

    async def close(self) -> None:
        """Let go of the file; a batch that is being written ends first."""
        for name in ("_read_db", "db"):
            connection = getattr(self, name, None)
            if connection is not None:
                thread = self._read_thread if name == "_read_db" else self._write_thread
                await self._in(thread, connection.close)
        self._write_thread.shutdown(wait=False)
        self._read_thread.shutdown(wait=False)

    # The writer's side.

    async def positions(self, model: ModelName, side: Side) -> dict[int, int]:
        """Return the model's positions on the log."""
        return await self._writing(lambda: self._positions(model, self._generation(self.db, model, side)))

    async def calls(self, side: Side, call_ids: Iterable[str]) -> dict[str, CallView]:
        """Return the rows of these calls."""
        wanted = orjson.dumps(list(call_ids)).decode()
        return await self._writing(lambda: self._calls(side, wanted))

    def _calls(self, side: Side, wanted: str) -> dict[str, CallView]:
        select = tables.SELECT_CALLS_BY_ID.format(g=self._generation(self.db, ModelName.CALL_STATUS, side))
        rows = self.db.execute(select, (wanted,))
        return {row[0]: tables.call_view(row) for row in rows}

    async def write(self, side: Side, change: Change) -> None:
        """Write a batch and its positions in one transaction. Raises: Superseded."""
        await self._writing(lambda: self._write(side, change))

    def _write(self, side: Side, change: Change) -> None:
        with self._transaction() as db:
            generation = self._generation(db, change.model, side)
            stands = self._positions(change.model, generation)
            if any(stands.get(partition, 0) != start for partition, (start, _) in change.moves.items()):
                raise Superseded
            if change.calls:
                db.executemany(tables.UPSERT_CALL.format(g=generation), map(tables.call_row, change.calls))
            if change.events:
                db.executemany(tables.INSERT_EVENT.format(g=generation), map(tables.event_row, change.events))
            moved = [(change.model.value, generation, p, end) for p, (_, end) in change.moves.items()]
            db.executemany(tables.UPSERT_POSITION, moved)

    async def begin_rebuild(self, model: ModelName) -> None:
        """Make the next generation's empty tables."""
        await self._writing(lambda: self._begin_rebuild(model))

    def _begin_rebuild(self, model: ModelName) -> None:
        with self._transaction() as db:
            live, following = db.execute("SELECT live, next FROM models WHERE model = ?", (model.value,)).fetchone()
            if following != live:
                tables.drop_generation(db, model, following)
            db.execute("UPDATE models SET next = ? WHERE model = ?", (max(live, following) + 1, model.value))
            tables.make_generation(db, model, max(live, following) + 1)

    async def swap(self, model: ModelName, behind_max: int) -> bool:
        """Make the next generation the live one."""
        return await self._writing(lambda: self._swap(model, behind_max))

    def _swap(self, model: ModelName, behind_max: int) -> bool:
        with self._transaction() as db:
            live, following = db.execute("SELECT live, next FROM models WHERE model = ?", (model.value,)).fetchone()
            assert live != following, "a swap follows begin_rebuild"
            before, after = self._positions(model, live), self._positions(model, following)
            if any(after.get(partition, 0) + behind_max < position for partition, position in before.items()):
                return False
            db.execute("UPDATE models SET live = next WHERE model = ?", (model.value,))
            tables.drop_generation(db, model, live)
            return True

    # The reader's side.

    async def call(self, call_id: str) -> CallView | None:
        """Return one call."""
        found = await self._reading(lambda: self._page(" WHERE call_id = ?", (call_id,)))
        return found[0] if found else None

    async def timeline(self, call_id: str) -> list[EventView]:
        """Return a call's records in order."""
        return await self._reading(lambda: self._timeline(call_id))

    def _timeline(self, call_id: str) -> list[EventView]:
        with self._snapshot() as db:
            select = tables.SELECT_TIMELINE.format(g=self._generation(db, ModelName.TIMELINE, Side.LIVE))
            return [tables.event_view(row) for row in db.execute(select, (call_id, TIMELINE_MAX))]

    async def page(
        self, *, campaign_id: str | None, status: Status | None, after: PageKey | None, limit: int
    ) -> list[CallView]:
        """Return calls newest first."""
        place = (tables.microseconds(after.requested_at), after.call_id) if after else ()
        conditions = (
            ("campaign_id = ?", (campaign_id,) if campaign_id is not None else ()),
            ("status = ?", (status.value,) if status is not None else ()),
            ("(listed_us, call_id) < (?, ?)", place),
        )
        where = " AND ".join(text for text, values in conditions if values)
        values = tuple(value for _, values in conditions for value in values)
        clause = (f" WHERE {where}" if where else "") + " ORDER BY listed_us DESC, call_id DESC LIMIT ?"
        return await self._reading(lambda: self._page(clause, (*values, limit)))

    def _page(self, clause: str, values: tuple[object, ...]) -> list[CallView]:
        with self._snapshot() as db:
            select = tables.SELECT_CALLS.format(g=self._generation(db, ModelName.CALL_STATUS, Side.LIVE))
            return [tables.call_view(row) for row in db.execute(select + clause, values)]

    # Threads and transactions.

    @staticmethod
    def _generation(db: sqlite3.Connection, model: ModelName, side: Side) -> int:
        live, following = db.execute("SELECT live, next FROM models WHERE model = ?", (model.value,)).fetchone()
        generation: int = live if side is Side.LIVE else following
        return generation

    def _positions(self, model: ModelName, generation: int) -> dict[int, int]:
        return dict(self.db.execute(tables.SELECT_POSITIONS, (model.value, generation)).fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read generation and rows of one moment, so that a swap between the two is not seen."""
        self._read_db.execute("BEGIN")
        try:
            yield self._read_db
        finally:
            self._read_db.execute("COMMIT")

    async def _writing(self, work: Callable[[], T]) -> T:
        return await self._in(self._write_thread, work)

    async def _reading(self, work: Callable[[], T]) -> T:
        return await self._in(self._read_thread, work)

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _OUTSIDE:
                raise
            raise StoreUnusable(f"SQLite at {self._path}: {error}; check the disk and DIALER_STORE_PATH") from error
