"""Which region a number belongs to and of what kind it is: libphonenumber's metadata, its patterns compiled once.

`phonenumbers.region_code_for_number` and `number_type` look every pattern up again for each question, and the second
asks the first twice over: five passes where one will do. The answers are the same (tests/contracts/test_numbering.py
holds them against the library's own). Source: libphonenumber, `getRegionCodeForNumber`, `getNumberTypeHelper`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata, PhoneNumberDesc, PhoneNumberType

_KINDS: Final = (
    (PhoneNumberType.PREMIUM_RATE, "premium_rate"),
    (PhoneNumberType.TOLL_FREE, "toll_free"),
    (PhoneNumberType.SHARED_COST, "shared_cost"),
    (PhoneNumberType.VOIP, "voip"),
    (PhoneNumberType.PERSONAL_NUMBER, "personal_number"),
    (PhoneNumberType.PAGER, "pager"),
    (PhoneNumberType.UAN, "uan"),
    (PhoneNumberType.VOICEMAIL, "voicemail"),
)
"""In the library's order: the first whose pattern matches names the kind; fixed line and mobile come after all."""

Matches = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class _Region:
    """One region's plan: what its numbers begin with, what all of them look like, and each kind's pattern."""

    code: str
    leading: Matches | None
    general: Matches
    kinds: tuple[tuple[int, Matches], ...]
    fixed_line: Matches
    mobile: Matches
    is_one_pattern: bool
    """Fixed lines and mobiles cannot be told apart, as in North America."""

    def kind(self, national: str) -> int:
        """Return the kind of a national number by this plan; `UNKNOWN` for one that is not valid here."""
        if not self.general(national):
            return int(PhoneNumberType.UNKNOWN)
        for kind, matches in self.kinds:
            if matches(national):
                return kind
        if self.fixed_line(national):
            both = self.is_one_pattern or self.mobile(national)
            return int(PhoneNumberType.FIXED_LINE_OR_MOBILE if both else PhoneNumberType.FIXED_LINE)
        is_mobile = not self.is_one_pattern and self.mobile(national)
        return int(PhoneNumberType.MOBILE if is_mobile else PhoneNumberType.UNKNOWN)


def classify(country_code: int, national: str) -> tuple[str | None, int]:
    """Return a number's region (None where no region claims it) and its kind, a `PhoneNumberType`."""
    plans = _plans(country_code)
    if len(plans) == 1:
        return plans[0].code, plans[0].kind(national)
    for plan in plans:
        if plan.leading is not None:
            if plan.leading(national):
                return plan.code, plan.kind(national)
        else:
            kind = plan.kind(national)
            if kind != PhoneNumberType.UNKNOWN:
                return plan.code, kind
    return None, int(PhoneNumberType.UNKNOWN)


@lru_cache(maxsize=256)
def _plans(country_code: int) -> tuple[_Region, ...]:
    """Return the plans of a calling code's regions, main region first; there are some 215 codes."""
    regions = COUNTRY_CODE_TO_REGION_CODE.get(country_code, ())
    found = ((code, PhoneMetadata.metadata_for_region_or_calling_code(country_code, code)) for code in regions)
    return tuple(_plan(code, metadata) for code, metadata in found if metadata is not None)


def _plan(code: str, metadata: PhoneMetadata) -> _Region:
    kinds = ((int(kind), getattr(metadata, name)) for kind, name in _KINDS)
    return _Region(
        code=code,
        leading=re.compile(metadata.leading_digits).match if metadata.leading_digits is not None else None,
        general=_matches(metadata.general_desc),
        kinds=tuple(
            (kind, _matches(desc)) for kind, desc in kinds if desc is not None and desc.national_number_pattern
        ),
        fixed_line=_matches(metadata.fixed_line),
        mobile=_matches(metadata.mobile),
        is_one_pattern=bool(metadata.same_mobile_and_fixed_line_pattern),
    )


def _matches(desc: PhoneNumberDesc | None) -> Matches:
    """Return the question whether a national number has a possible length and matches the whole pattern."""
    if desc is None or not desc.national_number_pattern:
        return lambda _: False
    whole = re.compile(desc.national_number_pattern).fullmatch
    lengths = frozenset(desc.possible_length)
    return lambda national: whole(national) if not lengths or len(national) in lengths else None
