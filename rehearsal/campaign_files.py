"""The rehearsal's campaigns as one run has them: its own brain's port in the place of the usual one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CAMPAIGNS: Final = Path(__file__).resolve().parent / "campaigns"
BRAIN_PORT: Final = 8090
"""The brain's port in `campaigns/*.yaml`."""


def lay_out(run_dir: Path, brain_port: int) -> Path:
    """Write every campaign into the run directory; returns their directory."""
    directory = run_dir / "campaigns"
    directory.mkdir(parents=True, exist_ok=True)
    for file in CAMPAIGNS.glob("*.yaml"):
        text = file.read_text(encoding="utf-8").replace(f"127.0.0.1:{BRAIN_PORT}/", f"127.0.0.1:{brain_port}/")
        (directory / file.name).write_text(text, encoding="utf-8")
    return directory
