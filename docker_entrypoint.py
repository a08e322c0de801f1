"""The image's one entrance: which of the programs this container is, by `LIVEKIT` or by its first argument.

(nothing)               LIVEKIT unset, empty or false: `dialer serve`, port 21121; LIVEKIT=true: the agent, port 8081
projections [...]       the read side, port 21122
anything else           a command of `dialer`: topics, config, explain, …
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

EXIT_SETTINGS = 2
MODES: Mapping[str, tuple[str, ...]] = {
    "": ("dialer", "serve"),
    "false": ("dialer", "serve"),
    "true": ("agent",),
}
"""What `LIVEKIT` says, in lower case -> module and arguments."""


class UnknownMode(Exception):
    """`LIVEKIT` says something else: one line that says what may stand there."""


def command(environment: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """Return the module to run and its arguments. Raises: UnknownMode."""
    if arguments:
        program = [arguments[0]] if arguments[0] == "projections" else ["dialer", arguments[0]]
        return [*program, *arguments[1:]]
    mode = environment.get("LIVEKIT", "").strip().lower()
    if mode not in MODES:
        raise UnknownMode("LIVEKIT must be `true` (the agent), or `false` or unset (dialer serve)")
    return list(MODES[mode])


def main() -> None:
    """Become that program, so that it gets the container's signals itself."""
    try:
        chosen = command(os.environ, sys.argv[1:])
    except UnknownMode as error:
        print(f"docker_entrypoint: {error}", file=sys.stderr)
        sys.exit(EXIT_SETTINGS)
    os.execv(sys.executable, [sys.executable, "-m", *chosen])  # noqa: S606 (our own program, no shell)


if __name__ == "__main__":
    main()
