"""Upload events of others: CloudEvents 1.0 (structured, binary) and S3/MinIO-shaped notifications -> enqueue requests."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from ..errors import InvalidMessageError, UnknownVersionError
from .enqueue import EnqueueRequest, parse_enqueue
from .plain_json import load_json

_PASSED_ON: Final = ("source", "lane", "policy", "callback_url", "content_sha256", "attributes", "media", "schema_version")
_CREATED: Final = ("s3:ObjectCreated:", "ObjectCreated:")
_TEST_EVENT: Final = "s3:TestEvent"
_PLAIN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_STEM_LENGTH: Final = 128 - 1 - 16
_VERSION_MARKS: Final = ("versionId", "eTag", "sequencer")
"""Absent ones are empty. The sequencer is among them because a made-up file can have the eTag (an MD5) of another."""


@dataclass(frozen=True, slots=True)
class EventRequest:
    """An enqueue request that came as an event."""

    request: EnqueueRequest
    dedupe_key: str
    """The same event delivered twice carries the same key."""
    source_version: str = ""
    """Which version of the stored object it tells of; empty when the event says nothing about it."""
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """One record of a notification that cannot be taken; those beside it are."""

    place: int
    raw: bytes
    """A notification of this record alone, as JSON."""
    error: InvalidMessageError


@dataclass(frozen=True, slots=True)
class Events:
    """What one message of others asks for."""

    requests: tuple[EventRequest, ...] = ()
    refused: tuple[RefusedRecord, ...] = ()


def _text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str) or not value or len(value) > 2048:
        raise InvalidMessageError(f"CloudEvents attribute {name!r} must be a text of 1-2048 characters")
    return value


def parse_cloud_event(event: Mapping[str, Any]) -> EventRequest:
    """Read one CloudEvent as a mapping of its attributes and `data`.

    `data.video_id` (else `subject`) names the video, `data.url` or `data.source` where it lies; `(source, id)` is the dedupe key.

    Raises:
        UnknownVersionError: `specversion` is not 1.0.
        InvalidMessageError: a required attribute is missing or `data` breaks the enqueue schema.
    """
    if event.get("specversion") != "1.0":
        raise UnknownVersionError(f"CloudEvents specversion {event.get('specversion')!r:.20} is not known here, send 1.0")
    event_id, source = _text(event, "id"), _text(event, "source")
    _text(event, "type")
    data = event.get("data", {})
    if "data_base64" in event:
        if "data" in event:
            raise InvalidMessageError("a CloudEvent has `data` or `data_base64`, not both")
        data = _decoded(event["data_base64"])
    if isinstance(data, str):
        data = load_json(data, what="CloudEvents data")
    if not isinstance(data, dict):
        raise InvalidMessageError(f"CloudEvents data must be an object, got {type(data).__name__}")
    fields: dict[str, Any] = {name: data[name] for name in _PASSED_ON if name in data}
    fields["video_id"] = data.get("video_id", event.get("subject"))
    if "url" in data and "source" not in fields:
        fields["source"] = data["url"]
    traceparent = event.get("traceparent")
    return EventRequest(
        request=parse_enqueue(fields),
        dedupe_key=_key("ce", source, event_id),
        traceparent=traceparent[:64] if isinstance(traceparent, str) else None,
    )


def _decoded(data: object) -> str:
    try:
        return base64.b64decode(data, validate=True).decode() if isinstance(data, str) else ""
    except ValueError as err:
        raise InvalidMessageError(f"CloudEvents data_base64 is no text in base64: {err}") from err


def _key(*parts: str) -> str:
    return parts[0] + ":" + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def video_id_of_object(bucket: str, key: str) -> str:
    """The video ID of a stored object: its name without suffix, when that is plain, and a hash of bucket and key.

    Objects of one name in other folders, buckets or with other suffixes have other IDs: `alice/clip.mp4` and `bob/clip.mp4`.
    """
    stem = key.rsplit("/", maxsplit=1)[-1].rsplit(".", maxsplit=1)[0]
    digest = hashlib.sha256(f"{bucket}\0{key}".encode(errors="surrogatepass")).hexdigest()
    return f"{stem[:_STEM_LENGTH]}-{digest[:16]}" if _PLAIN.fullmatch(stem) else f"s3-{digest[:40]}"


def _parse_record(record: object) -> EventRequest | None:
    if not isinstance(record, dict):
        raise InvalidMessageError("every entry of Records must be an object")
    name = record.get("eventName", record.get("EventName", ""))
    if not isinstance(name, str) or not name.startswith(_CREATED):
        return None  # removals and restores say nothing about a new video
    try:
        bucket = record["s3"]["bucket"]["name"]
        stored = record["s3"]["object"]
        key = unquote_plus(stored["key"])
    except (KeyError, TypeError, AttributeError) as err:
        raise InvalidMessageError("an S3 record needs s3.bucket.name and s3.object.key") from err
    if not isinstance(bucket, str) or not bucket:
        raise InvalidMessageError("s3.bucket.name must be a text")
    if key.endswith("/") and not stored.get("size"):
        return None  # what consoles store to show an empty folder
    marks = [str(stored.get(field, "")) for field in _VERSION_MARKS]
    request = parse_enqueue({"video_id": video_id_of_object(bucket, key), "source": f"s3://{bucket}/{key}"})
    version = hashlib.sha256("\0".join(marks).encode()).hexdigest()
    return EventRequest(request=request, dedupe_key=_key("s3", bucket, key, *marks), source_version=version)


def parse_s3_notification(notification: object) -> Events:
    """Read one S3- or MinIO-shaped notification, record by record; those that created nothing are left out.

    The notification with which S3 tries a new target asks for nothing.

    Raises:
        InvalidMessageError: the shape is not that of a notification, or nothing is left beside what was refused.
    """
    if isinstance(notification, dict) and notification.get("Event") == _TEST_EVENT:
        return Events()
    if not isinstance(notification, dict) or not isinstance(notification.get("Records"), list):
        raise InvalidMessageError("an S3 notification is an object with a list `Records`")
    if len(notification["Records"]) > 1000:
        raise InvalidMessageError(f"at most 1000 records are read at once, got {len(notification['Records'])}")
    requests: list[EventRequest] = []
    refused: list[RefusedRecord] = []
    for place, record in enumerate(notification["Records"]):
        try:
            event = _parse_record(record)
        except InvalidMessageError as err:
            error = type(err)(f"Records[{place}]: {err}")
            refused.append(RefusedRecord(place, json.dumps({"Records": [record]}).encode(), error))
        else:
            requests += [event] if event is not None else []
    if refused and not requests:
        raise refused[0].error
    return Events(tuple(requests), tuple(refused))


def parse_event(raw: bytes) -> Events:
    """Read one entry of the event stream: a structured CloudEvent or an S3 notification.

    Raises:
        InvalidMessageError, UnknownVersionError, InvalidVideoIdError: as the parsers above.
    """
    event = load_json(raw, what="the event")
    if isinstance(event, dict) and ("Records" in event or event.get("Event") == _TEST_EVENT):
        return parse_s3_notification(event)
    if not isinstance(event, dict):
        raise InvalidMessageError(f"an event is a JSON object, got {type(event).__name__}")
    return Events((parse_cloud_event(event),))
