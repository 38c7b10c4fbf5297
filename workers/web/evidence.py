"""`GET /v1/videos/{id}/evidence`: what a verdict rests on, as `evidence/1`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fastapi import FastAPI, Request, Response

from ..errors import UnknownVideoError
from ..ledger import JobRow, Ledger
from ..messages import EvidenceBody, VerdictBody, evidence_body
from ..messages.enqueue import VIDEO_ID
from ..outcome import job_body
from .auth import ApiKey


def add_evidence(app: FastAPI, ledger: Ledger, *, can_read: Any) -> None:
    """Serve the evidence of videos."""

    @app.get("/v1/videos/{video_id}/evidence", response_model=EvidenceBody)
    def get_evidence(video_id: str, request: Request, key: ApiKey = can_read) -> Response:
        """Scores over time, boxes, worst moments and thresholds of the newest outcome of one video."""
        evidence = evidence_body(VerdictBody.model_validate(job_body(newest_job(ledger, video_id, tenant=key.tenant))))
        return cached_json(request, evidence.to_json())


def newest_job(ledger: Ledger, video_id: str, *, tenant: str = "") -> JobRow:
    """The newest job of one tenant's video.

    Raises:
        UnknownVideoError: it was never submitted.
    """
    job = ledger.latest_job(video_id, tenant=tenant) if VIDEO_ID.fullmatch(video_id) else None
    if job is None:
        raise UnknownVideoError("no such video was submitted: check the ID, or submit it with POST /v1/videos")
    return job


def cached_json(request: Request, content: Any) -> Response:
    """JSON with a strong ETag; 304 when the caller has it."""
    payload = json.dumps(content, separators=(",", ":")).encode()
    tag = f'"{hashlib.sha256(payload).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(payload, media_type="application/json", headers=headers)
