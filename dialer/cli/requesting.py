"""`call`, `cancel`, `suppress`, `lift`, `status`: what is asked of the dialer, over HTTP."""

from __future__ import annotations

import argparse
from typing import Any

from dialer.cli.errors import CliError
from dialer.cli.http import ask
from runtime.settings import Settings


def add_commands(commands: Any) -> None:
    """Add the requests to the table of commands."""
    call = commands.add_parser("call", help="place one call")
    call.add_argument("--campaign", required=True, help="campaign id")
    call.add_argument("--request", required=True, help="your id of this request: the same again is the same call")
    call.add_argument("--to", required=True, help="number in international form, +12125550100")
    call.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="a variable of the message")
    call.add_argument("--not-before", metavar="TIME", help="ISO 8601 with zone")
    call.add_argument("--not-after", metavar="TIME", help="ISO 8601 with zone; default: 24 h from now")
    call.add_argument("--priority", type=int, default=5, help="0 to 9, 9 first")
    call.set_defaults(run=_call)
    cancel = commands.add_parser("cancel", help="do not make a call, or hang it up")
    cancel.add_argument("call", metavar="CALL")
    cancel.set_defaults(run=_cancel)
    suppress = commands.add_parser("suppress", help="ring this person no more")
    suppress.add_argument("callee", metavar="NUMBER|CALLEE_KEY")
    suppress.add_argument("--reason", default="requested", help="a word, [a-z_]")
    suppress.set_defaults(run=_suppress)
    lift = commands.add_parser("lift", help="this person may be rung again")
    lift.add_argument("callee", metavar="NUMBER|CALLEE_KEY")
    lift.set_defaults(run=_lift)
    status = commands.add_parser("status", help="where a call stands; without CALL: the latest calls")
    status.add_argument("call", metavar="CALL", nargs="?")
    status.add_argument("--campaign", help="only this campaign's")
    status.add_argument("--limit", type=int, default=20, help="how many of the latest calls; default 20")
    status.set_defaults(run=_status)


def _call(settings: Settings, asked: argparse.Namespace) -> None:
    variables: dict[str, str] = {}
    for pair in asked.var:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CliError(f"--var {name}: write NAME=VALUE")
        variables[name] = value
    body = {
        "campaign_id": asked.campaign,
        "request_id": asked.request,
        "to": asked.to,
        "variables": variables,
        "priority": asked.priority,
        "not_before": asked.not_before,
        "not_after": asked.not_after,
    }
    answer = ask(settings, "POST", "/v1/calls", json=body).json()
    print(answer["call_id"])


def _cancel(settings: Settings, asked: argparse.Namespace) -> None:
    ask(settings, "DELETE", f"/v1/calls/{asked.call}")
    print("accepted: there will be no INVITE, or the call is hung up")


def _named(callee: str) -> dict[str, str]:
    return {"to": callee} if callee.startswith("+") else {"callee_key": callee}


def _suppress(settings: Settings, asked: argparse.Namespace) -> None:
    answer = ask(settings, "POST", "/v1/suppressions", json=_named(asked.callee) | {"reason": asked.reason}).json()
    print(f"accepted: {answer['callee_key']} is rung no more")


def _lift(settings: Settings, asked: argparse.Namespace) -> None:
    answer = ask(settings, "DELETE", f"/v1/suppressions/{asked.callee}").json()
    print(f"accepted: {answer['callee_key']} may be rung again")


def _status(settings: Settings, asked: argparse.Namespace) -> None:
    if asked.call:
        for name, value in ask(settings, "GET", f"/v1/calls/{asked.call}").json().items():
            print(f"{name:<14}{'' if value is None else value}")
        return
    query = {"limit": asked.limit} | ({"campaign_id": asked.campaign} if asked.campaign else {})
    calls = ask(settings, "GET", "/v1/calls", params=query).json()["calls"]
    for call in calls:
        print(f"{call['call_id']}  {call['status']:<9} {call['outcome'] or '':<18} {call['campaign_id'] or ''}")
