"""Region and kind of a number by our own reading of the metadata are what libphonenumber itself answers."""

import random

import phonenumbers
from phonenumbers import PhoneNumberType, timezone

from schemas.numbering import classify
from schemas.values import Invalid, Number, parse_number, zones_of

SEED = 20261122
RANDOM_COUNT = 4_000


def examples() -> list[str]:
    """The library's example of every kind in every region, and each with a digit changed, missing or too many."""
    draw = random.Random(SEED)
    found = []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in PhoneNumberType.values():
            example = phonenumbers.example_number_for_type(region, kind)
            if example is not None:
                e164 = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
                place = draw.randrange(2, len(e164))
                found += [e164, e164[:-1], e164 + "1", e164[:place] + str(draw.randrange(10)) + e164[place + 1 :]]
    found += [f"+1{draw.randrange(10**9, 10**10)}" for _ in range(RANDOM_COUNT)]
    return [number for number in found if len(number) <= 16 and has_calling_code(number)]


def has_calling_code(text: str) -> bool:
    """A changed digit may have made a calling code that nobody has."""
    return any(int(text[1 : 1 + length]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE for length in (1, 2, 3))


def test_region_and_kind_are_the_librarys_own() -> None:
    """Every example, good or spoilt, is classified as by region_code_for_number and number_type."""
    for text in examples():
        number = phonenumbers.parse(text)
        national = phonenumbers.national_significant_number(number)
        known = phonenumbers.region_code_for_number(number), phonenumbers.number_type(number)
        assert classify(number.country_code, national) == known, text


def test_zones_are_the_librarys_own() -> None:
    """Whether the kind came with the number or not, its zones are those of time_zones_for_number."""
    for text in examples():
        try:
            number = parse_number(text)
        except Invalid:
            continue
        zones = tuple(timezone.time_zones_for_number(phonenumbers.parse(text)))
        assert zones_of(number) == zones_of(Number(number.e164, number.region)) == zones
