"""What the OpenAPI document says beside the routes: one shape for every error, and the bodies that the routes read themselves."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from ..messages import EnqueueRequest
from .body import CLOUD_EVENT, JSON


class ErrorBody(BaseModel):
    """What every refusal looks like."""

    code: str = Field(description="Stable, upper case")
    message: str = Field(description="What was wrong and what to do, for people")
    retryable: bool = Field(description="Whether the same request may succeed later")


_REFUSED: Final[dict[str, Any]] = {"model": ErrorBody}
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    401: {**_REFUSED, "description": "No key, or one that opens nothing"},
    403: {**_REFUSED, "description": "The key lacks the scope"},
    422: {**_REFUSED, "description": "The request breaks its contract"},
    429: {**_REFUSED, "description": "Too many requests, or the day's videos are used up; `Retry-After` says when"},
    503: {**_REFUSED, "description": "Broker or ledger are away or full; nothing was taken in; `Retry-After` says when"},
    "default": {**_REFUSED, "description": "Refused"},
}

_EVENT: Final = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {name: {"type": "string"} for name in ("specversion", "id", "source", "type", "subject", "time")},
}
_RECORDS: Final = {"type": "object", "required": ["Records"], "properties": {"Records": {"type": "array", "items": {"type": "object"}}}}
_CREATED: Final = {"type": "boolean", "description": "False when the video has a job already that need not be tried again"}
_ACCEPTED: Final = {
    "type": "object",
    "required": ["video_id", "job_id", "state", "created"],
    "properties": {
        "video_id": {"type": "string"},
        "job_id": {"type": "string"},
        "state": {"enum": ["queued", "processing", "complete", "failed"]},
        "created": _CREATED,
    },
}
_JOBS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["video_id", "job_id", "created"],
        "properties": {"video_id": {"type": "string"}, "job_id": {"type": "string"}, "created": _CREATED},
    },
}
_TAKEN: Final = {
    "type": "object",
    "required": ["accepted"],
    "properties": {
        "accepted": {**_JOBS, "description": "One job per object that was created"},
        "refused": {
            "type": "array",
            "description": "Records that cannot be taken; missing when there are none. When nothing is left beside them the answer is a 422",
            "items": {
                "type": "object",
                "required": ["record", "code", "message"],
                "properties": {
                    "record": {"type": "integer", "minimum": 0, "description": "Its place in `Records`"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request gives the same job; with another request 409. CloudEvents bring their own",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}


def submit_body() -> dict[str, Any]:
    """Body, header and answer of `POST /v1/videos`: an enqueue request or a structured CloudEvent."""
    body = _body({JSON: inlined(EnqueueRequest.model_json_schema()), CLOUD_EVENT: _EVENT})
    return {**body, **_answer(_ACCEPTED), "parameters": [_IDEMPOTENCY_KEY]}


def s3_body() -> dict[str, Any]:
    """Body and answer of `POST /v1/events/s3`."""
    return {**_body({JSON: _RECORDS}), **_answer(_TAKEN)}


def bulk_body(max_videos: int) -> dict[str, Any]:
    """Body and answer of `POST /v1/videos/bulk`."""
    items = {"type": "array", "minItems": 1, "maxItems": max_videos, "items": inlined(EnqueueRequest.model_json_schema())}
    taken = {
        "type": "object",
        "required": ["accepted"],
        "properties": {"accepted": {**_JOBS, "description": "One job per video, in order"}},
    }
    return {**_body({JSON: {"type": "object", "required": ["videos"], "properties": {"videos": items}}}), **_answer(taken)}


def _body(schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}}


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"responses": {"202": {"content": {JSON: {"schema": schema}}}}}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$defs`: references of a part point nowhere once it is a part of a larger document."""
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[str(node["$ref"]).rsplit("/", 1)[-1]])
            return {name: resolve(value) for name, value in node.items() if name != "$defs"}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    return dict(resolve(schema))
