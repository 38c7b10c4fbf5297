"""The Celery message (protocol 2, JSON) as it lies in a Redis list: parsed for the inbox, built for dispatch.

Reading and writing it here keeps Celery out of ingest, janitor and web. `tests/integration/test_celery_internals.py` fails
loudly when Celery or kombu change what is relied on.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any, Final

from ..errors import InvalidMessageError, UnknownTaskError, UnknownVersionError
from .enqueue import EnqueueRequest, Lane, parse_enqueue
from .plain_json import load_json

SCREEN_TASK: Final = "veriframe.screen"
"""Public task name: what platforms send."""

DISPATCH_TASK: Final = "veriframe.run"
"""Internal task name: what workers execute."""

EXPLAIN_TASK: Final = "veriframe.explain"
"""Internal task name: a person asks for heat-maps of a finished verdict."""

MESSAGE_BYTES: Final = 64 * 1024
"""An enqueue message is about 500 bytes; anything near this is not one."""

DISPATCH_VERSION: Final = 1

_PRIORITIES: Final = range(1, 10)
_PRIORITY_MARK: Final = "\x06\x16"
"""What kombu writes between a queue's name and a priority above 0."""


def inbox_lists(lane: Lane) -> tuple[str, ...]:
    """The Redis lists of one inbox lane, in the order in which Celery itself would read them.

    Celery keeps a message with a priority beside the lane's own list. Which priorities get a list is the producer's setting
    (`priority_steps`, at first 3, 6 and 9), so each of them is read.
    """
    return (lane, *(f"{lane}{_PRIORITY_MARK}{priority}" for priority in _PRIORITIES))


def _decode_body(message: dict[str, Any]) -> object:
    properties = message.get("properties") or {}
    body = message.get("body")
    if not isinstance(body, str) or not isinstance(properties, dict):
        raise InvalidMessageError("a Celery message needs a text `body` and an object `properties`")
    if message.get("content-type") != "application/json":
        raise InvalidMessageError(f"only content-type application/json is read, got {message.get('content-type')!r:.60}")
    encoding = properties.get("body_encoding")
    try:
        text = base64.b64decode(body, validate=True).decode() if encoding == "base64" else body
    except ValueError as err:
        raise InvalidMessageError(f"the body is not text in encoding {encoding!r:.20}: {err}") from err
    return load_json(text, what="the body")


def parse_celery_message(raw: bytes, *, lane: Lane) -> tuple[EnqueueRequest, str | None]:
    """Read one message of a public inbox lane.

    Args:
        raw: the list element as producers pushed it.
        lane: the inbox lane it lay in; used when the request names none.

    Returns:
        The checked request and the W3C `traceparent` header, if any.

    Raises:
        UnknownTaskError: the message is for another task.
        UnknownVersionError: not protocol 2, or an unknown `schema_version`.
        InvalidMessageError: anything else that is not an enqueue request.
    """
    if len(raw) > MESSAGE_BYTES:
        raise InvalidMessageError(f"an enqueue message may take {MESSAGE_BYTES} bytes, got {len(raw)}")
    message = load_json(raw, what="the message")
    if not isinstance(message, dict):
        raise InvalidMessageError(f"a Celery message is a JSON object, got {type(message).__name__}")
    headers = message.get("headers")
    if not isinstance(headers, dict) or "task" not in headers:
        raise UnknownVersionError("headers name no task: only Celery message protocol 2 is read")
    if headers["task"] != SCREEN_TASK:
        raise UnknownTaskError(f"task {headers['task']!r:.80} is not known here, send {SCREEN_TASK!r}")
    body = _decode_body(message)
    if not isinstance(body, list) or len(body) != 3 or not isinstance(body[1], dict):
        raise InvalidMessageError("the body must be [args, kwargs, embed]")
    args, kwargs, _embed = body
    if args:
        raise InvalidMessageError("send keyword arguments only: kwargs={'video_id': ...}, args must be empty")
    request = parse_enqueue(kwargs)
    traceparent = headers.get("traceparent")
    if request.lane is None:
        request = request.model_copy(update={"lane": lane})
    return request, traceparent[:64] if isinstance(traceparent, str) else None


def _message(*, task: str, kwargs: dict[str, Any], queue: str) -> str:
    task_id = str(uuid.uuid4())
    body = base64.b64encode(json.dumps([[], kwargs, {}]).encode()).decode()
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": task_id, "enqueued_at": time.time()},
            "properties": {
                "correlation_id": task_id,
                "body_encoding": "base64",
                "delivery_mode": 2,
                "delivery_tag": task_id,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
            },
        }
    )


def enqueue_message(request: EnqueueRequest) -> str:
    """The message a platform would LPUSH on the inbox lane `request.lane` (door 1b)."""
    kwargs = request.model_dump(mode="json", exclude_defaults=True)
    return _message(task=SCREEN_TASK, kwargs=kwargs, queue=request.lane or "default")


def explain_message(ledger_id: str, *, queue: str) -> str:
    """The message that tells a worker to explain one finished job."""
    return _message(task=EXPLAIN_TASK, kwargs={"ledger_id": ledger_id, "schema_version": DISPATCH_VERSION}, queue=queue)


def dispatch_message(ledger_id: str, *, queue: str) -> str:
    """The message that tells a worker to claim one ledger row. Nothing but the row's ID: no video ID, no URL, no secret."""
    return _message(task=DISPATCH_TASK, kwargs={"ledger_id": ledger_id, "schema_version": DISPATCH_VERSION}, queue=queue)
