"""`explain CALL`: the causal chain of one call, with times, gaps and what each record was caused by."""

from __future__ import annotations

import argparse
from datetime import datetime
from statistics import median
from typing import Any, Final

from dialer.cli.http import ask
from runtime.settings import Settings

GAP_S: Final = 2.0
"""A gap longer than this is shown as its own line."""
_SHOWN: Final = (
    "reason",
    "speaker",
    "category",
    "attempt",
    "sip_status",
    "outcome",
    "attribution",
    "rule",
    "evidence",
    "latency_ms",
    "status",
    "not_before",
    "trunk",
    "job_id",
    "service",
    "code",
    "spoken_ms",
    "reply_ms",
    "answer_to_audio_ms",
    "greeting_ms",
    "path",
    "duration_ms",
    "size_bytes",
    "campaign_id",
    "message_length",
)


def add_command(commands: Any) -> None:
    """Add `explain` to the table of commands."""
    explain = commands.add_parser("explain", help="why a call went as it did: its causal chain with times and gaps")
    explain.add_argument("call", metavar="CALL")
    explain.set_defaults(run=_explain)


def _explain(settings: Settings, asked: argparse.Namespace) -> None:
    view = ask(settings, "GET", f"/v1/calls/{asked.call}").json()
    events = ask(settings, "GET", f"/v1/calls/{asked.call}/events").json()["events"]
    ended = f", {view['outcome']} (whose doing: {view['attribution']})" if view["outcome"] else ""
    print(f"call {asked.call}\ncampaign {view['campaign_id']}: {view['status']}{ended}\n")
    for line in chain(events):
        print(line)


def chain(events: list[dict[str, Any]]) -> list[str]:
    """Return one line a record: seconds since the first, what, its particulars, what caused it; long gaps named."""
    if not events:
        return []
    first = previous = datetime.fromisoformat(events[0]["at"])
    lines: list[str] = []
    for event in events:
        at = datetime.fromisoformat(event["at"])
        if (at - previous).total_seconds() > GAP_S:
            lines.append(f"{'':>9}  … {(at - previous).total_seconds():.1f} s")
        previous = at
        family, _, name = event["type"].removesuffix(".v1").partition(".")
        name = name.rpartition(".")[2]
        seen = "agent saw" if family == "agent" else "decided"
        particulars = ", ".join(f"{k}={event['data'][k]}" for k in _SHOWN if event["data"].get(k) is not None)
        cause = f"  ← {event['cause']}" if event["cause"] and event["cause"] != event["id"] else ""
        lines.append(f"{(at - first).total_seconds():>8.3f}s  {seen:<9}  {name:<22} {particulars}{cause}")
        lines += [f"{'':>9}  {told}" for told in (_permit(event["data"]), _kind(event["data"])) if told]
    replies = [event["data"]["reply_ms"] for event in events if event["data"].get("reply_ms") is not None]
    if replies:
        lines.append(
            f"{'':>9}  {len(replies)} replies, half of them within {median(replies):.0f} ms, the slowest {max(replies)} ms"
        )
    return lines


def _permit(data: dict[str, Any]) -> str:
    """Say why a dial was allowed."""
    told = ", ".join(f"{k}={v}" for k, v in (data.get("permit") or {}).items() if v not in (None, []))
    return f"allowed by  {told}" if told else ""


def _kind(data: dict[str, Any]) -> str:
    """Say what kind of call the campaign makes, where it is more than a message; nothing of what is said in it."""
    rules = data.get("rules") or {}
    talk = rules.get("conversation") or {}
    if not talk:
        return ""
    return f"a {rules['type']} call, machines: {talk['machine']}, recording: {talk['recording']}"
