"""The dashboard: an application of its own under `/review`, with its own error pages, headers and sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlencode

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from ..errors import WorkerError
from ..services import Control
from .auth import Keyring
from .decisions import add_decisions
from .errors import RETRY_AFTER_SECONDS, status_of
from .heatmap_page import add_case_file, add_heatmaps
from .history_pages import add_history
from .pages import SECURITY_HEADERS, STATIC, render, static_version
from .queue_page import add_queue
from .session import PREFIX, ForgedRequestError, NotSignedInError, Session, Sessions, load_secret
from .sign_in_pages import add_sign_in
from .signed_in import Desk
from .threshold_page import add_thresholds
from .video_page import add_video

log = structlog.get_logger(__name__)
_FORM_BYTES: Final = 64 * 1024
_TITLES: Final = {403: "Not allowed", 404: "Not found", 409: "Somebody was quicker", 503: "Not just now"}


def make_dashboard(control: Control, keys: Keyring) -> FastAPI:
    """Make the dashboard on an open control side.

    Raises:
        SettingsError: the session secret is too short.
    """
    settings = control.settings
    desk = Desk(control, Sessions(load_secret(settings), hours=settings.session_hours), keys)
    app = FastAPI(title="Veriframe review", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    add_queue(app, desk)
    add_video(app, desk)
    add_heatmaps(app, desk)
    add_case_file(app, desk)
    add_decisions(app, desk)
    add_history(app, desk)
    add_thresholds(app, desk)
    add_sign_in(app, desk, keys=keys)
    _guard(app)
    _explain(app, desk)
    return app


def _guard(app: FastAPI) -> None:
    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST":
            length = request.headers.get("content-length", "")
            if not length.isdecimal() or int(length) > _FORM_BYTES:
                return Response(f"a form may take {_FORM_BYTES} bytes", status_code=413, media_type="text/plain")
        response = await call_next(request)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if request.url.path.startswith(f"{PREFIX}/static/"):
            fresh = request.query_params.get("v") == static_version()
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if fresh else "no-cache"
        return response


def _explain(app: FastAPI, desk: Desk) -> None:
    """Every error is a page with a sentence and a way on; none shows a trace."""
    _explain_sign_in(app, desk)

    @app.exception_handler(WorkerError)
    def on_worker_error(request: Request, error: WorkerError) -> Response:
        status = status_of(error)
        if status >= 500:
            log.warning("page_refused", code=error.code, message=str(error))
            return _page(
                desk, request, status, "The ledger or the broker cannot be reached just now. Nothing was lost; try again in a moment."
            )
        text = str(error)
        return _page(desk, request, status, text[:1].upper() + text[1:] + ".")

    @app.exception_handler(RequestValidationError)
    def on_validation_error(request: Request, _error: RequestValidationError) -> Response:
        return _page(desk, request, 404 if request.method == "GET" else 422, "This address or form is not one of this page.")

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> Response:
        text = "There is no such page." if error.status_code == 404 else str(error.detail)
        return _page(desk, request, error.status_code, text)

    @app.exception_handler(Exception)
    def on_bug(request: Request, _error: Exception) -> Response:
        # it travels on to the API's own handler, which logs it
        return _page(desk, request, 500, "Something failed in Veriframe itself; it was logged.")


def _explain_sign_in(app: FastAPI, desk: Desk) -> None:
    @app.exception_handler(NotSignedInError)
    def on_no_session(request: Request, _error: NotSignedInError) -> Response:
        wanted = request.url.path if request.method == "GET" else f"{PREFIX}/"
        if request.method == "GET" and request.url.query:
            wanted = f"{wanted}?{request.url.query}"
        target = f"{PREFIX}/login?{urlencode({'next': wanted[:300]})}"
        if request.headers.get("hx-request") == "true":
            return Response(status_code=401, headers={"HX-Redirect": target})
        return Response(status_code=303, headers={"Location": target})

    @app.exception_handler(ForgedRequestError)
    def on_forged(request: Request, _error: ForgedRequestError) -> Response:
        return _page(desk, request, 403, "This form does not belong to your session. Go back, load the page again and repeat it.")


def _page(desk: Desk, request: Request, status: int, message: str) -> Response:
    try:
        session: Session | None = desk.session_of(request)
    except (NotSignedInError, WorkerError):  # the ledger may be what this page tells of
        session = None
    title = _TITLES.get(status, "That did not work")
    response = render(request, "message.html", session=session, status=status, title=title, message=message)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    for name, value in SECURITY_HEADERS.items():  # the answer to a bug is made outside the guard
        response.headers.setdefault(name, value)
    return response
