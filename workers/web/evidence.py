"""`GET /v1/videos/{id}/evidence`: what a verdict rests on, as `evidence/1`; `evidence.zip`: the whole case with hashes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from ..case_file import case_zip, read_case
from ..errors import UnknownVideoError
from ..ledger import JobRow, Ledger
from ..messages import EvidenceBody, VerdictBody, evidence_body
from ..messages.enqueue import VIDEO_ID
from ..outcome import job_body
from .auth import ApiKey
from .fields import ReaderTenant, Tenant


def add_evidence(app: FastAPI, ledger: Ledger, *, can_read: Any, can_review: Any) -> None:
    """Serve the evidence of videos."""

    @app.get("/v1/videos/{video_id}/evidence.zip", response_class=Response, dependencies=[can_review])
    def get_case_file(
        video_id: str,
        pictures: Annotated[bool, Query(description="With the heat-maps that somebody asked for, if they are still there")] = False,
        tenant: Tenant = "",
    ) -> Response:
        """The case file of the newest verdict, for an appeal: everything on record, with hashes."""
        job = newest_job(ledger, video_id, tenant=tenant)
        shown = stored_pictures(ledger, job.ledger_id) if pictures else {}
        headers = {"Content-Disposition": f'attachment; filename="{job.video_id}-case.zip"', "Cache-Control": "private, no-store"}
        return Response(case_zip(read_case(ledger, job), pictures=shown), media_type="application/zip", headers=headers)

    @app.get("/v1/videos/{video_id}/evidence", response_model=EvidenceBody)
    def get_evidence(video_id: str, request: Request, tenant: ReaderTenant = None, key: ApiKey = can_read) -> Response:
        """Scores over time, boxes, worst moments and thresholds of the newest outcome of one video."""
        job = newest_job(ledger, video_id, tenant=key.tenant_for(tenant))
        evidence = evidence_body(VerdictBody.model_validate(job_body(job)))
        return cached_json(request, evidence.to_json())


def newest_job(ledger: Ledger, video_id: str, *, tenant: str = "") -> JobRow:
    """The newest job of one tenant's video, also when only its verdict is still kept.

    Raises:
        UnknownVideoError: nothing of it is on record.
    """
    job = ledger.latest_outcome(video_id, tenant=tenant) if VIDEO_ID.fullmatch(video_id) else None
    if job is None:
        raise UnknownVideoError("no such video is on record: check the ID, or submit it with POST /v1/videos")
    return job


def stored_pictures(ledger: Ledger, ledger_id: str) -> dict[str, bytes]:
    """Heat-maps and annotated clip of an explanation that is ready, by file name; empty when there is none."""
    row = ledger.explanation(ledger_id)
    moments = row.body.get("moments", []) if row is not None and row.body else []
    shown = {
        f"moment-{number}-{kind}.jpg": base64.b64decode(picture)
        for number, moment in enumerate(moments, start=1)
        for kind, picture in moment["pictures"].items()
    }
    clip = ledger.explanation_clip(ledger_id)
    return {**shown, **({"annotated.mp4": clip} if clip is not None else {})}


def cached_json(request: Request, content: Any) -> Response:
    """JSON with a strong ETag; 304 when the caller has it."""
    payload = json.dumps(content, separators=(",", ":")).encode()
    tag = f'"{hashlib.sha256(payload).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(payload, media_type="application/json", headers=headers)
