"""Rendering: templates that escape everything, the fixed facts of every page, and the headers that keep scripts of others out."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from . import wording
from .preferences import Preferences
from .session import PREFIX, Session

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
SECURITY_HEADERS: Final = {
    # no inline script, no inline style, nothing from elsewhere
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@cache
def static_version() -> str:
    """A hash over the static files: a new build never meets an old script in a browser's cache."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in ("reason", "warning", "age", "moment", "when", "number", "bundle_name"):
        environment.filters[name] = getattr(wording, name)
    environment.globals.update(
        prefix=PREFIX,
        words=wording.WORDS,
        signs=wording.SIGNS,
        decisions=wording.DECISIONS,
        readings=wording.READINGS,
        kinds=wording.KINDS,
        heat_kinds=wording.HEAT_KINDS,
        reason_tags=wording.REASON_TAGS,
        static_version=static_version(),
    )
    return environment


def render(request: Request, template: str, *, session: Session | None, status: int = 200, **facts: Any) -> Response:
    """One page."""
    shared = {
        "session": session,
        "preferences": Preferences.of(request),
        "path": request.url.path,
        "is_fragment": request.headers.get("hx-request") == "true" and request.headers.get("hx-history-restore-request") != "true",
    }
    text = _templates().get_template(template).render({**shared, **facts})
    return HTMLResponse(text, status_code=status, headers={"Cache-Control": "no-store"})
