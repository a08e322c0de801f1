"""Outbound SIP trunks as livekit-server keeps them: every create makes a new id, even for equal content.

Kept in one small file, so that a restarted carrier knows them; livekit-server keeps its own in Redis.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from google.protobuf import json_format
from livekit.protocol import sip

from rehearsal.twirp import TwirpError

TRUNKS_MAX: Final = 1_000


class Trunks:
    """The carrier's trunks by id."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trunks: dict[str, sip.SIPOutboundTrunkInfo] = {}
        if path.exists():
            for row in json.loads(path.read_text(encoding="utf-8")):
                trunk = json_format.ParseDict(row, sip.SIPOutboundTrunkInfo())
                self._trunks[trunk.sip_trunk_id] = trunk

    def _save(self) -> None:
        rows = [json_format.MessageToDict(trunk) for trunk in self._trunks.values()]
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(rows), encoding="utf-8")
        unfinished.rename(self._path)

    def get(self, trunk_id: str) -> sip.SIPOutboundTrunkInfo:
        """One trunk. Raises: TwirpError `not_found`, without SIP metadata."""
        if trunk_id not in self._trunks:
            raise TwirpError("not_found", "requested sip trunk does not exist")
        return self._trunks[trunk_id]

    def create(self, request: sip.CreateSIPOutboundTrunkRequest) -> sip.SIPOutboundTrunkInfo:
        """Add a trunk under a new id. Raises: TwirpError `invalid_argument`."""
        if request.trunk.sip_trunk_id:
            raise TwirpError("invalid_argument", "trunk ID must be empty")
        _validate(request.trunk)
        if len(self._trunks) >= TRUNKS_MAX:
            raise TwirpError("resource_exhausted", "too many trunks")
        trunk = sip.SIPOutboundTrunkInfo()
        trunk.CopyFrom(request.trunk)
        trunk.sip_trunk_id = f"ST_{secrets.token_hex(6)}"
        return self._store(trunk)

    def update(self, request: sip.UpdateSIPOutboundTrunkRequest) -> sip.SIPOutboundTrunkInfo:
        """Replace a trunk, or some of its fields. Raises: TwirpError `not_found`, `invalid_argument`."""
        trunk = sip.SIPOutboundTrunkInfo()
        trunk.CopyFrom(self.get(request.sip_trunk_id))
        if request.HasField("replace"):
            trunk.CopyFrom(request.replace)
            trunk.sip_trunk_id = request.sip_trunk_id
        else:
            _apply(trunk, request.update)
        _validate(trunk)
        return self._store(trunk)

    def delete(self, trunk_id: str) -> sip.SIPTrunkInfo:
        """Forget a trunk; one that is not known is no error (as in livekit-server). Raises: TwirpError without an id."""
        if not trunk_id:
            raise TwirpError("invalid_argument", "trunk ID is required")
        if self._trunks.pop(trunk_id, None) is not None:
            self._save()
        return sip.SIPTrunkInfo(sip_trunk_id=trunk_id)

    def list(self, request: sip.ListSIPOutboundTrunkRequest) -> Iterable[sip.SIPOutboundTrunkInfo]:
        """The trunks that match the ids and numbers asked for; all where none are named."""
        ids, numbers = set(request.trunk_ids), set(request.numbers)
        return [
            trunk
            for trunk in self._trunks.values()
            if (not ids or trunk.sip_trunk_id in ids) and (not numbers or numbers & set(trunk.numbers))
        ]

    def _store(self, trunk: sip.SIPOutboundTrunkInfo) -> sip.SIPOutboundTrunkInfo:
        self._trunks[trunk.sip_trunk_id] = trunk
        self._save()
        return trunk


def _validate(trunk: sip.SIPOutboundTrunkInfo) -> None:
    if not trunk.numbers:
        raise TwirpError("invalid_argument", "no trunk numbers specified")
    if not trunk.address:
        raise TwirpError("invalid_argument", "no outbound address specified")
    if trunk.address.startswith(("sip:", "sips:")):
        raise TwirpError("invalid_argument", "trunk address should be a hostname or IP, not SIP URI")


def _apply(trunk: sip.SIPOutboundTrunkInfo, update: sip.SIPOutboundTrunkUpdate) -> None:
    """Take over the fields that the update sets; numbers by set, add and remove (models.proto ListUpdate)."""
    if update.HasField("numbers"):
        numbers = list(update.numbers.set) or [n for n in trunk.numbers if n not in set(update.numbers.remove)]
        del trunk.numbers[:]
        trunk.numbers.extend([*numbers, *(n for n in update.numbers.add if n not in numbers)])
    for field, value in update.ListFields():
        if field.name == "numbers":
            continue
        if field.message_type is not None:
            getattr(trunk, field.name).CopyFrom(value)
        else:
            setattr(trunk, field.name, value)
