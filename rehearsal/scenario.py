"""What a rehearsed campaign asks for, and what must become of each request: data, no chance and no clock.

Numbers are +1 AAA 555 01ee: exchange 555-01 is kept for fiction, `ee` chooses the persona (personas.py).
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from rehearsal.campaign_files import CAMPAIGNS
from rehearsal.personas import PERSONAS

REFILL: Final = "rx-refill"
REMINDER: Final = "appointment-reminder"
PER_PERSONA_MAX: Final = 10
_AREAS: Final = ("212", "312", "415", "305", "404", "617", "206", "702", "303", "512")
_FIRST_NAMES: Final = ("Ann", "Bert", "Clara", "Daniel", "Edith", "Felix", "Grace", "Henry", "Ida", "Jacob", "Karen")
_PLACES: Final = ("Main Street", "Lake View", "Hill Park", "North Bridge", "Market Square")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


class Hears(enum.StrEnum):
    """What a phone that answers must have heard."""

    MESSAGE = "message"
    BEGINNING = "beginning"
    NOTHING = "nothing"
    AMONG_OTHERS = "among_others"
    """The message whole, and whatever else a conversation holds."""
    CUT = "cut"
    """The beginning of the message and not its end: the callee interrupted it."""
    VOICEMAIL = "voicemail"
    """After the beep the message for mailboxes, whole, once and nothing else."""
    ANYTHING = "anything"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must become of a call: its outcome (`refused_…` for a refusal), its dials, what an answered phone heard."""

    outcome: str
    dials: int
    hears: Hears = Hears.NOTHING


EXPECTED: Final[dict[str, Expected]] = {
    "answers": Expected(outcome="delivered", dials=1, hears=Hears.MESSAGE),
    "answers_late": Expected(outcome="delivered", dials=1, hears=Hears.MESSAGE),
    "busy": Expected(outcome="busy", dials=2),
    "declines": Expected(outcome="declined", dials=1),
    "no_answer": Expected(outcome="no_answer", dials=2),
    "number_not_found": Expected(outcome="invalid_number", dials=1),
    "carrier_blocks": Expected(outcome="blocked", dials=1),
    "carrier_rejects": Expected(outcome="blocked", dials=1),
    "trunk_overloaded": Expected(outcome="delivered", dials=2, hears=Hears.MESSAGE),
    "hangs_up_early": Expected(outcome="hung_up_early", dials=1, hears=Hears.BEGINNING),
    "never_sends_audio": Expected(outcome="delivered", dials=1, hears=Hears.MESSAGE),
}
"""By persona, in a campaign of two attempts (campaigns/rx-refill.yaml)."""


