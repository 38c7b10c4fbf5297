"""Login, logout and preferences."""

from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Form, Query, Request, Response

from .auth import Keyring
from .pages import render
from .preferences import Preferences
from .session import NAMES, ForgedRequestError, Session, is_own_origin, reviewer_name
from .signed_in import Desk, go, own_path

_MAX_TEXT: Final = 300
_Text = Annotated[str, Form(max_length=_MAX_TEXT)]


def add_sign_in(app: FastAPI, desk: Desk, *, keys: Keyring) -> None:
    """Serve login, logout and preferences."""
    _add_key_login(app, desk, keys=keys)
    _add_link_login(app, desk)
    _add_preferences(app, desk)


def _page(request: Request, *, following: str = "", problem: str | None = None, has_keys: bool = False, **facts: Any) -> Response:
    shown = {"following": following, "problem": problem, "has_keys": has_keys, "token": None, **facts}
    return render(request, "login.html", session=None, **shown)


def _welcome(desk: Desk, request: Request, name: str, following: str = "", *, key_name: str = "") -> Response:
    _require_own_origin(request)
    desk.ledger.audit(actor=f"reviewer:{name}", action="signed_in", target=name, detail={"by": f"key:{key_name}" if key_name else "link"})
    response = go(own_path(following))
    desk.sessions.begin(response, reviewer=name, key_name=key_name, is_https=request.url.scheme == "https")
    return response


def _require_own_origin(request: Request) -> None:
    if not is_own_origin(request):
        raise ForgedRequestError("the login form is not ours")


def _add_key_login(app: FastAPI, desk: Desk, *, keys: Keyring) -> None:
    @app.get("/login")
    def login_page(request: Request, following: Annotated[str, Query(alias="next", max_length=_MAX_TEXT)] = "") -> Response:
        return _page(request, following=following, has_keys=not keys.is_open)

    @app.post("/login")
    def log_in(request: Request, name: _Text = "", key: _Text = "", following: _Text = "") -> Response:
        reviewer = reviewer_name(name)
        shown: dict[str, Any] = {"following": following, "has_keys": not keys.is_open}
        if reviewer is None:
            return _page(request, status=422, problem=NAMES.capitalize() + ".", **shown)
        found = keys.find(key)
        if found is None or not found.may("review"):
            return _page(request, status=403, problem="This key does not open the review pages.", **shown)
        return _welcome(desk, request, reviewer, following, key_name=found.name)

    @app.post("/logout")
    def log_out(_session: Annotated[Session, Depends(desk.writer())]) -> Response:
        response = go("/login")
        desk.sessions.end(response)
        return response


def _add_link_login(app: FastAPI, desk: Desk) -> None:
    @app.get("/login/{token}")
    def link_page(request: Request, token: str) -> Response:
        """A form, not the login itself: what only looks at links, as chat programs do, must not use one up."""
        return _page(request, token=token)

    @app.post("/login/{token}")
    def use_link(request: Request, token: str) -> Response:
        _require_own_origin(request)
        reviewer = desk.ledger.use_login(token[:_MAX_TEXT])
        if reviewer is None:
            return _page(request, status=403, problem="This link was used or is too old. Ask for a new one: veriframe login-link NAME")
        return _welcome(desk, request, reviewer)


def _add_preferences(app: FastAPI, desk: Desk) -> None:
    @app.get("/preferences")
    def preferences_page(request: Request, session: Annotated[Session, Depends(desk.reader())]) -> Response:
        return render(request, "preferences.html", session=session)

    @app.post("/preferences", dependencies=[Depends(desk.writer())])
    def set_preferences(
        blur: Annotated[bool, Form()] = False,
        grey: Annotated[bool, Form()] = False,
        mute: Annotated[bool, Form()] = False,
        keys_on: Annotated[bool, Form(alias="keys")] = False,
        theme: Annotated[Literal["auto", "light", "dark"], Form()] = "auto",
    ) -> Response:
        response = go("/preferences")
        Preferences(blur=blur, grey=grey, mute=mute, keys=keys_on, theme=theme).write(response)
        return response
