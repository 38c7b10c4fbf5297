"""`GET /v1/videos/{id}/as/{shape}`: the newest verdict in the shape of another service."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI, Request, Response

from ..adapters import ADAPTERS
from ..ledger import Ledger
from ..messages import VerdictBody
from ..outcome import job_body
from .auth import ApiKey
from .evidence import cached_json, newest_job
from .fields import ReaderTenant

Shape = Literal["hive", "reality-defender", "reality-defender-sdk", "sensity", "truemedia", "coop"]


def add_shapes(app: FastAPI, ledger: Ledger, *, can_read: Any) -> None:
    """Serve verdicts in other services' shapes."""

    @app.get("/v1/videos/{video_id}/as/{shape}")
    def get_shape(video_id: str, shape: Shape, request: Request, tenant: ReaderTenant = None, key: ApiKey = can_read) -> Response:
        """The newest outcome of one video, as a client of that service reads it."""
        outcome = VerdictBody.model_validate(job_body(newest_job(ledger, video_id, tenant=key.tenant_for(tenant))))
        return cached_json(request, ADAPTERS[shape](outcome))
