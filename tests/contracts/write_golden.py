"""Writes golden records of types that have none yet: `python -m tests.contracts.write_golden`. Never overwrites one.

A golden record is what stood on somebody's log. It is written once, when its type and version are shipped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson

from dialer.records import encode_snapshot, offsets_record
from runtime.seal import BriefBox, MasterKey, aad, data_key
from schemas.envelope import Envelope, encode
from schemas.events import CallRequested
from tests.contracts import golden_payloads as g

GOLDEN = Path(__file__).parent / "golden"


def record(name: str) -> bytes:
    """Return a whole record of today's version, or of a later generation of its type."""
    type_name = name.partition("+")[0]
    logged = type_name.startswith(("dialer.event.", "agent.fact."))
    return encode(
        Envelope(
            type=type_name,
            source="/golden",
            id=f"golden/{type_name}",
            time=g.AT,
            subject=g.CALL,
            sequence="000000000041" if logged else None,
            causationid="dialer.commands/3/17" if logged else None,
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            data=(g.PAYLOADS | g.SECOND)[name],
        )
    )


def sealed() -> bytes:
    """Return a sealed value with where it belongs."""
    box = data_key("1", g.SECRET).seal(b"+12125550123", aad(g.CALLEE, CallRequested.TYPE, "to"), os.urandom)
    return orjson.dumps({"callee_key": g.CALLEE, "type": CallRequested.TYPE, "field": "to", "sealed": box})


def files() -> dict[str, bytes]:
    """Return every golden file of today's version."""
    others = {
        "snapshot.v1": encode_snapshot(g.SNAPSHOT),
        "snapshot.v1+2": encode_snapshot(g.SNAPSHOT_2),
        "snapshot.v1+3": encode_snapshot(g.SNAPSHOT_2),
        "offsets.v1": offsets_record(3, g.OFFSETS).value or b"",
        "sealed.v1": sealed(),
        "data_key.v1": MasterKey(g.SECRET).wrap(g.CALLEE, data_key("1", g.SECRET), os.urandom),
        "brief.v1": orjson.dumps(BriefBox({"b1": g.SECRET}).seal(g.BRIEF, os.urandom)),
        "brief.v1+2": orjson.dumps(BriefBox({"b1": g.SECRET}).seal(g.BRIEF_2, os.urandom)),
    }
    return {name: record(name) for name in g.PAYLOADS | g.SECOND} | others


def main() -> int:
    """Write what is missing, and say so."""
    GOLDEN.mkdir(exist_ok=True)
    for name, content in files().items():
        path = GOLDEN / f"{name}.json"
        if not path.exists():
            path.write_bytes(content)
            print(f"written: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
