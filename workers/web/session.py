"""Reviewers' sessions: a signed cookie with a name and an age, and a token against forged requests bound to it.

Two ways in: a one-time link (`veriframe login-link NAME`; `veriframe up` prints one), or a name with an API key of scope `review`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from ..errors import SettingsError
from ..ledger.standing import NO_PERSONS
from ..settings import Settings

COOKIE: Final = "veriframe_session"
PREFIX: Final = "/review"
"""Where the dashboard is mounted; its cookies are sent nowhere else."""
NAMES: Final = "a name has letters, digits and . _ @ - only, and is not " + " or ".join(sorted(NO_PERSONS))
"""What `reviewer_name` takes, for people."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)
_SECRET_BYTES: Final = 32
_SALT: Final = "veriframe-session/2"
"""Another one than that of builds whose sessions did not name their key: those end, or they would outlive it."""
LINK_SECONDS: Final = 1800.0
"""A login link that nobody opened is worth nothing after this time."""


class NotSignedInError(Exception):
    """Raised when a page needs a reviewer and there is no session, or it ran out."""


class ForgedRequestError(Exception):
    """Raised when a form carries no token of this session, or comes from another site."""


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in reviewer."""

    reviewer: str
    session_id: str
    key_name: str
    """The API key that opened it; empty: a login link did."""
    csrf: str
    """Goes into every form; nobody without the session can make it."""


def actor_name(text: str) -> str | None:
    """The name in the one form that the log knows: lower case, letters, digits and `. _ @ -`. None when it cannot be one."""
    name = text.strip().lower()
    return name if _NAME.fullmatch(name) else None


def reviewer_name(text: str) -> str | None:
    """The name of a person, as `actor_name`. None also when the log keeps it for lines that no person writes."""
    name = actor_name(text)
    return None if name in NO_PERSONS else name


def load_secret(settings: Settings) -> str:
    """The secret that signs sessions: the setting, else one that is made once and kept in the state folder.

    Where the state folder cannot be written the secret lives as long as this process: reviewers sign in again after a restart.
    """
    if settings.web_secret is not None:
        secret = settings.web_secret.get_secret_value()
        if len(secret) < _SECRET_BYTES:
            raise SettingsError(f"VERIFRAME_WEB_SECRET needs at least {_SECRET_BYTES} characters, got {len(secret)}")
        return secret
    made = secrets.token_urlsafe(_SECRET_BYTES)
    kept = settings.state_dir / "web.secret"
    try:
        return _read_or_write(kept, made)
    except OSError:
        return made


def _read_or_write(path: Path, made: str) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip() or made
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(made)
    return made


def login_address(settings: Settings, token: str) -> str:
    """Where a one-time login link leads, on this machine."""
    host = "localhost" if settings.api_host in ("127.0.0.1", "0.0.0.0", "::1", "::") else settings.api_host
    return f"http://{host}:{settings.api_port}{PREFIX}/login/{token}"


class Sessions:
    """Makes and reads sessions."""

    def __init__(self, secret: str, *, hours: float) -> None:
        self._secret = secret.encode()
        self._seconds = hours * 3600
        self._signer = URLSafeTimedSerializer(secret, salt=_SALT, signer_kwargs={"digest_method": hashlib.sha256})

    def begin(self, response: Response, *, reviewer: str, key_name: str = "", is_https: bool) -> None:
        """Sign somebody in."""
        value = self._signer.dumps([reviewer, secrets.token_urlsafe(12), *([key_name] if key_name else [])])
        response.set_cookie(COOKIE, str(value), max_age=int(self._seconds), path=PREFIX, httponly=True, samesite="lax", secure=is_https)

    def end(self, response: Response) -> None:
        """Sign somebody out."""
        response.delete_cookie(COOKIE, path=PREFIX)

    def of(self, request: Request) -> Session:
        """The session of a request, by its cookie alone.

        Raises:
            NotSignedInError: there is none, it was tampered with, or it ran out.
        """
        value = request.cookies.get(COOKIE, "")
        try:
            reviewer, session_id, *named = self._signer.loads(value, max_age=int(self._seconds))
        except (BadSignature, ValueError, TypeError) as err:
            raise NotSignedInError("no session") from err
        csrf = self._csrf(str(session_id))
        return Session(reviewer=str(reviewer), session_id=str(session_id), key_name=str(named[0]) if named else "", csrf=csrf)

    def require_own(self, request: Request, session: Session, token: str) -> None:
        """Let only forms of our own pages through.

        Raises:
            ForgedRequestError: the token is missing or wrong, or the browser names another site as its origin.
        """
        if not hmac.compare_digest(token.encode(), session.csrf.encode()) or not is_own_origin(request):
            raise ForgedRequestError("the form is not of this session")

    def _csrf(self, session_id: str) -> str:
        return hmac.new(self._secret, b"csrf/" + session_id.encode(), hashlib.sha256).hexdigest()[:32]


def is_own_origin(request: Request) -> bool:
    """Whether the request comes from our own pages, as far as the browser tells."""
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")
