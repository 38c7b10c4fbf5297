"""`/v1/videos/{id}/explanation`: ask for heat-maps and an annotated clip, and fetch them once a worker has made them.

They show faces, so they want the scope `review`, are made only when asked for, and are gone after `VERIFRAME_EXPLANATION_SECONDS`.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.params import Depends
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import UnknownVideoError
from ..ledger.explanations import READY
from ..ledger.schema import VERDICT
from ..services import Control
from .evidence import newest_job
from .fields import Tenant

_ASK_AGAIN_SECONDS: Final = 180.0
"""An unanswered request is forgotten after this time: the message to the worker was lost, and asking again sends it again."""
_NO_STORE = {"Cache-Control": "private, no-store"}


def add_explanation(app: FastAPI, control: Control, *, can_review: Depends) -> None:
    """Serve explanations."""

    @app.post("/v1/videos/{video_id}/explanation", status_code=202, dependencies=[can_review])
    def ask(video_id: str, tenant: Tenant = "") -> JSONResponse:
        """Ask for an explanation of the newest verdict; asking again while it is made changes nothing."""
        state = ask_for_explanation(control, video_id, tenant=tenant)
        return JSONResponse(state, status_code=200 if state["state"] == "ready" else 202, headers=_NO_STORE)

    @app.get("/v1/videos/{video_id}/explanation", dependencies=[can_review])
    def fetch(video_id: str, tenant: Tenant = "") -> JSONResponse:
        """The explanation, if somebody asked and it has not expired: `state` is wanted, ready or refused."""
        job = newest_job(control.ledger, video_id, tenant=tenant)
        return JSONResponse(explanation_state(control, job.ledger_id), headers=_NO_STORE)

    @app.get("/v1/videos/{video_id}/explanation/clip", dependencies=[can_review], response_class=Response)
    def fetch_clip(video_id: str, tenant: Tenant = "") -> Response:
        """The annotated clip (MP4)."""
        clip = control.ledger.explanation_clip(newest_job(control.ledger, video_id, tenant=tenant).ledger_id)
        if clip is None:
            raise UnknownVideoError("there is no annotated clip of this video just now: POST to its explanation first")
        return Response(clip, media_type="video/mp4", headers=_NO_STORE)


def ask_for_explanation(control: Control, video_id: str, *, tenant: str = "") -> dict[str, Any]:
    """Tell a worker that somebody wants to see why, unless one knows; gives the state.

    Raises:
        UnknownVideoError: nothing of the video is on record.
        HTTPException: 409 when there is no verdict yet, or explanations are switched off.
        BrokerError: no worker can be told; ask again later.
    """
    settings = control.settings
    job = newest_job(control.ledger, video_id, tenant=tenant)
    if not settings.explanation_seconds:
        raise HTTPException(409, "explanations show faces and are switched off here (VERIFRAME_EXPLANATION_SECONDS=0)")
    if job.state != VERDICT:
        raise HTTPException(409, "there is no verdict to explain: wait until the video is complete")
    control.dispatcher.check()  # before the request is on record, or nobody would be told until it expires
    if control.ledger.want_explanation(job.ledger_id, seconds=_ASK_AGAIN_SECONDS):
        control.dispatcher.ask_for_explanation(job.ledger_id)
    return explanation_state(control, job.ledger_id)


def explanation_state(control: Control, ledger_id: str) -> dict[str, Any]:
    """Where an explanation stands, with its content once it is ready.

    Raises:
        UnknownVideoError: nobody asked, or it has expired.
    """
    row = control.ledger.explanation(ledger_id)
    if row is None:
        raise UnknownVideoError("nobody asked for an explanation, or it has expired: POST to this address")
    error = {"code": row.error_code, "message": row.error_message} if row.error_code else None
    content = row.body if row.state == READY and row.body else {}
    return {"job_id": ledger_id, "state": row.state.lower(), "expires_at": row.expires_at, "error": error, **content}
