"""What every page of the dashboard gets: the control side, who is asking, and forms that were checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..ledger import Ledger
from ..services import Control
from ..settings import Settings
from .session import PREFIX, Session, Sessions


@dataclass(frozen=True, slots=True)
class Desk:
    """The control side as the dashboard sees it."""

    control: Control
    sessions: Sessions

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.control.ledger

    @property
    def settings(self) -> Settings:
        """All settings."""
        return self.control.settings

    def reader(self) -> Callable[[Request], Session]:
        """A dependency: the session of who asks. Raises `NotSignedInError`."""
        return self.sessions.of

    def writer(self) -> Callable[[Request, str], Session]:
        """A dependency: the session of who sends a form of ours. Raises `NotSignedInError`, `ForgedRequestError`."""

        def check(request: Request, csrf: Annotated[str, Form()] = "") -> Session:
            session = self.sessions.of(request)
            self.sessions.require_own(request, session, csrf)
            return session

        return check


def go(path: str) -> Response:
    """Send the browser to another page of the dashboard after a form."""
    return RedirectResponse(PREFIX + path, status_code=303)


def own_path(path: str | None) -> str:
    """A page of the dashboard that a form or link named, or the queue: never another site."""
    if path and path.startswith(PREFIX + "/") and not path.startswith("//") and "\\" not in path and path.isprintable():
        return path.removeprefix(PREFIX)
    return "/"
