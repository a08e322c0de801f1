"""The requests of a measurement: valid `place_call`s to distinct numbers, spread over area codes and exchanges."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from schemas.values import callee_key, partition_of

PEPPER: Final = b"bench-pepper-of-32-bytes-exactly"
MASTER: Final = b"bench-master-of-32-bytes-exactly"
CAMPAIGN: Final = "rx-refill"
_AREA_CODES: Final = """
201 202 203 205 206 207 208 209 210 212 213 214 215 216 217 218 219 224 225 228 229 231 234 239 240 248 251
252 253 254 256 260 262 267 269 270 276 281 301 302 303 304 305 307 308 309 310 312 313 314 315 316 317 318
319 320 321 323 325 330 334 336 337 347 351 352 360 361 386 401 402 404 405 406 407 408 409 410 412 413 414
415 417 419 423 425 430 432 434 435 440 443 469 478 479 480 484 501 502 503 504 505 507 508 509 510 512 513
515 516 517 518 520 530 540 541 551 559 561 562 563 567 570 571 573 574 580 585 586 601 602 603 605 606 607
608 609 610 612 614 615 616 617 618 619 620 623 626 630 631 636 641 646 650 651 660 661 662 678 682 701 702
703 704 706 707 708 712 713 714 715 716 717 718 719 720 724 727 731 732 734 740 754 757 760 763 765 770 772
773 774 775 781 785 786 801 802 803 804 805 806 808 810 812 813 814 815 816 817 818 828 830 831 832 843 845
847 850 856 857 858 859 860 862 863 864 865 870 901 903 904 906 907 908 909 910 912 913 914 915 916 917 918
919 920 925 928 931 936 937 940 941 949 951 952 954 956 970 971 972 973 978 979 980 985 989
"""
_AREAS: Final = tuple(_AREA_CODES.split())


@dataclass(frozen=True, slots=True)
class Command:
    """A record for `dialer.commands`, at its canonical key and partition."""

    key: bytes
    partition: int
    value: bytes
    number: str


def numbers(seed: int) -> Iterator[str]:
    """Give distinct American numbers without end, none of them from the ranges that belong to nobody."""
    draw = random.Random(seed)
    seen: set[str] = set()
    while True:
        number = f"+1{draw.choice(_AREAS)}{draw.randint(200, 999)}{draw.randint(0, 9999):04d}"
        if number not in seen and number[5:8] != "555" and number[6:8] != "11":
            seen.add(number)
            yield number


def place_call(
    number: str, request: str, *, with_zone: bool = False, pepper: bytes = PEPPER, campaign: str = CAMPAIGN
) -> Command:
    """Make one request, as a pipeline writes it: every second one names the callee's time zone itself."""
    data = {
        "request_id": request,
        "campaign_id": campaign,
        "to": number,
        "variables": {"first_name": "Ann", "store": "Main Street"},
        "not_before": None,
        "not_after": None,
        "priority": 5,
        "consent": {"id": "c-9", "kind": "prior_express", "obtained_at": "2026-01-02T10:00:00Z"},
    }
    if with_zone:
        data["timezone"] = "America/New_York"
    envelope = {
        "specversion": "1.0",
        "type": "dialer.command.place_call.v1",
        "source": f"/campaigns/{campaign}",
        "id": f"cmd-{request}",
        "data": data,
    }
    key = callee_key(number, pepper)
    return Command(key.encode(), partition_of(key), orjson.dumps(envelope), number)


def place_calls(count: int, seed: int, prefix: str) -> list[Command]:
    """Make requests to distinct numbers; the same seed gives the same numbers."""
    source = numbers(seed)
    return [place_call(next(source), f"{prefix}-{n:06d}", with_zone=n % 2 == 1) for n in range(count)]


def stop(kind: str, callee: str, identity: str, **data: str) -> Command:
    """Make a record for `dialer.stops`: `cancel_call`, `suppress_callee` or `lift_suppression`."""
    envelope = {
        "specversion": "1.0",
        "type": f"dialer.command.{kind}.v1",
        "source": "/bench",
        "id": identity,
        "data": data,
    }
    return Command(callee.encode(), partition_of(callee), orjson.dumps(envelope), "")
