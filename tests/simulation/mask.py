"""`python -m tests.simulation.mask RUN_DIR > trace.jsonl`: the log of a real run, read off its broker's files, masked.

Segments of `dialer.events` are read as a read_committed consumer reads them. What is sealed is dropped, numbers are
struck out: a trace holds pseudonyms, names of events and figures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka.record.memory_records import MemoryRecords

ABORT: Final = 0
SEALED: Final = frozenset({"to", "variables", "message", "words", "text", "digit"})
STRUCK: Final = frozenset({"caller_id", "body_hash"})
MASK: Final = {"key": "masked", "box": ""}
KEPT: Final = ("type", "source", "id", "time", "sequence", "causationid", "subject")
"""Attributes of the envelope that the model reads, and those a reader of a trace wants."""


def committed(segment: bytes) -> Iterator[bytes]:
    """Return the committed values of a segment, in order."""
    records = MemoryRecords(segment)
    read: list[tuple[int, bytes]] = []
    open_of: dict[int, list[int]] = {}
    aborted: set[int] = set()
    while (batch := records.next_batch()) is not None:
        producer = batch.producer_id
        if batch.is_control_batch:
            marker = next(iter(batch))
            if marker.key is not None and int.from_bytes(marker.key[2:4], "big") == ABORT:
                aborted.update(open_of.get(producer, ()))
            open_of.pop(producer, None)
            continue
        for record in batch:
            open_of.setdefault(producer, []).append(len(read))
            read.append((producer, record.value or b""))
    still_open = {n for numbers in open_of.values() for n in numbers}
    yield from (value for n, (_, value) in enumerate(read) if n not in aborted | still_open)


def masked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what is sealed and strike numbers out."""
    data = dict(record["data"])
    data |= {k: MASK for k in SEALED if data.get(k) is not None} | {k: "masked" for k in STRUCK if k in data}
    return {k: record[k] for k in KEPT if k in record} | {"data": data}


def main() -> None:
    log = Path(sys.argv[1]) / "kafka" / "log"
    for segment in sorted(log.glob("dialer.events-*/*.log")):
        for value in committed(segment.read_bytes()):
            sys.stdout.buffer.write(orjson.dumps(masked(orjson.loads(value))) + b"\n")


if __name__ == "__main__":
    main()
