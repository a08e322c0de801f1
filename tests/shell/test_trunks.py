"""The trunks file: read strictly, refused in one line without a value; trunks made known with bounded attempts."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from dialer.telephony import Trunk
from dialer.trunks import ENSURE_ATTEMPTS_MAX, TrunksUnavailable, caller_id_for, ensure_all, load_trunks
from dialer.yaml_files import BadFile
from tests.doubles.clock import VirtualClock
from tests.doubles.telephony import Fault, TelephonyDouble

GOOD = """
trunks:
  - name: cvs-retail-outbound
    address: example.pstn.twilio.com:5061
    numbers: ["+12125550100", "+1 212 555 0101"]
    auth_username: dialer
    auth_password_file: {secret}
    calls_per_s: 5
    concurrency_max: 50
"""


def written(folder: Path, text: str) -> str:
    (folder / "secret").write_text("s3cret\n")
    path = folder / "trunks.yaml"
    path.write_text(text.replace("{secret}", str(folder / "secret")))
    return str(path)


def test_a_file_of_trunks_is_read(tmp_path):
    """Defaults are Twilio's secure ones; numbers are tidied; the password comes from its file and does not print."""
    (trunk,) = load_trunks(written(tmp_path, GOOD))
    assert trunk == Trunk(
        name="cvs-retail-outbound",
        address="example.pstn.twilio.com:5061",
        numbers=("+12125550100", "+12125550101"),
        transport="tls",
        media_encryption="require",
        auth_username="dialer",
        auth_password="s3cret",
        calls_per_s=5,
        concurrency_max=50,
    )
    assert "s3cret" not in repr(trunk)


REFUSED = [
    ("trunks: []", "trunks: too_short"),
    ("- 1", "must be a mapping"),
    (GOOD.replace("calls_per_s", "cps"), "trunks.0.cps: unknown_field"),
    (GOOD + "extra: 1", "extra: unknown_field"),
    (GOOD.replace("calls_per_s: 5", "calls_per_s: 0"), "trunks.0.calls_per_s: greater_than_equal"),
    (GOOD.replace('"+12125550100"', "12125550100"), "trunks.0.numbers.0: wrong_type"),
    (GOOD.replace('"+12125550100"', '"+911"'), "trunks.0.numbers: emergency"),
    (GOOD.replace("example.pstn.twilio.com:5061", "sip:example.com"), "trunks.0.address: pattern"),
    (GOOD.replace("{secret}", "/nowhere"), "trunks.0.auth_password_file: cannot be read"),
    (GOOD + "    auth_password: x", "give this or auth_password_file"),
    (GOOD + "    calls_per_s: 6", "stands twice"),
    (GOOD + GOOD.removeprefix("\ntrunks:\n"), "trunks.1.name: stands twice"),
    ("trunks: [", "line "),
]


@pytest.mark.parametrize(("text", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_a_bad_file_is_refused_by_key_and_rule(tmp_path, text, told):
    """One line, with the file's name and no number."""
    with pytest.raises(BadFile) as caught:
        load_trunks(written(tmp_path, text))
    line = str(caught.value)
    assert told in line and "trunks.yaml" in line
    assert "\n" not in line and "2125550100" not in line


def test_a_file_that_is_not_there_is_said(tmp_path):
    """The path, and why."""
    with pytest.raises(BadFile, match=r"none\.yaml: cannot be read"):
        load_trunks(str(tmp_path / "none.yaml"))


def trunk(name="a", numbers=("+12125550100", "+12125550101", "+12125550102")):
    return Trunk(name=name, address="sip.example", numbers=numbers)


def test_a_call_always_shows_the_same_number_and_calls_spread_evenly():
    """Retries come from the number the callee has seen before."""
    chosen = [caller_id_for(trunk(), f"call-{i}") for i in range(3000)]
    assert chosen == [caller_id_for(trunk(), f"call-{i}") for i in range(3000)]
    assert all(900 < count < 1100 for count in Counter(chosen).values())


async def test_trunks_are_made_known_although_livekit_comes_up_late():
    """Tried again with growing waits; the same names get the same ids."""
    clock = VirtualClock()
    telephony = TelephonyDouble(clock)
    for _ in range(3):
        telephony.fault("ensure_trunk", Fault(kind="fail"))
    work = asyncio.create_task(ensure_all(telephony, (trunk("a"), trunk("b")), clock))
    await clock.advance(60)
    ids = work.result()
    assert set(ids) == {"a", "b"}
    assert await ensure_all(telephony, (trunk("b"), trunk("a")), clock) == ids


async def test_trunks_that_are_never_taken_end_the_start_with_a_reason():
    """Bounded attempts, one line."""
    clock = VirtualClock()
    telephony = TelephonyDouble(clock)
    for _ in range(ENSURE_ATTEMPTS_MAX):
        telephony.fault("ensure_trunk", Fault(kind="fail", code="unavailable"))
    work = asyncio.create_task(ensure_all(telephony, (trunk("a"),), clock))
    await clock.advance(600)
    with pytest.raises(TrunksUnavailable, match=r"trunk a: .*unavailable.*LIVEKIT_API_URL"):
        work.result()
