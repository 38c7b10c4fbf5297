"""`POST /v1/videos/bulk`: many videos in one request and one transaction. All are taken in, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from ..errors import InvalidMessageError
from ..ledger import Submission, Submitted
from ..messages import EnqueueRequest, parse_enqueue
from . import body
from .auth import ApiKey
from .contract import bulk_body

MAX_VIDEOS: Final = 1000

Accept = Callable[[list[Submission], ApiKey], list[Submitted]]


def add_bulk(app: FastAPI, accept: Accept, *, can_submit: Any) -> None:
    """Serve bulk submits."""

    @app.post("/v1/videos/bulk", status_code=202, openapi_extra=bulk_body(MAX_VIDEOS))
    async def submit_videos(request: Request, key: ApiKey = can_submit) -> JSONResponse:
        """Submit up to 1,000 videos; a repeated ID gives its job back."""
        submissions = [Submission(request=each, door="http") for each in parse_bulk(await body.read_json(request))]
        outcomes = await asyncio.to_thread(accept, submissions, key)
        jobs = [
            {"video_id": s.request.video_id, "job_id": o.ledger_id, "created": o.created}
            for s, o in zip(submissions, outcomes, strict=True)
        ]
        return JSONResponse({"accepted": jobs}, status_code=202)


def parse_bulk(data: object) -> list[EnqueueRequest]:
    """Read `{"videos": [...]}`.

    Raises:
        InvalidMessageError: the shape is another one, or a video breaks the enqueue schema; the message names its place.
    """
    videos = data.get("videos") if isinstance(data, dict) else None
    if not isinstance(videos, list) or not 1 <= len(videos) <= MAX_VIDEOS:
        raise InvalidMessageError(f'a bulk submit is an object {{"videos": [...]}} with 1-{MAX_VIDEOS} enqueue requests')
    requests = []
    for place, video in enumerate(videos):
        try:
            requests.append(parse_enqueue(video))
        except InvalidMessageError as err:
            raise type(err)(f"videos[{place}]: {err}; nothing was taken in") from err
    return requests