class Role(enum.StrEnum):
    """Why a request is in the scenario."""

    PERSONA = "persona"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    SAME_CALLEE = "same_callee"
    CANCEL_WAITING = "cancel_waiting"
    CANCEL_RINGING = "cancel_ringing"
    SUPPRESSED = "suppressed"
    REFUSED = "refused"
    OPTED_OUT = "opted_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call that a pipeline asks for; `data` is the body of its `place_call`."""

    role: Role
    persona: str
    data: dict[str, Any]
    expected: Expected
    message: str = ""
    waits_s: int = 0
    """Sent with a `not_before` so far ahead."""
    language: str = "en-US"
    converses: bool = False
    """The phone follows a script, and the call is judged as a conversation (`talks.py`)."""
    voicemail: str = ""
    phrases: tuple[str, ...] = ()
    """What the phone must hear whole besides the message."""

    @property
    def name(self) -> str:
        """Return what stands for the request in findings and tables: no number in it."""
        return str(self.data["request_id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything a run asks for; `broken` are records that must be rejected, each with its reason in a word."""

    requests: list[Request] = field(default_factory=list)
    broken: list[tuple[str, bytes]] = field(default_factory=list)


def build(per_persona: int, *, stops: bool = True) -> Scenario:
    """Return `per_persona` calls to each persona, and beside them what a pipeline does wrong or takes back."""
    assert 1 <= per_persona <= PER_PERSONA_MAX, "more areas are needed for more calls"
    rounds = [_request(Role.PERSONA, p.name, n, p.endings[0]) for n in range(per_persona) for p in PERSONAS]
    requests = [_of_role(request, number) for number, request in enumerate(rounds)]
    requests.append(_request(Role.SAME_CALLEE, "answers", 0, 0, request_id="same-callee"))
    requests.append(_refused("unknown-campaign", "refused_unknown_campaign", campaign_id="nobody-knows-this"))
    requests.append(_refused("other-country", "refused_country_not_allowed", to="+442079460100"))
    requests.append(_refused("no-variables", "refused_missing_variable", variables={}))
    if stops:
        requests += _stopped()
    return Scenario(requests=requests, broken=_broken())


def _of_role(request: Request, number: int) -> Request:
    """Let every fourth request be sent again, and the first late answer's be contradicted."""
    if number % 4 == 0:
        return replace(request, role=Role.REPEATED)
    if request.persona == "answers_late" and number < len(PERSONAS):
        return replace(request, role=Role.CONFLICT)
    return request


def _stopped() -> list[Request]:
    def stop(role: Role, persona: str, ending: int, expected: Expected, waits_s: int = 0) -> Request:
        name = role.replace("_", "-")
        return _request(role, persona, 0, ending, request_id=name, expected=expected, waits_s=waits_s)

    return [
        stop(Role.CANCEL_WAITING, "answers", 1, Expected(outcome="refused_cancelled", dials=0), waits_s=30),
        stop(Role.CANCEL_RINGING, "no_answer", 41, Expected(outcome="cancelled", dials=1)),
        stop(Role.SUPPRESSED, "answers", 2, Expected(outcome="refused_suppressed", dials=0)),
    ]


def _request(
    role: Role,
    persona: str,
    number: int,
    ending: int,
    *,
    request_id: str = "",
    expected: Expected | None = None,
    waits_s: int = 0,
) -> Request:
    """Return a request whose message nobody else's is: the name says the persona, the place or day the round."""
    names = [one.name for one in PERSONAS]
    # The reminder rings once only: for those whose fate the first dial settles.
    reminds = number % 2 == 1 and EXPECTED[persona].dials == 1
    variables = {"first_name": _FIRST_NAMES[names.index(persona)]}
    variables |= {"day": _DAYS[number % len(_DAYS)]} if reminds else {"store": _PLACES[number % len(_PLACES)]}
    campaign_id = REMINDER if reminds else REFILL
    return Request(
        role=role,
        persona=persona,
        data={
            "request_id": request_id or f"{persona.replace('_', '-')}-{number + 1}",
            "campaign_id": campaign_id,
            "to": f"+1{_AREAS[number]}55501{ending:02d}",
            "variables": variables,
        },
        expected=expected or EXPECTED[persona],
        message=template(campaign_id).format_map(variables),
        waits_s=waits_s,
    )


def _refused(request_id: str, outcome: str, **changes: Any) -> Request:
    expected = Expected(outcome=outcome, dials=0)
    request = _request(Role.REFUSED, "answers", 0, 3, request_id=request_id, expected=expected)
    request.data.update(changes)
    return request


def template(campaign_id: str) -> str:
    """Return the message of a rehearsed campaign, before its variables."""
    return str(yaml.safe_load((CAMPAIGNS / f"{campaign_id}.yaml").read_text())["message"])


def _broken() -> list[tuple[str, bytes]]:
    def place_call(**changes: Any) -> bytes:
        data = _request(Role.PERSONA, "answers", 0, 4, request_id="broken").data
        kept = {name: value for name, value in {**data, **changes}.items() if value is not None}
        kind = "dialer.command.place_call.v1"
        envelope = {"specversion": "1.0", "type": kind, "source": "/rehearsal", "id": f"broken-{len(rows)}"}
        return json.dumps({**envelope, "data": kept}).encode()

    rows: list[tuple[str, bytes]] = []
    for why, changes in (
        ("letters in the number", {"to": "+1212555CALL"}),
        ("an emergency number", {"to": "911"}),
        ("an unknown field", {"not_afterr": "2030-01-01T00:00:00Z"}),
        ("a number as its id", {"request_id": "+12125550104"}),
        ("no number", {"to": None}),
    ):
        rows.append((why, place_call(**changes)))
    rows.append(("not JSON", b'{"specversion": "1.0", "type": "dialer.command.place'))
    return rows
