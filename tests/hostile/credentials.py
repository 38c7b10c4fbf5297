"""Try every route of the application with every kind of bad credential; the routes come from the application itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.routing import Mount, Route

from api_caller import ApiCaller, make_caller
from verdict_builders import put_verdict
from workers.ledger import Ledger
from workers.web.auth import SCOPES, key_digest
from workers.web.session import COOKIE, PREFIX, Sessions

PUBLIC = frozenset(
    {
        ("GET", "/openapi.json"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("GET", "/review/login"),
        ("POST", "/review/login"),
        ("GET", "/review/login/{token}"),
        ("POST", "/review/login/{token}"),
    }
)
"""What a stranger may ask. A new route is not here, so it must refuse strangers."""
STATIC = "/review/static"
_SECRET = "a session secret for tests, 32 characters"
_VALUES = {"{video_id}": "vid_1", "{job_id}": "0" * 32, "{seq}": "1", "{shape}": "hive", "{token}": "guess"}


@dataclass(frozen=True)
class Door:
    """One route with one method."""

    method: str
    path: str
    scope: str | None
    """What the route says it wants; None for pages and for what is public."""

    @property
    def is_page(self) -> bool:
        return self.path.startswith(PREFIX + "/")

    @property
    def address(self) -> str:
        address = self.path
        for name, value in _VALUES.items():
            address = address.replace(name, value)
        return address


@dataclass(frozen=True)
class Try:
    """One request with one bad credential."""

    door: Door
    credential: str
    status: int
    rejected: bool


def doors_of(app: object) -> list[Door]:
    """Every route with every method, mounted applications included, static files left out."""
    return sorted({*_walk(app.routes, "")}, key=lambda door: (door.path, door.method))  # type: ignore[attr-defined]


def _walk(routes: list[object], prefix: str) -> Iterator[Door]:
    for route in routes:
        if isinstance(route, Mount) and prefix + route.path != STATIC:
            yield from _walk(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            scopes = [call.scope for call in _dependencies(getattr(route, "dependant", None)) if hasattr(call, "scope")]
            for method in (route.methods or {"GET"}) - {"HEAD"}:
                yield Door(method, prefix + route.path, scopes[0] if scopes else None)


def _dependencies(dependant: Any) -> Iterator[Any]:
    for each in dependant.dependencies if dependant is not None else ():
        yield each.call
        yield from _dependencies(each)


class Matrix:
    """An application with one verdict behind it, and every kind of credential."""

    def __init__(self, ledger: Ledger) -> None:
        put_verdict(ledger, "vid_1")
        self._keys = {scope: f"key-that-may-{scope}" for scope in SCOPES}
        for number, (scope, key) in enumerate({**self._keys, "old": "key-that-ran-out", "gone": "key-that-was-revoked"}.items()):
            scopes = [scope] if scope in SCOPES else sorted(SCOPES)
            days = -1.0 if scope == "old" else None
            ledger.add_key(key_id=f"k{number}", digest=key_digest(key), name=scope, scopes=scopes, days=days, actor="test")
            if scope == "gone":
                ledger.revoke_key(f"k{number}", actor="test")
        self.api: ApiCaller = make_caller(ledger, web_secret=_SECRET, requests_per_minute=0)
        self.doors = [door for door in doors_of(self.api.app) if (door.method, door.path) not in PUBLIC]

    def tries(self) -> list[Try]:
        """Every closed door with every credential that must not open it."""
        return [self._try(door, name, headers) for door in self.doors for name, headers in self._bad(door)]

    def passes(self, door: Door) -> bool:
        """Whether the right key opens the door: otherwise a refusal of the others would prove nothing."""
        status = self.api.call(door.method, door.address, headers={"x-api-key": self._keys[door.scope or "admin"]}).status_code
        return status not in (401, 403)

    def signed_in(self) -> int:
        """What a good session gets from the first page."""
        return self.api.get(f"{PREFIX}/", headers={"cookie": f"{COOKIE}={self._session()}"}).status_code

    def _bad(self, door: Door) -> Iterator[tuple[str, dict[str, str]]]:
        yield "missing", {}
        yield "wrong", {"x-api-key": "key-that-was-guessed"}
        yield "wrong", {"authorization": "Bearer key-that-was-guessed"}
        yield "wrong", {"authorization": "Basic a2V5LXRoYXQtbWF5LWFkbWlu"}
        yield "expired", {"x-api-key": "key-that-ran-out"}
        yield "expired", {"x-api-key": "key-that-was-revoked"}
        if door.is_page:  # a session is needed, no key is one
            yield from (("scope-less", {"x-api-key": key}) for key in self._keys.values())
            yield "wrong", {"cookie": f"{COOKIE}={self._session()[:-2]}xx"}
            yield "wrong", {"cookie": f"{COOKIE}={self._session(secret='b' * 40)}"}
            yield "expired", {"cookie": f"{COOKIE}={self._session(made_at=1_600_000_000)}"}
        else:
            others = SCOPES - {door.scope, "admin"}
            yield from (("scope-less", {"x-api-key": self._keys[scope]}) for scope in sorted(others))
            yield "wrong", {"cookie": f"{COOKIE}={self._session()}"}

    def _session(self, *, secret: str = _SECRET, made_at: int | None = None) -> str:
        signer = Sessions(secret, hours=12)._signer
        if made_at is None:
            return str(signer.dumps(["ana", "s"]))
        inner = signer.make_signer(signer.salt)
        inner.get_timestamp = lambda: made_at  # type: ignore[method-assign]
        return inner.sign(signer.dump_payload(["ana", "s"])).decode()

    def _try(self, door: Door, credential: str, headers: dict[str, str]) -> Try:
        answer = self.api.call(door.method, door.address, headers=headers)
        to_login = answer.status_code == 303 and answer.headers["location"].startswith(f"{PREFIX}/login")
        refused = answer.status_code in (401, 403)
        if refused and not door.is_page:
            refused = set(answer.json()) == {"code", "message", "retryable"}
        rejected = (refused or (door.is_page and to_login)) and "made for a test" not in answer.text
        return Try(door, credential, answer.status_code, rejected)
