"""Request bodies: JSON of one of the accepted content types. `guard` bounds them before they come here."""

from __future__ import annotations

from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..messages import load_json

JSON: Final = "application/json"
CLOUD_EVENT: Final = "application/cloudevents+json"


async def read_json(request: Request) -> Any:
    """Read and parse a body.

    Raises:
        HTTPException: 415 for another content type, or none: a web page may send those anywhere without asking.
        InvalidMessageError: it is not JSON.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in (JSON, CLOUD_EVENT):
        raise HTTPException(415, f"send the header Content-Type: {JSON} or {CLOUD_EVENT}, got {content_type!r:.60}")
    return load_json(await request.body(), what="the body")


def binary_cloud_event(request: Request, data: Any) -> dict[str, Any] | None:
    """The CloudEvent in binary mode: attributes in `ce-*` headers, data in the body. None when there are no such headers."""
    attributes = {name.removeprefix("ce-"): value for name, value in request.headers.items() if name.startswith("ce-")}
    return {**attributes, "data": data} if attributes else None


def is_cloud_event(request: Request) -> bool:
    """Whether the body is a structured CloudEvent."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower() == CLOUD_EVENT
