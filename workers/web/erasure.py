"""`DELETE /v1/videos/{id}`: forget a video whole, with a line in the audit log."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ..errors import UnknownVideoError
from ..forget import forget_video
from ..messages.enqueue import VIDEO_ID
from ..services import Control
from .auth import ApiKey
from .fields import Tenant


def add_erasure(app: FastAPI, control: Control, *, can_admin: Any) -> None:
    """Serve deletions."""

    @app.delete("/v1/videos/{video_id}")
    def erase_video(
        video_id: str,
        tenant: Tenant = "",
        key: ApiKey = can_admin,
    ) -> JSONResponse:
        """Remove every trace: job, verdicts, evidence, reviews, explanations, events, messages. The audit log keeps who asked and when."""
        if VIDEO_ID.fullmatch(video_id) is None:
            raise UnknownVideoError("no such video: a video ID is 1-128 characters of A-Z a-z 0-9 _ -")
        forgotten = forget_video(control.ledger, control.client, video_id, tenant=tenant, actor=f"key:{key.name}")
        if forgotten.is_empty:
            raise UnknownVideoError("no such video is on record here: nothing was there to delete")
        return JSONResponse({"video_id": video_id, "removed": forgotten.as_json(), "media": "not kept here"})
