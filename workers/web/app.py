"""The API: `POST /v1/videos`, `GET /v1/videos/{id}`, `GET /v1/verdicts`, `POST /v1/events/s3`, probes and metrics.

Accepted (202) means that the ledger has the row. While the broker or the ledger is down or full, or the backlog is too long,
a submit is refused with 503 and Retry-After before anything is written: 202 or 503, never silence.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException

import detect_core

from ..allowance import Limiter
from ..decode_sandbox import sandbox_facts
from ..errors import UnknownVideoError, WorkerError
from ..ledger import Submission, Submitted
from ..messages import (
    EnqueueRequest,
    VerdictBody,
    parse_cloud_event,
    parse_enqueue,
    parse_s3_notification,
)
from ..outcome import job_body, public_state
from ..services import Control
from . import auth, body, contract, errors
from .bulk import add_bulk
from .counting import CountRequests
from .dashboard import make_dashboard
from .erasure import add_erasure
from .evidence import add_evidence, cached_json, newest_job
from .explanation import add_explanation
from .fields import ReaderTenant
from .gather import Gather
from .guard import Guard
from .review_api import add_reviews
from .session import PREFIX
from .shapes import add_shapes
from .verdict_list import add_verdict_list

__all__ = ["create_app", "job_body"]

log = structlog.get_logger(__name__)
_KEY_LENGTH: Final = 128
_JOB_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def create_app(control: Control, *, extra_health: Callable[[], dict[str, Any]] | None = None) -> FastAPI:
    """Make the application on an open control side.

    Raises:
        SettingsError: the API keys cannot work.
    """
    settings = control.settings
    limiter = Limiter(control.client, control.ledger, settings=settings)
    keys = auth.Keyring(control.ledger, settings.api_keys, host=settings.api_host, limiter=limiter)
    can_submit, can_read = Depends(keys.require("submit")), Depends(keys.require("read"))
    app = FastAPI(
        title="Veriframe",
        version=detect_core.__version__,
        description="Video IDs in, explained deepfake verdicts out.",
        docs_url=None,  # its page loads scripts from elsewhere; /openapi.json is served
        redoc_url=None,
        responses=contract.ERRORS,
    )
    errors.install(app)
    app.add_middleware(CountRequests, metrics=control.metrics)
    app.add_middleware(Guard, body_limit_bytes=settings.body_limit_bytes)

    accept = _accepting(control, limiter)
    gather = Gather(lambda submissions, key: accept(submissions, key=key))

    @app.post("/v1/videos", status_code=202, openapi_extra=contract.submit_body())
    async def submit_video(request: Request, key: auth.ApiKey = can_submit) -> JSONResponse:
        """Submit one video: the enqueue schema, or a CloudEvent (structured or binary)."""
        data = await body.read_json(request)
        submission = _submission(request, data)
        if submission.key is None:
            outcome = await gather.submit(submission, key)
        else:  # a key that was used for another request is refused: that is between two requests, not a batch
            [outcome] = await asyncio.to_thread(accept, [submission], key=key, refuse_conflicts=True)
        video_id = submission.request.video_id
        return JSONResponse(
            {"video_id": video_id, "job_id": outcome.ledger_id, "state": public_state(outcome.state), "created": outcome.created},
            status_code=202,
            headers={"Location": f"/v1/videos/{video_id}"},
        )

    @app.post("/v1/events/s3", status_code=202, openapi_extra=contract.s3_body())
    async def take_s3_events(request: Request, key: auth.ApiKey = can_submit) -> JSONResponse:
        """Take an S3- or MinIO-shaped notification; the answer says which video ID each object got, and which record was refused."""
        data = await body.read_json(request)
        events = parse_s3_notification(data)
        submissions = [
            Submission(request=event.request, door="http", key=event.dedupe_key, source_version=event.source_version)
            for event in events.requests
        ]
        outcomes = await asyncio.to_thread(accept, submissions, key=key)
        jobs = [
            {"video_id": s.request.video_id, "job_id": o.ledger_id, "created": o.created}
            for s, o in zip(submissions, outcomes, strict=True)
        ]
        refused = [{"record": each.place, "code": each.error.code, "message": str(each.error)} for each in events.refused]
        for each in refused:  # the sender of a notification seldom reads the answer
            log.warning("s3_record_refused", **each)
        return JSONResponse({"accepted": jobs} | ({"refused": refused} if refused else {}), status_code=202)

    @app.get("/v1/videos/{video_id}", response_model=VerdictBody)
    def get_video(video_id: str, request: Request, tenant: ReaderTenant = None, key: auth.ApiKey = can_read) -> Response:
        """The newest outcome of one video; with `If-None-Match` 304 while nothing changed."""
        return cached_json(request, job_body(newest_job(control.ledger, video_id, tenant=key.tenant_for(tenant))))

    @app.get("/v1/jobs/{job_id}", response_model=VerdictBody)
    def get_job(job_id: str, request: Request, key: auth.ApiKey = can_read) -> Response:
        """One job's outcome; with the scope `review` any tenant's."""
        job = control.ledger.outcome(job_id, tenant=None if key.may("review") else key.tenant) if _JOB_ID.fullmatch(job_id) else None
        if job is None:
            raise UnknownVideoError("no such job")
        return cached_json(request, job_body(job))

    can_review = Depends(keys.require("review"))
    add_evidence(app, control.ledger, can_read=can_read, can_review=can_review)
    add_verdict_list(app, control.ledger, can_read=can_read)
    add_shapes(app, control.ledger, can_read=can_read)
    add_explanation(app, control, can_review=can_review)
    add_reviews(app, control, can_review=can_review)
    add_bulk(app, lambda submissions, key: accept(submissions, key=key), can_submit=can_submit)
    add_erasure(app, control, can_admin=Depends(keys.require("admin")))
    _add_probes(app, control, extra_health)
    _mount_dashboard(app, control, keys)
    return app


def _accepting(control: Control, limiter: Limiter) -> Callable[..., list[Submitted]]:
    def accept(submissions: list[Submission], *, key: auth.ApiKey, refuse_conflicts: bool = False) -> list[Submitted]:
        control.intake.require_room()
        owned = [_owned(submission, key.tenant) for submission in submissions]
        quota = limiter.limits_of(key.tenant).videos_per_day or None
        return control.intake.accept(owned, refuse_conflicts=refuse_conflicts, quota=quota)

    return accept


def _mount_dashboard(app: FastAPI, control: Control, keys: auth.Keyring) -> None:
    app.mount(PREFIX, make_dashboard(control, keys))

    @app.get("/", include_in_schema=False)
    def home() -> RedirectResponse:
        return RedirectResponse(f"{PREFIX}/")


def _owned(submission: Submission, tenant: str) -> Submission:
    """The same request for one tenant; keys of tenants never meet."""
    key = f"{tenant}/{submission.key}" if tenant and submission.key else submission.key
    return replace(submission, tenant=tenant, key=key)


def _submission(request: Request, data: Any) -> Submission:
    event = data if body.is_cloud_event(request) else body.binary_cloud_event(request, data)
    if event is not None:
        if not isinstance(event, dict):
            raise HTTPException(422, "a structured CloudEvent is a JSON object")
        parsed = parse_cloud_event(event)
        return Submission(
            request=parsed.request, door="http", key=parsed.dedupe_key, key_sha256=_digest(parsed.request), trace_id=parsed.traceparent
        )
    enqueue = parse_enqueue(data)
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= _KEY_LENGTH:
        raise HTTPException(422, f"an Idempotency-Key has 1-{_KEY_LENGTH} characters")
    traceparent = request.headers.get("traceparent")
    return Submission(
        request=enqueue,
        door="http",
        key=f"http:{key}" if key else None,
        key_sha256=_digest(enqueue),
        trace_id=traceparent[:64] if traceparent else None,
    )


def _digest(request: EnqueueRequest) -> str:
    return hashlib.sha256(json.dumps(request.model_dump(mode="json", exclude={"media"}), sort_keys=True).encode()).hexdigest()


def _add_probes(app: FastAPI, control: Control, extra_health: Callable[[], dict[str, Any]] | None) -> None:
    @app.get("/livez", response_class=PlainTextResponse)
    def livez() -> str:
        """This process answers."""
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse)
    def readyz() -> PlainTextResponse:
        """Broker and ledger can be reached."""
        problems = _problems(control)
        return PlainTextResponse("ok" if not problems else "\n".join(problems), status_code=503 if problems else 200)

    @app.get("/health")
    def health() -> JSONResponse:
        """The state of every part, for people."""
        problems = _problems(control)
        facts: dict[str, Any] = {"status": "degraded" if problems else "ok", "version": detect_core.__version__, "problems": problems}
        if not problems:
            queues = control.ledger.queue_facts()
            facts["queued"], facts["running"] = queues.queued, queues.leased
        facts |= sandbox_facts(control.settings)
        return JSONResponse({**facts, **(extra_health() if extra_health else {})}, status_code=503 if problems else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics(request: Request) -> Response:
        """Prometheus text, OpenMetrics for a reader that asks for it."""
        page, content_type = control.metrics.expose(request.headers.get("accept"))
        return Response(page, media_type=content_type)


def _problems(control: Control) -> list[str]:
    problems = []
    for check in (control.dispatcher.check, control.ledger.count_waiting):
        try:
            check()
        except WorkerError as err:
            problems.append(f"{err.code}: {err}")
    return problems
