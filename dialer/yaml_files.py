"""Operators' YAML files: read strictly (a key that stands twice is refused), with an error in one line.

Source: design §9 (configuration).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

FILE_BYTES_MAX: Final = 1024 * 1024


class BadFile(Exception):
    """A file the process does not start with: one line that names file, key and rule, never a value."""


class _Strict(yaml.SafeLoader):
    """YAML's safe loader, without its silence about keys that stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping. Raises: yaml.MarkedYAMLError for a key that stands twice."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"key `{key_node.value}` stands twice", problem_mark=node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """Return what a YAML file holds. Raises: BadFile."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > FILE_BYTES_MAX:
        raise BadFile(f"{path}: longer than {FILE_BYTES_MAX} bytes")
    try:
        return yaml.load(content, Loader=_Strict)  # noqa: S506 (a subclass of SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadFile(f"{path}{line}: {error.problem}") from None
    except yaml.YAMLError:
        raise BadFile(f"{path}: not YAML") from None
