"""Settings: the environment, read once and strictly; secrets never print."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from runtime.settings import Secret, Settings, SettingsError, brief_keys, describe, key_bytes, read_settings, required

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_an_empty_environment_gives_the_defaults() -> None:
    """And what is not ours is passed over."""
    settings = read_settings({"PATH": "/bin", "HOME": "/"})
    assert (settings.port, settings.host, settings.session_timeout_s) == (21121, "127.0.0.1", 10.0)


def test_values_are_read_by_their_type() -> None:
    """Numbers are numbers."""
    settings = read_settings({"DIALER_PORT": "8080", "DIALER_SESSION_TIMEOUT_S": "6.5", "LIVEKIT_URL": "ws://x:1"})
    assert (settings.port, settings.session_timeout_s, settings.livekit_url) == (8080, 6.5, "ws://x:1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIALER_PORT", "many"),
        ("DIALER_PORT", "65536"),
        ("DIALER_BATCH_MAX", "0"),
        ("DIALER_SESSION_TIMEOUT_S", "-1"),
        ("DIALER_SESSION_TIMEOUT_S", "3601"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(name: str, value: str) -> None:
    """One line that says which variable."""
    with pytest.raises(SettingsError, match=name) as refused:
        read_settings({name: value})
    assert "\n" not in str(refused.value)


def test_a_misspelt_setting_is_refused() -> None:
    """A `DIALER_` name nobody knows."""
    with pytest.raises(SettingsError, match="DIALER_PROT is not a setting"):
        read_settings({"DIALER_PROT": "1"})


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    """Read without its line end; the file wins over nothing, and must be readable."""
    path = tmp_path / "pepper"
    path.write_text("hush\n")
    assert read_settings({"DIALER_PEPPER_FILE": str(path)}).pepper.reveal() == "hush"
    with pytest.raises(SettingsError, match="DIALER_PEPPER_FILE cannot be read"):
        read_settings({"DIALER_PEPPER_FILE": str(tmp_path / "missing")})
    with pytest.raises(SettingsError, match="DIALER_PORT_FILE is not a setting"):
        read_settings({"DIALER_PORT_FILE": str(path)})


def test_a_secret_never_prints() -> None:
    """Not by itself, not in the settings, not in what `dialer config` shows."""
    settings = read_settings({"DIALER_PEPPER": "hush-hush", "LIVEKIT_API_SECRET": "hush-hush"})
    shown = repr(settings) + str(describe(settings)) + f"{settings.pepper}"
    assert "hush" not in shown
    assert "********" in shown


def test_every_setting_says_what_it_is_for_and_every_secret_is_one() -> None:
    """The operator's page is made of these."""
    for field in fields(Settings):
        assert field.metadata["says"]
        assert field.metadata["secret"] == isinstance(field.default, Secret)
    assert len({f.metadata["env"] for f in fields(Settings)}) == len(fields(Settings))


def test_a_secret_that_must_be_there_is_asked_for_by_name() -> None:
    """Missing, or not base64."""
    with pytest.raises(SettingsError, match="DIALER_PEPPER is not set"):
        required(Secret(""), "DIALER_PEPPER")
    with pytest.raises(SettingsError, match="must be base64"):
        key_bytes(Secret("not base64"), "DIALER_PEPPER")
    assert key_bytes(Secret(KEY), "DIALER_PEPPER") == bytes(range(32))


def test_brief_keys_are_named_and_in_order() -> None:
    """The first seals."""
    assert list(brief_keys(Secret(f"new:{KEY}, old:{KEY}"))) == ["new", "old"]
    for broken in ("", KEY, f":{KEY}", "a:AAAA", "a:x"):
        with pytest.raises(SettingsError, match="BRIEF_KEY"):
            brief_keys(Secret(broken))
