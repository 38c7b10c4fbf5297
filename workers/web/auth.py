"""API keys: kept as SHA-256, compared in constant time, with scopes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..errors import SettingsError

SCOPES: Final = frozenset({"submit", "read", "review", "admin"})
_ENTRY = re.compile(r"(?P<scopes>[a-z]+(?:,[a-z]+)*):(?P<digest>[0-9a-f]{64})")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: what it may do and the hash it is known by."""

    scopes: frozenset[str]
    digest: str


def parse_keys(entries: Sequence[str], *, host: str) -> list[ApiKey]:
    """Read `scope[,scope]:sha256hex` entries.

    Raises:
        SettingsError: an entry is malformed, or there are none while the API listens beyond this machine.
    """
    keys = []
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        scopes = frozenset(match["scopes"].split(",")) if match else frozenset()
        if match is None or not scopes <= SCOPES:
            raise SettingsError("VERIFRAME_API_KEYS entries are `scope[,scope]:sha256hex` with scopes " + ", ".join(sorted(SCOPES)))
        keys.append(ApiKey(scopes=scopes, digest=match["digest"]))
    if not keys and host not in _LOOPBACK:
        raise SettingsError(f"the API may not listen on {host} without keys: set VERIFRAME_API_KEYS, or VERIFRAME_API_HOST=127.0.0.1")
    return keys


def require(keys: Sequence[ApiKey], scope: str) -> Callable[[Request], None]:
    """A dependency that lets a request through when its `X-API-Key` (or bearer token) has the scope."""

    def check(request: Request) -> None:
        if not keys:
            return
        given = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        digest = hashlib.sha256(given.encode()).hexdigest()
        matching = [key for key in keys if hmac.compare_digest(key.digest, digest)]
        if not matching:
            raise HTTPException(401, "send a valid key in the header X-API-Key")
        if not any(scope in key.scopes or "admin" in key.scopes for key in matching):
            raise HTTPException(403, f"this key lacks the scope {scope!r}")

    return check
