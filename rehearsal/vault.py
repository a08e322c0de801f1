"""A stand-in for Vault: its HTTP API of KV version 2 at one mount, with one token, in memory.

    VAULT_TOKEN=… python -m rehearsal.vault --port 8200

It answers as Vault 1.21 does, tried side by side (`tests/contracts/test_secret_store.py` runs on both): 200 with
metadata, 404 `{"errors": []}` for what is not there, 404 with the deleted version's metadata, 403 for another token,
404 with a sentence for another mount, 400 for a body that is no secret. Faults: `vault.read`, `vault.write`.
Source: Vault's HTTP API, /secret/kv/kv-v2.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from rehearsal import faults, serving

VERSIONS_MAX: Final = 10
"""Versions of a secret that are kept, as in Vault."""
SECRETS_MAX: Final = 1_000
BODY_BYTES_MAX: Final = 1024 * 1024


class Vault:
    """One mount's secrets: path -> its versions, the oldest first."""

    def __init__(self, token: str, script: faults.Script, mount: str = "secret") -> None:
        self._token, self._script, self._mount = token, script, mount
        self._secrets: dict[str, list[dict[str, Any]]] = {}

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(
            middlewares=[faults.middleware(self._script, _place), self._authorized], client_max_size=BODY_BYTES_MAX
        )
        app.add_routes(
            [
                web.get("/v1/sys/health", self._health),
                web.get("/v1/{mount}/data/{path:.+}", self._read),
                web.post("/v1/{mount}/data/{path:.+}", self._write),
                web.put("/v1/{mount}/data/{path:.+}", self._write),
                web.delete("/v1/{mount}/data/{path:.+}", self._delete),
                web.delete("/v1/{mount}/metadata/{path:.+}", self._forget),
            ]
        )
        return app

    @web.middleware
    async def _authorized(self, request: web.Request, handler: faults.Handler) -> web.StreamResponse:
        if request.path == "/v1/sys/health":
            return await handler(request)
        if not secrets.compare_digest(request.headers.get("X-Vault-Token", ""), self._token):
            return _errors(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
        if (mount := request.match_info.get("mount")) != self._mount:
            return _errors(404, f'no handler for route "{mount}/data/…". route entry not found.')
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"initialized": True, "sealed": False, "standby": False, "version": "rehearsal"})

    async def _read(self, request: web.Request) -> web.Response:
        versions = self._secrets.get(request.match_info["path"], [])
        if not versions:
            return _errors(404)
        latest = versions[-1]
        deleted = bool(latest["metadata"]["deletion_time"])
        shown = {"data": None if deleted else latest["data"], "metadata": latest["metadata"]}
        return _answer(shown, 404 if deleted else 200)

    async def _write(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        try:
            body = await request.json()
        except ValueError:
            return _errors(400, "malformed JSON")
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, dict):
            return _errors(400, "no data provided")
        if path not in self._secrets and len(self._secrets) >= SECRETS_MAX:
            return _errors(507, "the rehearsal keeps no more secrets")
        versions = self._secrets.setdefault(path, [])
        cas = (body.get("options") or {}).get("cas")
        number = versions[-1]["metadata"]["version"] if versions else 0
        if cas is not None and cas != number:
            return _errors(400, "check-and-set parameter did not match the current version")
        versions.append({"data": data, "metadata": _metadata(number + 1)})
        del versions[:-VERSIONS_MAX]
        return _answer(versions[-1]["metadata"])

    async def _delete(self, request: web.Request) -> web.Response:
        if versions := self._secrets.get(request.match_info["path"]):
            versions[-1]["metadata"]["deletion_time"] = _now()
        return web.Response(status=204)

    async def _forget(self, request: web.Request) -> web.Response:
        self._secrets.pop(request.match_info["path"], None)
        return web.Response(status=204)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _metadata(version: int) -> dict[str, Any]:
    return {
        "created_time": _now(),
        "custom_metadata": None,
        "deletion_time": "",
        "destroyed": False,
        "version": version,
    }


def _answer(data: dict[str, Any], status: int = 200) -> web.Response:
    whole = {
        "request_id": secrets.token_hex(16),
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "data": data,
        "wrap_info": None,
        "warnings": None,
        "auth": None,
        "mount_type": "kv",
    }
    return _json(whole, status)


def _errors(status: int, *errors: str) -> web.Response:
    return _json({"errors": list(errors)}, status)


def _json(body: object, status: int) -> web.Response:
    # Without a charset, as Vault: hvac reads errors of exactly this type only.
    return web.Response(body=json.dumps(body).encode(), status=status, headers={"Content-Type": "application/json"})


def _place(request: web.Request) -> str | None:
    kinds = {"GET": "read", "POST": "write", "PUT": "write", "DELETE": "delete"}
    return f"vault.{kinds[request.method]}" if request.method in kinds else None


def main() -> None:
    """Serve until a signal."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--port", type=int, default=8200)
    asked.add_argument("--mount", default="secret")
    asked.add_argument("--faults", type=Path, help="a script of faults (rehearsal/faults.py)")
    given = asked.parse_args()
    vault = Vault(os.environ["VAULT_TOKEN"], faults.script_from(given.faults), given.mount)
    serving.run(vault.app(), given.port, "vault")


if __name__ == "__main__":
    main()
