"""Typed error bodies, `{code, message, retryable}`, and the HTTP status of every error of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import (
    BacklogFullError,
    BrokerError,
    IdempotencyConflictError,
    InvalidMessageError,
    LedgerError,
    LimitError,
    ReviewConflictError,
    UnknownReviewError,
    UnknownVideoError,
    WorkerError,
)

log = structlog.get_logger(__name__)
RETRY_AFTER_SECONDS: Final = 5

_STATUS: Final[dict[type[WorkerError], int]] = {
    UnknownVideoError: 404,
    UnknownReviewError: 404,
    ReviewConflictError: 409,
    IdempotencyConflictError: 409,
    InvalidMessageError: 422,
    LimitError: 429,
    BacklogFullError: 503,
    BrokerError: 503,
    LedgerError: 503,
}
_HTTP_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_TYPE",
}


def error_response(
    status: int,
    *,
    code: str,
    message: str,
    retryable: bool,
    retry_after_seconds: int = RETRY_AFTER_SECONDS,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One typed error body."""
    extra = {**(headers or {}), **({"Retry-After": str(retry_after_seconds)} if status in (429, 503) else {})}
    return JSONResponse({"code": code, "message": message, "retryable": retryable}, status_code=status, headers=extra)


def status_of(error: WorkerError) -> int:
    """The HTTP status of one of our errors."""
    return next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), 500)


def install(app: FastAPI) -> None:
    """Answer every error in the same shape; no stack trace ever leaves."""

    @app.exception_handler(WorkerError)
    def on_worker_error(_request: Request, error: WorkerError) -> JSONResponse:
        status = status_of(error)
        if status >= 500:
            log.warning("request_refused", code=error.code, message=str(error))
        wait = getattr(error, "retry_after_seconds", RETRY_AFTER_SECONDS)
        return error_response(
            status, code=error.code, message=str(error), retryable=error.retryable or status == 503, retry_after_seconds=wait
        )

    @app.exception_handler(RequestValidationError)
    def on_validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
        parts = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()[:8]]
        return error_response(422, code="INVALID_MESSAGE", message="; ".join(parts), retryable=False)

    @app.exception_handler(HTTPException)
    def on_http_error(_request: Request, error: HTTPException) -> JSONResponse:
        code = _HTTP_CODES.get(error.status_code, "HTTP_ERROR")
        return error_response(error.status_code, code=code, message=str(error.detail), retryable=False, headers=error.headers)

    @app.exception_handler(Exception)
    def on_bug(_request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected", exc_info=error)
        return error_response(500, code="INTERNAL", message="something failed in Veriframe itself; it was logged", retryable=True)
