"""Tables in the documents that are made from code: settings, topics, metrics. Written in place, between two marks.

`python -m docs.tables` writes them; `tests/house/test_docs.py` fails while one is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from runtime import metrics
from runtime.settings import Settings, describe
from schemas.topics import TOPICS

ROOT: Final = Path(__file__).resolve().parent.parent
_DAY_MS: Final = 86_400_000
_FOR_EVER: Final = "-1"
_SAID_ELSEWHERE: Final = frozenset(
    {"message.timestamp.type", "max.message.bytes", "retention.ms", "cleanup.policy", "retention.bytes"}
)


def settings_table() -> str:
    """Return every setting: its variable, its default, what it is for."""
    secret = {f.metadata["env"] for f in fields(Settings) if f.metadata["secret"]}
    rows = []
    for name, value, says in describe(Settings()):
        shown = "secret" if name in secret else f"`{value}`" if value else ""
        rows.append((f"`{name}`", shown, _escaped(says)))
    return _table(("variable", "default", "what it is for"), rows)


def topics_table() -> str:
    """Return every topic: its key, partitions, how long it is kept, what it is for."""
    rows = []
    for topic in TOPICS:
        others = [f"`{k}={v}`" for k, v in topic.config.items() if k not in _SAID_ELSEWHERE]
        kept = _kept(topic.config)
        rows.append((f"`{topic.name}`", topic.key, str(topic.partitions), kept, " ".join(others), topic.purpose))
    return _table(("topic", "key", "partitions", "kept", "other settings", "what for"), rows)


def _kept(config: Mapping[str, str]) -> str:
    if config.get("cleanup.policy") == "compact":
        return "last value per key"
    retention = config["retention.ms"]
    return "for ever" if retention == _FOR_EVER else f"{int(retention) // _DAY_MS:,} days"


def metrics_table() -> str:
    """Return every metric of ours: its name as Prometheus shows it, its kind and labels, what it says."""
    rows = []
    for metric in vars(metrics).values():
        if isinstance(metric, (Counter, Gauge, Histogram)):
            name = metric._name + ("_total" if isinstance(metric, Counter) else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append((f"`{name}`", type(metric).__name__.lower(), labels, metric._documentation))
    return _table(("metric", "kind", "labels", "what it says"), rows)


TABLES: Final[Mapping[str, tuple[str, Callable[[], str]]]] = {
    "settings": ("README.md", settings_table),
    "topics": ("docs/kafka.md", topics_table),
    "metrics": ("docs/operations.md", metrics_table),
}
"""Name of a table -> the file it stands in, and what makes it."""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def written(text: str, name: str, table: str) -> str:
    """Return a document with one table made anew. Raises: ValueError where its marks are missing."""
    begin, end = f"<!-- table: {name}, made by `python -m docs.tables` -->", "<!-- end of table -->"
    pattern = re.compile(re.escape(begin) + r"\n.*?" + re.escape(end), re.DOTALL)
    replaced, count = pattern.subn(lambda _: f"{begin}\n{table}\n{end}", text)
    if count != 1:
        raise ValueError(f"table {name}: {count} places for it")
    return replaced


def stale() -> list[str]:
    """Name the tables that are not as the code has them."""
    found = []
    for name, (file, make) in TABLES.items():
        text = (ROOT / file).read_text()
        if written(text, name, make()) != text:
            found.append(f"{file}: {name}")
    return found


def main() -> int:
    """Write all tables and return the exit code."""
    for name, (file, make) in TABLES.items():
        path = ROOT / file
        path.write_text(written(path.read_text(), name, make()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
