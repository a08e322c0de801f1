"""The table of commands, with help that teaches; errors are one line that says what to do.

`agent`, `projections` and `rehearse` are other packages: they are started as processes, never imported.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from aiokafka.errors import KafkaError

from dialer.cli import campaigns, control, explain, reading, requesting
from dialer.cli.errors import CliError
from runtime import collector
from runtime.crash_points import clock_of
from runtime.logs import Log, configure
from runtime.settings import Settings, SettingsError, describe, read_settings
from runtime.vault_settings import with_vault
from schemas.values import Invalid

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
EXIT_BUG: Final = 70
ELSEWHERE: Final = {
    "agent": "the LiveKit agent worker (python -m agent)",
    "projections": "read models, audit and their HTTP (python -m projections)",
    "rehearse": "a telephone network in a box: try and test without a carrier (python -m rehearsal)",
}
HELP: Final = """\
An outbound dialer on Kafka and LiveKit: never rings anyone twice, never loses a request, explains every call.

  dialer rehearse up                      a telephone network in a box, to try everything
  dialer call --campaign rx-refill --request r-1 --to +12125550100 --var first_name=Ann --var store="Main Street"
  dialer status CALL                      where a call stands
  dialer explain CALL                     why it went as it did, with times and gaps
  dialer events                           follow the log, masked
  dialer stop --all                       the kill switch: dial nobody; with --now hang up, too
"""

log = Log("dialer")


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, and where help is."""

    def error(self, message: str) -> NoReturn:
        """End with the exit code of a wrong command line."""
        self.exit(EXIT_SETTINGS, f"dialer: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = OneLineParser(prog="dialer", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="the dialer itself: owners, gate, HTTP API (settings: `dialer config`)")
    serve.set_defaults(run=_serve)
    for name, says in ELSEWHERE.items():
        other = commands.add_parser(name, help=says, add_help=False)
        other.add_argument("rest", nargs=argparse.REMAINDER)
    requesting.add_commands(commands)
    control.add_commands(commands)
    explain.add_command(commands)
    reading.add_commands(commands)
    campaigns.add_command(commands)
    config = commands.add_parser("config", help="the effective settings, secrets masked, and what each is for")
    config.set_defaults(run=_config)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ELSEWHERE:
        module = {"rehearse": "rehearsal"}.get(given[0], given[0])
        os.execv(sys.executable, [sys.executable, "-m", module, *given[1:]])  # noqa: S606  another package's process
    asked = parser().parse_args(given)
    configure("dialer", "error")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it says at "error" is our own one line already
    try:
        settings = read_settings(with_vault(os.environ))
        return int(asked.run(settings, asked) or 0)
    except SettingsError as error:
        return _end(EXIT_SETTINGS, str(error))
    except (CliError, Invalid) as error:
        return _end(EXIT_FAILED, str(error))
    except KafkaError as error:
        return _end(
            EXIT_FAILED, f"Kafka at KAFKA_BOOTSTRAP_SERVERS does not answer ({type(error).__name__}); is it up?"
        )
    except KeyboardInterrupt:
        return _end(130, "interrupted")
    except BrokenPipeError:
        return 0
    except Exception as error:
        log.crash("a bug ended the process", error)
        return _end(EXIT_BUG, f"a bug ended the process: {type(error).__name__}; the log has its trace")


def _end(code: int, reason: str) -> int:
    print(f"dialer: {reason}", file=sys.stderr, flush=True)
    return code


def _serve(settings: Settings, asked: argparse.Namespace) -> None:
    del asked
    from dialer.app import App, StartFailed
    from dialer.control import LayoutMismatch
    from dialer.yaml_files import BadFile

    configure("dialer", settings.log_level)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        app = App(settings, clock_of(os.environ, settings))
        collector.tune()
        await app.run(stop)

    try:
        asyncio.run(run())
    except (BadFile, StartFailed, LayoutMismatch) as error:
        raise CliError(str(error)) from None


def _config(settings: Settings, asked: argparse.Namespace) -> None:
    del asked
    rows = describe(settings)
    wide = max(len(name) for name, _, _ in rows)
    for name, value, says in rows:
        print(f"{name:<{wide}}  {value or '(not set)':<28}  {says}")
