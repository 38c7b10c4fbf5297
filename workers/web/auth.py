"""API keys: kept as SHA-256, compared in constant time, with scopes, an owner and an end.

Two kinds: those of the setting `VERIFRAME_API_KEYS`, and those that `veriframe keys make` keeps in the ledger. A key acts for one
tenant and sees that tenant's videos only; `review` and `admin` are for the house, so only keys without a tenant may hold them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..allowance import Limiter
from ..errors import SettingsError
from ..ledger import Ledger
from .session import is_own_origin

SCOPES: Final = frozenset({"submit", "read", "review", "admin"})
HOUSE_SCOPES: Final = frozenset({"review", "admin"})
"""Scopes that reach across tenants."""
TENANT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_ENTRY = re.compile(r"(?P<scopes>[a-z]+(?:,[a-z]+)*)(?:@(?P<tenant>[A-Za-z0-9_-]{1,64}))?:(?P<digest>[0-9a-f]{64})", re.ASCII)
_InHeader = Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of `veriframe keys make`."))]
_AsBearer = Annotated[
    HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False, description="The same key, as a bearer token."))
]
"""Both only tell the API's description how to send a key; `given_key` reads it, for every kind of request."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: what it may do, for whom, and the hash it is known by."""

    scopes: frozenset[str]
    digest: str
    tenant: str = ""
    name: str = "settings"

    def may(self, scope: str) -> bool:
        """Whether it has the scope; `admin` has all."""
        return scope in self.scopes or "admin" in self.scopes

    def tenant_for(self, wanted: str | None) -> str:
        """Whose videos to read: the key's own unless another tenant's are wanted.

        Raises:
            HTTPException: 403, the videos are another tenant's and the key does not reach across tenants.
        """
        if wanted is None or wanted == self.tenant:
            return self.tenant
        if not self.may("review"):
            raise HTTPException(403, "another tenant's videos want a key with the scope 'review': leave `tenant` out to read your own")
        return wanted


_ANYBODY: Final = ApiKey(scopes=SCOPES, digest="", name="anybody on this machine")


def check_scopes(scopes: frozenset[str], *, tenant: str) -> None:
    """Refuse scopes that do not exist or that a tenant must not have.

    Raises:
        SettingsError: with what is allowed.
    """
    if not scopes or not scopes <= SCOPES:
        raise SettingsError("a key's scopes are some of " + ", ".join(sorted(SCOPES)))
    if tenant and scopes & HOUSE_SCOPES:
        raise SettingsError(f"a tenant's key may submit and read, got {', '.join(sorted(scopes & HOUSE_SCOPES))} too: leave the tenant out")


def parse_keys(entries: Sequence[str]) -> list[ApiKey]:
    """Read `scope[,scope][@tenant]:sha256hex` entries.

    Raises:
        SettingsError: an entry is malformed.
    """
    keys = []
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise SettingsError(
                "VERIFRAME_API_KEYS entries are `scope[,scope][@tenant]:sha256hex` with scopes " + ", ".join(sorted(SCOPES))
            )
        scopes, tenant = frozenset(match["scopes"].split(",")), match["tenant"] or ""
        check_scopes(scopes, tenant=tenant)
        keys.append(ApiKey(scopes=scopes, digest=match["digest"], tenant=tenant, name=f"settings:{match['digest'][:8]}"))
    return keys


class Keyring:
    """Every key that opens this API right now."""

    def __init__(self, ledger: Ledger, entries: Sequence[str], *, host: str, limiter: Limiter) -> None:
        """Read the settings' keys.

        Raises:
            SettingsError: an entry is malformed, or there is no key at all while the API listens beyond this machine.
        """
        self._ledger = ledger
        self._limiter = limiter
        self._static = parse_keys(entries)
        self._made_once = False
        if host not in _LOOPBACK and self.is_open:
            raise SettingsError(
                f"the API may not listen on {host} without keys: make one with `veriframe keys make`, set VERIFRAME_API_KEYS, "
                "or VERIFRAME_API_HOST=127.0.0.1"
            )

    @property
    def is_open(self) -> bool:
        """Whether no key was ever made: then everybody on this machine may do everything."""
        if self._static or self._made_once:
            return False
        self._made_once = self._ledger.has_keys()
        return not self._made_once

    def find(self, given: str) -> ApiKey | None:
        """The living key that somebody sent; None for a wrong, expired or revoked one."""
        digest = key_digest(given)
        matching = [key for key in self._static if hmac.compare_digest(key.digest, digest)]
        if matching:
            return ApiKey(
                scopes=frozenset().union(*(key.scopes for key in matching)), digest=digest, tenant=matching[0].tenant, name=matching[0].name
            )
        row = self._ledger.find_key(digest) if given else None
        if row is None or row.state != "active":
            return None
        return ApiKey(scopes=frozenset(row.scopes), digest=digest, tenant=row.tenant, name=row.key_id)

    def still_opens(self, name: str, scope: str) -> bool:
        """Whether the key that `find` gave this name still lives and has the scope."""
        static = [key for key in self._static if key.name == name]
        if static:
            return any(key.may(scope) for key in static)
        row = self._ledger.key_named(name)
        return row is not None and row.state == "active" and ApiKey(scopes=frozenset(row.scopes), digest="").may(scope)

    def require(self, scope: str) -> Callable[[Request], ApiKey]:
        """A dependency that lets a request through when its key has the scope and its tenant has not used up its share."""

        def check(request: Request, _header: _InHeader = None, _bearer: _AsBearer = None) -> ApiKey:
            if self.is_open:
                _require_this_machine(request)
                return _ANYBODY
            key = self.find(given_key(request))
            if key is None:
                raise HTTPException(401, "send a valid key in the header X-API-Key", headers={"WWW-Authenticate": "Bearer"})
            if not key.may(scope):
                raise HTTPException(403, f"this key lacks the scope {scope!r}")
            self._limiter.take(key.tenant)
            return key

        check.scope = scope  # type: ignore[attr-defined]  # a route can be asked what it wants
        return check


def _require_this_machine(request: Request) -> None:
    """Keep web pages out while there are no keys: a browser here reaches loopback for every page that it shows.

    A name that was made to lead to loopback shows in `Host`, a page of another site in `Origin`.
    """
    host = request.headers.get("host", "")
    if not _is_loopback(host) or not is_own_origin(request):
        origin = request.headers.get("origin")
        raise HTTPException(
            403,
            f"without keys this API answers programs on this machine only, got Host {host!r:.80}{f' and Origin {origin!r:.80}' if origin else ''}: "
            "call it as localhost or 127.0.0.1, or make a key with `veriframe keys make`",
        )


def _is_loopback(netloc: str) -> bool:
    try:
        name = urlsplit(f"//{netloc}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def key_digest(key: str) -> str:
    """What a key is known by. One round is enough: keys are random and long, nobody chooses them."""
    return hashlib.sha256(key.encode()).hexdigest()


def given_key(request: Request) -> str:
    """The key of a request: the header `X-API-Key`, or a bearer token."""
    return request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ").strip()
