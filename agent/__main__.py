"""`python -m agent`: the agent worker. Configuration by environment; errors in one line that says what to do."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from agent.refusals import check
from runtime.logs import configure
from runtime.settings import SettingsError, read_settings
from runtime.vault_settings import with_vault

EXIT_SETTINGS = 2
EXIT_FAILED = 1


def main() -> int:
    """Run until stopped; 0 after a drain, 1 for what a restart may mend, 2 for settings."""
    try:
        os.environ.update(with_vault(os.environ))  # job processes inherit it: none of them needs Vault to start
        settings = read_settings(os.environ)
        check(settings, os.environ)
    except SettingsError as error:
        print(f"dialer agent: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    configure("agent", settings.log_level)
    from agent import worker  # seconds of imports: only now

    # LiveKit's native client writes addresses with tokens at its lower levels.
    logging.getLogger("livekit").setLevel(max(logging.getLogger().level, logging.WARNING))
    logging.getLogger("livekit.agents").setLevel(logging.getLogger().level)
    try:
        asyncio.run(worker.run(settings))
    except worker.WorkerFailed as error:
        print(f"dialer agent: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
