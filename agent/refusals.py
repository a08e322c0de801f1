"""What a worker refuses to start with; imports nothing heavy, so that the operator hears at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from runtime.settings import Settings, SettingsError, brief_keys, required

REFUSED_VARIABLES: Final = {
    "LIVEKIT_DEV_MODE": "it turns on services of LiveKit Cloud",
    "LIVEKIT_AGENT_NAME_OVERRIDE": "the name is DIALER_AGENT_NAME",
    "LIVEKIT_WORKER_TOKEN": "it turns off counting jobs",
}


def check(settings: Settings, environment: Mapping[str, str]) -> None:
    """Refuse what cannot work. Raises: SettingsError."""
    for name, why in REFUSED_VARIABLES.items():
        if environment.get(name):
            raise SettingsError(f"{name} is set; unset it: {why}")
    if not settings.livekit_api_key:
        raise SettingsError("LIVEKIT_API_KEY is not set; give the key of your LiveKit server")
    required(settings.livekit_api_secret, "LIVEKIT_API_SECRET")
    brief_keys(settings.brief_key)
    _recording_credentials(settings)
    _relay(settings)
    if settings.agent_idle_processes < 0:
        raise SettingsError("DIALER_AGENT_IDLE_PROCESSES must be 0 or more")


def _relay(settings: Settings) -> None:
    if settings.ice_transport not in {"all", "relay"}:
        raise SettingsError("DIALER_ICE_TRANSPORT must be `all` or `relay`")
    if settings.turn_urls not in {"tcp443", "any"}:
        raise SettingsError("DIALER_TURN_URLS must be `tcp443` or `any`")
    if settings.ice_transport == "all":
        return
    if not settings.twilio_account_sid:
        raise SettingsError("TWILIO_ACCOUNT_SID is not set; DIALER_ICE_TRANSPORT=relay needs Twilio's credentials")
    required(settings.twilio_auth_token, "TWILIO_AUTH_TOKEN")
    if settings.vault_addr:
        required(settings.vault_token, "VAULT_TOKEN")


def _recording_credentials(settings: Settings) -> None:
    """Egress takes the key of a service account and nothing else (livekit/storage gcp.go, JWTConfigFromJSON)."""
    text = settings.recording_credentials.reveal()
    if not text:
        return
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("type") != "service_account":
        raise SettingsError("DIALER_RECORDING_CREDENTIALS must be the JSON key of a service account")
