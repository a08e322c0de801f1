"""`campaigns`: the definitions that the settings name, or a file or directory of one's own, checked as a start would.

Nothing is asked for over the network: an author sees each refusal, by file, key and rule, before a dialer does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dialer.campaigns import EMBEDDED, Definition, define
from dialer.cli.errors import CliError
from dialer.yaml_files import BadFile, read_yaml
from runtime.settings import Settings
from schemas.campaign import load_campaign
from schemas.values import Invalid


def add_command(commands: Any) -> None:
    """Add `campaigns` to the table of commands."""
    campaigns = commands.add_parser("campaigns", help="check campaign definitions: id, type and hash, or what is wrong")
    campaigns.add_argument("--check", metavar="PATH", type=Path, help="a YAML file, or a directory of them")
    campaigns.set_defaults(run=_campaigns)


def _campaigns(settings: Settings, asked: argparse.Namespace) -> int:
    seen: dict[str, Path] = {}
    refused = 0
    for file in _files(settings, asked.check):
        try:
            print(_line(_checked(file, seen)))
        except BadFile as wrong:
            print(f"refused  {wrong}")
            refused += 1
    return 1 if refused else 0


def _checked(file: Path, seen: dict[str, Path]) -> Definition:
    """Return a file's definition. Raises: BadFile."""
    try:
        found = define(load_campaign(read_yaml(file)))
    except Invalid as wrong:
        raise BadFile(f"{file}: {wrong.field}: {wrong.rule}") from None
    if seen.setdefault(found.campaign.id, file) is not file:
        raise BadFile(f"{file}: id: stands in {seen[found.campaign.id]} too")
    return found


def _files(settings: Settings, path: Path | None) -> list[Path]:
    if path is None and settings.campaigns_url:
        raise CliError("DIALER_CAMPAIGNS_URL names a service, which is asked campaign by campaign; use --check PATH")
    where = path or (Path(settings.campaigns_dir) if settings.campaigns_dir else EMBEDDED)
    files = sorted(where.glob("*.yaml")) if where.is_dir() else [where] if where.is_file() else []
    if not files:
        raise CliError(f"{where}: no *.yaml files of campaigns there")
    return files


def _line(found: Definition) -> str:
    campaign = found.campaign
    more = [campaign.language, f"machines: {campaign.answering_machine.policy}", f"recording: {campaign.recording}"]
    return f"ok       {campaign.id:<28} {campaign.type}  {found.hash}  {', '.join(more)}"
