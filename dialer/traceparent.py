"""`traceparent` as W3C Trace Context has it: anything else from outside is dropped, for it is written to the log."""

from __future__ import annotations

import re
from typing import Final

_FORM: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def well_formed(traceparent: str | None) -> str | None:
    """Return a traceparent that is one, else None."""
    return traceparent if traceparent is not None and _FORM.fullmatch(traceparent) else None
