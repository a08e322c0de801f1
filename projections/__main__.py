"""`python -m projections`, also `dialer projections`: the read side's process, its one way in and out."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from aiokafka.errors import KafkaError

from projections.app import rebuild_all, serve
from projections.errors import ProjectionsError
from projections.store import ModelName
from runtime.clock import SystemClock
from runtime.logs import Log, configure
from runtime.settings import Settings, SettingsError, read_settings
from runtime.vault_settings import with_vault

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
EXIT_BUG: Final = 70
"""sysexits.h EX_SOFTWARE."""

HELP: Final = """\
The read side: keeps the read models up to date, publishes dialer.audit, answers HTTP.

  python -m projections                             run it; Ctrl-C or SIGTERM ends it
  python -m projections rebuild                     make all read models anew from the log
  python -m projections rebuild --model timeline    make one; the read side may run meanwhile

It reads dialer.events from where its database stands, so it may be stopped and started at any time, and the
database (DIALER_STORE_PATH) may be deleted: everything in it is made again from the log.

  GET /v1/calls/{call_id}           where a call stands
  GET /v1/calls/{call_id}/events    all its records, in order
  GET /v1/calls?campaign_id=&status=&limit=&cursor=    calls, newest first
  GET /health /ready /metrics /docs

Run one of it: a second one takes the audit over and the first one ends. Others for reading: --no-audit, each with a
database of its own.
"""
SETTINGS_HELP: Final = """\
settings, from the environment:
  KAFKA_BOOTSTRAP_SERVERS    Kafka brokers (127.0.0.1:9092)
  DIALER_STORE_PATH          SQLite file of the read models (run/read.sqlite)
  DIALER_PROJECTIONS_HOST    address to listen on (127.0.0.1); another than loopback needs DIALER_API_KEYS
  DIALER_PROJECTIONS_PORT    port (21122)
  DIALER_LOG_LEVEL           debug, info, warning or error

exit codes: 0 ended as asked, 1 an outside failure (one line says which), 2 a wrong setting, 70 a bug
"""

journal = Log("projections")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    commands = argparse.ArgumentParser(
        prog="dialer projections",
        description=HELP,
        epilog=SETTINGS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands.add_argument("--no-audit", action="store_true", help="do not publish dialer.audit")
    which = commands.add_subparsers(dest="command", metavar="rebuild")
    remake = which.add_parser("rebuild", help="make read models anew from the log, and swap them in")
    remake.add_argument("--model", choices=[model.value for model in ModelName], help="only this one")
    return commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    asked = parser().parse_args(arguments)
    try:
        settings = read_settings(with_vault(os.environ))
        configure("projections", settings.log_level)
        asyncio.run(_rebuild(settings, asked.model) if asked.command == "rebuild" else _serve(settings, asked.no_audit))
    except SettingsError as error:
        return _end(EXIT_SETTINGS, str(error))
    except (ProjectionsError, KafkaError, OSError) as error:
        return _end(EXIT_FAILED, str(error) or type(error).__name__)
    except KeyboardInterrupt:
        return _end(EXIT_FAILED, "interrupted")
    except Exception as error:
        journal.crash("a bug ended the read side", error)
        return _end(EXIT_BUG, f"a bug ended the read side: {type(error).__name__}; the log has its trace")
    return 0


def _end(code: int, reason: str) -> int:
    print(f"dialer projections: {reason}", file=sys.stderr, flush=True)
    return code


def _unread(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep aiokafka's own futures that nobody reads after a failure out of the log; the failure itself is told."""
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)


async def _serve(settings: Settings, no_audit: bool) -> None:
    asyncio.get_running_loop().set_exception_handler(_unread)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, SystemClock(), stop, audit=not no_audit)


async def _rebuild(settings: Settings, model: str | None) -> None:
    models = [ModelName(model)] if model else list(ModelName)
    for name, folded in (await rebuild_all(settings, SystemClock(), models)).items():
        print(f"{name.value}: made anew from {folded:,} records")


if __name__ == "__main__":
    sys.exit(main())
