"""HTTP to `DIALER_URL`, the one address users see; a problem becomes one line."""

from __future__ import annotations

from typing import Any, Final

import httpx

from dialer.cli.errors import CliError
from runtime.settings import Settings

TIMEOUT_S: Final = 15.0


def ask(settings: Settings, method: str, path: str, **options: Any) -> httpx.Response:
    """Send one request and return a good answer. Raises: CliError."""
    headers = {"Authorization": f"Bearer {settings.api_key.reveal()}"} if settings.api_key else {}
    try:
        answer = httpx.request(method, settings.url + path, headers=headers, timeout=TIMEOUT_S, **options)
    except httpx.HTTPError as error:
        raise CliError(
            f"no answer from {settings.url} ({type(error).__name__}); is `dialer serve` up, is DIALER_URL right?"
        ) from None
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
        detail = str(problem.get("detail", answer.reason_phrase))
    except ValueError:
        detail = answer.reason_phrase
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        detail += "; set DIALER_API_KEY"
    raise CliError(f"{detail} (HTTP {answer.status_code})")
