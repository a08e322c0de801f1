"""The campaigns that converse: who is called in each, and what must become of it. Data, no chance and no clock.

Every script is met by a person's campaign and by a machine's, in English and in Spanish where it makes a difference; a
callee who opts out is asked for once more afterwards, and must not be rung.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import yaml

from rehearsal.campaign_files import CAMPAIGNS
from rehearsal.personas import PER_SCRIPT, SCRIPT_NAMES, SCRIPTED_AREAS
from rehearsal.scenario import Expected, Hears, Request, Role
from rehearsal.script import LANGUAGES

_VARIABLES: Final = {
    "en": {"first_name": "Ann", "store": "Main Street"},
    "es": {"first_name": "Ana", "store": "Plaza Mayor"},
}
_AREA_OF: Final = {language: area for area, language in SCRIPTED_AREAS.items()}
AFTERWARDS: Final = "renewal"
"""The campaign that asks again for who opted out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call: its campaign, who picks up, what becomes of it, what the phone hears whole besides."""

    campaign: str
    script: str
    outcome: str
    hears: Hears
    says: tuple[str, ...] = ()
    """Names of the campaign's phrases that must be heard."""


def _rows(campaign: str, *rows: tuple[str, str, Hears] | tuple[str, str, Hears, str]) -> tuple[Row, ...]:
    return tuple(
        Row(campaign=campaign, script=script, outcome=outcome, hears=hears, says=tuple(says))
        for script, outcome, hears, *says in rows
    )


ROWS: Final = (
    *_rows(
        "clinic",
        ("talks", "conversed", Hears.AMONG_OTHERS),
        ("interrupts", "conversed", Hears.CUT),
        ("stays_silent", "conversed", Hears.AMONG_OTHERS),
        ("presses_keys", "conversed", Hears.AMONG_OTHERS),
        ("opts_out", "opted_out", Hears.AMONG_OTHERS, "opt_out"),
        ("opts_out_by_key", "opted_out", Hears.AMONG_OTHERS, "opt_out"),
        ("asks_for_person", "transferred", Hears.AMONG_OTHERS),
        ("not_available", "conversed", Hears.ANYTHING),  # late enough to interrupt the greeting
        ("business_greeting", "conversed", Hears.AMONG_OTHERS),
        ("hangs_up_amid", "conversed", Hears.AMONG_OTHERS),
        ("late_hello", "conversed", Hears.ANYTHING),
        ("voicemail_beep", "voicemail_left", Hears.VOICEMAIL),
    ),
    *_rows(
        "clinica",
        ("talks", "conversed", Hears.AMONG_OTHERS),
        ("opts_out", "opted_out", Hears.AMONG_OTHERS, "opt_out"),
        ("interrupts", "conversed", Hears.CUT),
        ("screening_connects", "conversed", Hears.ANYTHING),
        ("voicemail_beep", "voicemail_left", Hears.VOICEMAIL),
    ),
    *_rows(
        "renewal",
        ("voicemail_beep", "voicemail_left", Hears.VOICEMAIL),
        ("voicemail_silence", "voicemail_left", Hears.VOICEMAIL),
        ("voicemail_long", "voicemail_left", Hears.VOICEMAIL),
        ("mailbox_full", "machine_hung_up", Hears.ANYTHING),
        ("screening_connects", "delivered", Hears.AMONG_OTHERS),
        ("screening_refuses", "hung_up_early", Hears.ANYTHING),
        ("menu", "machine_hung_up", Hears.ANYTHING),
        ("answering_service", "delivered", Hears.MESSAGE),
        ("says_nothing", "delivered", Hears.MESSAGE),
    ),
    *_rows(
        "renovacion",
        ("voicemail_beep", "voicemail_left", Hears.VOICEMAIL),
        ("voicemail_silence", "voicemail_left", Hears.VOICEMAIL),
        ("mailbox_full", "machine_hung_up", Hears.ANYTHING),
        ("not_available", "delivered", Hears.AMONG_OTHERS),  # and, before it, that the call is recorded
    ),
    *_rows("clinic-no-machines", ("voicemail_long", "machine_hung_up", Hears.ANYTHING)),
    *_rows("clinic-menu", ("menu", "conversed", Hears.ANYTHING), ("asks_for_person", "conversed", Hears.AMONG_OTHERS)),
    *_rows("clinic-error", ("talks", "agent_lost", Hears.AMONG_OTHERS, "fallback")),
    *_rows("clinic-timeout", ("talks", "agent_lost", Hears.AMONG_OTHERS, "fallback")),
    *_rows("clinic-cut", ("talks", "agent_lost", Hears.AMONG_OTHERS, "fallback")),
    *_rows("clinic-garbage", ("talks", "agent_lost", Hears.AMONG_OTHERS, "fallback")),
    *_rows("clinic-slow", ("business_greeting", "conversed", Hears.AMONG_OTHERS)),
)
"""Every call of the conversing campaigns, in the order they are asked for; one number each (a test holds it)."""


def requests() -> list[Request]:
    """Return the calls, and beside them the later ones to those who opted out."""
    taken: dict[tuple[str, str], int] = {}
    found: list[Request] = []
    for row in ROWS:
        language = language_of(row.campaign)
        nth = taken[row.script, language] = taken.get((row.script, language), -1) + 1
        found.append(_request(row, language, nth))
    return [*found, *(_again(request) for request in found if request.expected.outcome == "opted_out")]


@cache
def definition(campaign_id: str) -> dict[str, Any]:
    """Read a campaign as it is written."""
    told: dict[str, Any] = yaml.safe_load((CAMPAIGNS / f"{campaign_id}.yaml").read_text(encoding="utf-8"))
    return told


def language_of(campaign_id: str) -> str:
    """Return the language of a campaign, as scripts name it."""
    return str(definition(campaign_id)["language"]).partition("-")[0]


def _request(row: Row, language: str, nth: int) -> Request:
    assert nth < PER_SCRIPT, "more numbers are needed for more calls"
    told, variables = definition(row.campaign), _VARIABLES[language]
    ending = SCRIPT_NAMES.index(row.script) * PER_SCRIPT + nth
    machine = str(told.get("answering_machine", {}).get("message", ""))
    return Request(
        role=Role.PERSONA,
        persona=row.script if language == "en" else f"{row.script}_{language}",
        data={
            "request_id": f"{row.campaign}-{row.script.replace('_', '-')}",
            "campaign_id": row.campaign,
            "to": f"+1{_AREA_OF[language]}55501{ending:02d}",
            "variables": dict(variables),
        },
        expected=Expected(outcome=row.outcome, dials=1, hears=row.hears),
        message=str(told["message"]).format_map(variables),
        language=LANGUAGES[language],
        voicemail=machine.format_map(variables),
        phrases=tuple(str(told["phrases"][name]) for name in row.says),
        converses=True,
    )


def _again(request: Request) -> Request:
    """Return a call to somebody who opted out meanwhile, through another campaign."""
    data = {**request.data, "request_id": f"{request.name}-again", "campaign_id": AFTERWARDS}
    return Request(
        role=Role.OPTED_OUT,
        persona=request.persona,
        data=data,
        expected=Expected(outcome="refused_suppressed", dials=0),
    )
