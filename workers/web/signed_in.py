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
from .auth import Keyring
from .session import PREFIX, NotSignedInError, Session, Sessions


@dataclass(frozen=True, slots=True)
class Desk:
    """The control side as the dashboard sees it."""

    control: Control
    sessions: Sessions
    keys: Keyring

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.control.ledger

    @property
    def settings(self) -> Settings:
        """All settings."""
        return self.control.settings

    def session_of(self, request: Request) -> Session:
        """The session of a request, while the key that opened it opens these pages; one that a login link opened needs none.

        Raises:
            NotSignedInError: as `Sessions.of`, or the key has ended.
            LedgerUnavailableError: whether the key lives is not known.
        """
        session = self.sessions.of(request)
        if session.key_name and not self.keys.still_opens(session.key_name, "review"):
            raise NotSignedInError("the key of this session has ended")
        return session

    def reader(self) -> Callable[[Request], Session]:
        """A dependency: the session of who asks. Raises as `session_of`."""
        return self.session_of

    def writer(self) -> Callable[[Request, str], Session]:
        """A dependency: the session of who sends a form of ours. Raises as `session_of`, and `ForgedRequestError`."""

        def check(request: Request, csrf: Annotated[str, Form()] = "") -> Session:
            session = self.session_of(request)
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
