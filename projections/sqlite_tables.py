"""The read models' tables in SQLite: their making, their rows, their statements. Each model has one set a generation.

Instants are whole microseconds since 1970, UTC, so that order in the index is order in time. The database is a cache
of the log: another version of the tables is refused, and a rebuild, not a migration, is the way over.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from projections.call_status import CALL_FIELDS
from projections.store import ModelName
from projections.timeline import TimelineRow
from schemas.outcomes import Status
from schemas.responses import CallView, EventView

SCHEMA_VERSION: Final = 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_INSTANTS: Final = frozenset({"requested_at", "updated_at", "ended_at", "answered_at", "next_at"})
_COLUMNS: Final = tuple(f"{name[:-3]}_us" if name in _INSTANTS else name for name in CALL_FIELDS)

FIXED: Final = """
CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS models (model TEXT PRIMARY KEY, live INTEGER NOT NULL, next INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
  model TEXT NOT NULL, generation INTEGER NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (model, generation, partition)
) WITHOUT ROWID;
"""

_CALL_STATUS: Final = """
CREATE TABLE call_status_{g} (
  call_id TEXT PRIMARY KEY, campaign_id TEXT, request_id TEXT, status TEXT NOT NULL, outcome TEXT, attribution TEXT,
  attempts INTEGER NOT NULL, dials INTEGER NOT NULL, requested_us INTEGER, updated_us INTEGER NOT NULL,
  ended_us INTEGER, answered_us INTEGER, next_us INTEGER, sip_status INTEGER, sequence INTEGER NOT NULL,
  listed_us INTEGER GENERATED ALWAYS AS (coalesce(requested_us, 0)) STORED
) WITHOUT ROWID;
CREATE INDEX call_status_{g}_newest ON call_status_{g} (listed_us, call_id);
CREATE INDEX call_status_{g}_campaign ON call_status_{g} (campaign_id, listed_us, call_id);
CREATE INDEX call_status_{g}_status ON call_status_{g} (status, listed_us, call_id);
"""
_TIMELINE: Final = """
CREATE TABLE timeline_{g} (
  call_id TEXT NOT NULL, sequence INTEGER NOT NULL, at_us INTEGER NOT NULL, type TEXT NOT NULL, source TEXT NOT NULL,
  id TEXT NOT NULL, cause TEXT, data TEXT NOT NULL, PRIMARY KEY (call_id, sequence)
) WITHOUT ROWID;
"""
_MAKING: Final = {ModelName.CALL_STATUS: _CALL_STATUS, ModelName.TIMELINE: _TIMELINE}

SELECT_CALLS: Final = f"SELECT {', '.join(_COLUMNS)} FROM call_status_{{g}}"  # noqa: S608
SELECT_CALLS_BY_ID: Final = SELECT_CALLS + " WHERE call_id IN (SELECT value FROM json_each(?))"  # noqa: S608
UPSERT_CALL: Final = (
    f"INSERT INTO call_status_{{g}} ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    f"ON CONFLICT (call_id) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _COLUMNS[1:])}"
)
SELECT_TIMELINE: Final = "SELECT sequence, at_us, type, source, id, cause, data FROM timeline_{g} WHERE call_id = ? ORDER BY sequence LIMIT ?"
INSERT_EVENT: Final = "INSERT OR IGNORE INTO timeline_{g} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
SELECT_POSITIONS: Final = "SELECT partition, position FROM positions WHERE model = ? AND generation = ?"
UPSERT_POSITION: Final = (
    "INSERT INTO positions VALUES (?, ?, ?, ?) "
    "ON CONFLICT (model, generation, partition) DO UPDATE SET position = excluded.position"
)


def make_generation(db: sqlite3.Connection, model: ModelName, generation: int) -> None:
    """Make a model's empty tables of one generation, within the open transaction."""
    for statement in _MAKING[model].format(g=generation).split(";"):
        if statement.strip():
            db.execute(statement)


def drop_generation(db: sqlite3.Connection, model: ModelName, generation: int) -> None:
    """Drop a model's tables and positions of one generation, within the open transaction."""
    db.execute(f"DROP TABLE IF EXISTS {model.value}_{generation}")
    db.execute("DELETE FROM positions WHERE model = ? AND generation = ?", (model.value, generation))


def microseconds(at: datetime | None) -> int | None:
    """Write an instant."""
    return None if at is None else (at - EPOCH) // _US


def instant(us: int | None) -> datetime | None:
    """Read an instant."""
    return None if us is None else EPOCH + timedelta(microseconds=us)


def call_row(call: CallView) -> tuple[Any, ...]:
    """Write a row of `call_status`."""
    return (
        call.call_id,
        call.campaign_id,
        call.request_id,
        call.status.value,
        call.outcome,
        call.attribution,
        call.attempts,
        call.dials,
        microseconds(call.requested_at),
        microseconds(call.updated_at),
        microseconds(call.ended_at),
        microseconds(call.answered_at),
        microseconds(call.next_at),
        call.sip_status,
        call.sequence,
    )


def call_view(row: tuple[Any, ...]) -> CallView:
    """Read a row of `call_status`."""
    fields: dict[str, Any] = dict(zip(CALL_FIELDS, row, strict=True))
    fields["status"] = Status(fields["status"])
    for name in _INSTANTS:
        fields[name] = instant(fields[name])
    return CallView(**fields)


def event_row(row: TimelineRow) -> tuple[Any, ...]:
    """Write a row of `timeline`."""
    data = orjson.dumps(row.data).decode()
    return row.call_id, row.sequence, (row.at - EPOCH) // _US, row.type, row.source, row.id, row.cause, data


def event_view(row: tuple[Any, ...]) -> EventView:
    """Read a row of `timeline`."""
    sequence, at_us, type_name, source, record_id, cause, data = row
    return EventView(
        sequence=sequence,
        at=EPOCH + timedelta(microseconds=at_us),
        type=type_name,
        source=source,
        id=record_id,
        cause=cause,
        data=orjson.loads(data),
    )
