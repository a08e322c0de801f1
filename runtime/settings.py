"""Configuration: the environment, read once, checked, frozen. `dialer config` prints it with secrets masked.

Every field of `Settings` names one variable. A secret may come as `NAME_FILE` instead, a path whose content is read.
A variable that starts with `DIALER_` and is not named here is an error, since it is a misspelt one. Source: design §9.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError


class SettingsError(Exception):
    """A setting that is missing, unknown or out of range: one line that names the variable and what to do."""


class Secret:
    """A string that does not print."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "********" if self._value else "(not set)"


Port = Annotated[int, Field(ge=0, le=65_535)]
Positive = Annotated[int, Field(ge=1)]
PositiveSeconds = Annotated[float, Field(gt=0, le=3600)]


def _env(name: str, default: Any, says: str, *, secret: bool = False) -> Any:
    return field(default=Secret(default) if secret else default, metadata={"env": name, "says": says, "secret": secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of all processes; each reads what it needs."""

    kafka_bootstrap: str = _env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092", "Kafka brokers, host:port,host:port")
    livekit_url: str = _env("LIVEKIT_URL", "ws://127.0.0.1:7880", "LiveKit server, as agents join it")
    livekit_api_url: str = _env("LIVEKIT_API_URL", "", "LiveKit's API, where it differs from LIVEKIT_URL (the carrier)")
    livekit_api_key: str = _env("LIVEKIT_API_KEY", "", "LiveKit API key")
    livekit_api_secret: Secret = _env("LIVEKIT_API_SECRET", "", "LiveKit API secret", secret=True)
    brief_key: Secret = _env("BRIEF_KEY", "", "seals agents' briefs: id:base64 of 32 bytes[,id:base64]", secret=True)
    pepper: Secret = _env("DIALER_PEPPER", "", "secret of callee keys, base64, never rotated; serve only", secret=True)
    master_key: Secret = _env("DIALER_MASTER_KEY", "", "wraps data keys, base64 of 32 bytes; serve only", secret=True)
    api_keys: Secret = _env("DIALER_API_KEYS", "", "API keys, comma separated; empty only on loopback", secret=True)
    api_key: Secret = _env("DIALER_API_KEY", "", "the API key that the CLI sends", secret=True)
    host: str = _env("DIALER_HOST", "127.0.0.1", "address to listen on; another than loopback needs DIALER_API_KEYS")
    port: Port = _env("DIALER_PORT", 21121, "port of `dialer serve`")
    url: str = _env("DIALER_URL", "http://127.0.0.1:21121", "where the CLI finds `dialer serve`")
    query_url: str = _env("QUERY_URL", "http://127.0.0.1:21122", "where `dialer serve` passes GET /v1/* on to")
    dial_real_phones: str = _env("DIAL_REAL_PHONES", "no", "`yes` allows a LiveKit that is not on loopback")
    group_id: str = _env("DIALER_GROUP_ID", "dialer", "consumer group of the owners")
    session_timeout_s: PositiveSeconds = _env("DIALER_SESSION_TIMEOUT_S", 10.0, "consumer session timeout")
    batch_max: Positive = _env("DIALER_BATCH_MAX", 2000, "inputs a transaction takes at most")
    inbox_max: Positive = _env("DIALER_INBOX_MAX", 10_000, "inputs that wait at a partition before fetching pauses")
    open_calls_max: Positive = _env(
        "DIALER_OPEN_CALLS_MAX",
        20_000,
        "calls without an end of a partition (of 24), about 5 KB each, before commands wait",
    )
    campaigns_dir: str = _env("DIALER_CAMPAIGNS_DIR", "", "directory of campaign YAML files (the embedded default)")
    campaigns_url: str = _env("DIALER_CAMPAIGNS_URL", "", "campaign service; used instead of the directory when set")
    campaigns_ttl_s: PositiveSeconds = _env("DIALER_CAMPAIGNS_TTL_S", 30.0, "how long a definition is taken as current")
    trunks_file: str = _env("DIALER_TRUNKS_FILE", "", "YAML file of trunks: address, numbers, limits")
    rooms_max: Positive = _env("DIALER_ROOMS_MAX", 100, "open rooms at once over all dialers: the agents' capacity")
    dials_max: Positive = _env("DIALER_DIALS_MAX", 500, "dial requests in flight of this process at most")
    request_memory_d: Positive = _env("DIALER_REQUEST_MEMORY_D", 35, "days a request is remembered (design §2)")
    agent_name: str = _env("DIALER_AGENT_NAME", "outbound-dialer", "name agents are dispatched by")
    agent_host: str = _env("DIALER_AGENT_HOST", "127.0.0.1", "address of the worker's health port")
    agent_port: Port = _env("DIALER_AGENT_PORT", 8081, "port of the worker's health page")
    agent_jobs_max: Positive = _env("DIALER_AGENT_JOBS_MAX", 20, "calls a worker takes at once")
    agent_idle_processes: int = _env("DIALER_AGENT_IDLE_PROCESSES", 3, "warm job processes a worker keeps")
    agent_spool_dir: str = _env("DIALER_AGENT_SPOOL_DIR", "run/spool", "where facts wait while Kafka is away, sealed")
    agent_spool_bytes_max: Positive = _env("DIALER_AGENT_SPOOL_BYTES_MAX", 64 * 1024 * 1024, "bytes of the spool")
    agent_spool_files_max: Positive = _env("DIALER_AGENT_SPOOL_FILES_MAX", 1000, "files of the spool, one a job")
    agent_spool_age_max_h: Positive = _env("DIALER_AGENT_SPOOL_AGE_MAX_H", 48, "hours a spooled fact is worth shipping")
    speak_url: str = _env("DIALER_SPEAK_URL", "ws://127.0.0.1:8080/v1/speak", "speech synthesis, Deepgram's protocol")
    listen_url: str = _env("DIALER_LISTEN_URL", "ws://127.0.0.1:8080/v1/listen", "speech recognition, likewise")
    deepgram_api_key: Secret = _env("DEEPGRAM_API_KEY", "", "key of the speech services", secret=True)
    agent_api_key: Secret = _env("AGENT_API_KEY", "", "key of the agent API, sent as a bearer token", secret=True)
    recording_bucket: str = _env("DIALER_RECORDING_BUCKET", "", "GCS bucket that recordings go to")
    recording_credentials: Secret = _env(
        "DIALER_RECORDING_CREDENTIALS",
        "",
        "service account JSON for the bucket; empty: the identity that Egress itself runs under",
        secret=True,
    )
    ice_transport: str = _env("DIALER_ICE_TRANSPORT", "all", "`all`, or `relay` to talk through TURN only")
    turn_urls: str = _env("DIALER_TURN_URLS", "tcp443", "`tcp443`: TURN over TCP to port 443 only; `any`: over UDP too")
    twilio_url: str = _env("DIALER_TWILIO_URL", "https://api.twilio.com", "where TURN credentials come from")
    twilio_account_sid: str = _env("TWILIO_ACCOUNT_SID", "", "Twilio account of the TURN credentials")
    twilio_auth_token: Secret = _env("TWILIO_AUTH_TOKEN", "", "its token; agents only", secret=True)
    vault_addr: str = _env("VAULT_ADDR", "", "Vault, which keeps secrets then; empty: files in DIALER_SECRETS_DIR")
    vault_token: Secret = _env("VAULT_TOKEN", "", "Vault's token", secret=True)
    vault_namespace: str = _env("VAULT_NAMESPACE", "", "Vault's namespace, where there are any")
    vault_mount: str = _env("DIALER_VAULT_MOUNT", "secret", "mount of a KV secrets engine, version 2")
    vault_path: str = _env("DIALER_VAULT_PATH", "", "secret whose fields are secret settings that are not given here")
    vault_store_path: str = _env("DIALER_VAULT_STORE_PATH", "outbound-dialer/store", "below it agents keep credentials")
    secrets_dir: str = _env("DIALER_SECRETS_DIR", "run/secrets", "where agents keep credentials without a Vault")
    projections_host: str = _env("DIALER_PROJECTIONS_HOST", "127.0.0.1", "address of the read side")
    projections_port: Port = _env("DIALER_PROJECTIONS_PORT", 21122, "port of the read side")
    store_path: str = _env("DIALER_STORE_PATH", "run/read.sqlite", "SQLite file of the read models")
    metrics_port: Port = _env("DIALER_METRICS_PORT", 0, "port of the agent worker's metrics; 0: none")
    log_level: str = _env("DIALER_LOG_LEVEL", "info", "debug, info, warning or error")


_TYPES: Final[dict[str, Any]] = {
    "str": str,
    "int": int,
    "Port": Port,
    "Positive": Positive,
    "PositiveSeconds": PositiveSeconds,
}
_OTHERS: Final = frozenset({"DIALER_CACHE_DIR", "DIALER_CRASH_AT", "DIALER_AGENT_SOCKET"})
"""Names of ours that are read where a process starts, not settings."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read and check everything. Raises: SettingsError with one line for the operator."""
    names = {f.metadata["env"]: f for f in fields(Settings)}
    known = set(names) | {f"{n}_FILE" for n, f in names.items() if f.metadata["secret"]} | _OTHERS
    for name in environment:
        if name.startswith("DIALER_") and name not in known:
            raise SettingsError(f"{name} is not a setting; `dialer config` lists them all")
    values: dict[str, Any] = {}
    for name, spec in names.items():
        text = _text(name, spec.metadata["secret"], environment)
        if text is None:
            continue
        values[spec.name] = Secret(text) if spec.metadata["secret"] else _checked(name, str(spec.type), text)
    return Settings(**values)


def _text(name: str, secret: bool, environment: Mapping[str, str]) -> str | None:
    path = environment.get(f"{name}_FILE") if secret else None
    if path:
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise SettingsError(f"{name}_FILE cannot be read ({error.strerror}); check the path and its mode") from None
    return environment.get(name) or None


def _checked(name: str, type_name: str, text: str) -> Any:
    try:
        return TypeAdapter(_TYPES[type_name]).validate_python(text)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise SettingsError(f"{name} is not right: {problem}") from None


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Return (variable, effective value with secrets masked, what it is for) of every setting."""
    return [(f.metadata["env"], str(getattr(settings, f.name)), f.metadata["says"]) for f in fields(Settings)]


def required(secret: Secret, name: str) -> str:
    """Return a secret that must be there. Raises: SettingsError."""
    if not secret:
        raise SettingsError(f"{name} is not set; give it, or {name}_FILE with a path")
    return secret.reveal()


def key_bytes(secret: Secret, name: str) -> bytes:
    """Return the bytes of a base64 secret that must be there. Raises: SettingsError."""
    try:
        return base64.b64decode(required(secret, name), validate=True)
    except binascii.Error:
        raise SettingsError(f"{name} must be base64; `openssl rand -base64 32` makes one") from None


def brief_keys(secret: Secret) -> dict[str, bytes]:
    """Return the keys of `BRIEF_KEY`, first one first. Raises: SettingsError."""
    keys: dict[str, bytes] = {}
    for part in required(secret, "BRIEF_KEY").split(","):
        name, _, text = part.strip().partition(":")
        keys[name] = key_bytes(Secret(text), "BRIEF_KEY")
        if not name or len(keys[name]) != 32:
            raise SettingsError("BRIEF_KEY must be id:base64 of 32 bytes, several with commas")
    return keys
