"""Enqueue schema v1: one request to screen one video, the same through every door."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from detect_core.versions import POLICY

from ..errors import InvalidMessageError, InvalidVideoIdError, UnknownVersionError

Lane = Literal["urgent", "default", "bulk"]
INBOX_LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""Public inbox lanes in strict order; also the names of the Redis lists that producers push to."""

DEFAULT_LANE: Final[Lane] = "default"
SCHEMA_VERSION: Final = 1
VIDEO_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,128}$"
VIDEO_ID = re.compile(VIDEO_ID_PATTERN, re.ASCII)
_ATTRIBUTES_BYTES: Final = 4096
_TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"
"""No control characters: Postgres stores no NUL, and one such message would hold up its whole batch."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class MediaHint(BaseModel):
    """What the producer knows about the video. Only used to predict the work that waits; a wrong hint changes no verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    duration_seconds: Annotated[float, Field(ge=0, le=172_800)] | None = None
    width: Annotated[int, Field(ge=1, le=32_768)] | None = None
    height: Annotated[int, Field(ge=1, le=32_768)] | None = None
    num_faces: Annotated[float, Field(ge=0, le=1000)] | None = Field(default=None, description="People in view")

    @property
    def megapixels(self) -> float | None:
        """Size of a picture, when both sides are known."""
        return self.width * self.height / 1e6 if self.width is not None and self.height is not None else None


class EnqueueRequest(BaseModel):
    """One video to screen. Unknown fields are refused, so that a typo never silently changes what is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    video_id: str = Field(description="1-128 characters of A-Z a-z 0-9 _ -", json_schema_extra={"pattern": VIDEO_ID_PATTERN})
    source: Annotated[str, StringConstraints(pattern=_TEXT_PATTERN, max_length=2048)] | None = Field(
        None, description="file, s3 or https URI; without it the service's media template is used"
    )
    lane: Lane | None = Field(None, description="urgent, default or bulk; without it the lane it was pushed on, else default")
    policy: Annotated[str, StringConstraints(pattern=_TEXT_PATTERN, max_length=64)] | None = Field(
        None, description="Verdict policy to judge by: null, or the one that verdicts name in score.policy; another one is refused"
    )
    callback_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\x00-\x20\x7f]+$", max_length=2048)] | None = Field(
        None, description="Gets the signed verdict.completed event"
    )
    content_sha256: Sha256 | None = Field(None, description="The fetched bytes must have this SHA-256")
    attributes: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict, description="The caller's own facts, given back with the verdict; at most 4 KiB as JSON"
    )
    media: MediaHint | None = Field(None, description="Duration, size and faces, when known: the work that waits is predicted from them")
    schema_version: Literal[1] = Field(1, description="Version of this schema")

    @field_validator("video_id")
    @classmethod
    def _check_video_id(cls, value: str) -> str:
        if VIDEO_ID.fullmatch(value) is None:
            raise ValueError("a video ID is 1-128 characters of A-Z a-z 0-9 _ -")
        return value

    @field_validator("policy")
    @classmethod
    def _check_policy(cls, value: str | None) -> str | None:
        if value not in (None, POLICY):
            raise ValueError(f"no such verdict policy: leave it out or send {POLICY!r}, the one of this version")
        return value

    @field_validator("attributes")
    @classmethod
    def _check_attributes(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as err:  # it would be taken in and then stand in no answer of ours
            raise ValueError("attributes must be plain JSON: no NaN, no infinity, no half of a surrogate pair") from err
        size = len(json.dumps(value))
        if size > _ATTRIBUTES_BYTES:
            raise ValueError(f"attributes may take {_ATTRIBUTES_BYTES} bytes as JSON, got {size}")
        return value

    @property
    def source_version(self) -> str:
        """What tells two submissions of one video ID apart: the content hash, else nothing."""
        return self.content_sha256 or ""


def parse_enqueue(data: object) -> EnqueueRequest:
    """Check one decoded JSON object against the schema.

    Raises:
        InvalidVideoIdError: `video_id` holds anything but the allowed characters.
        UnknownVersionError: `schema_version` is not 1.
        InvalidMessageError: every other breach; the message names each field.
    """
    if not isinstance(data, dict):
        raise InvalidMessageError(f"an enqueue request is a JSON object, got {type(data).__name__}")
    version = data.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise UnknownVersionError(f"schema_version {version!r:.40} is not known here, this build speaks {SCHEMA_VERSION}")
    video_id = data.get("video_id")
    if isinstance(video_id, str) and VIDEO_ID.fullmatch(video_id) is None:
        raise InvalidVideoIdError(f"video_id {video_id!r:.60} is not allowed: send 1-128 characters of A-Z a-z 0-9 _ -")
    try:
        return EnqueueRequest.model_validate(data)
    except ValidationError as err:
        raise InvalidMessageError("the request breaks enqueue schema v1: " + describe(err)) from err


def describe(err: ValidationError) -> str:
    """Field and reason of every breach in one line, without echoing the input."""
    return "; ".join(f"{'.'.join(str(part) for part in e['loc']) or 'body'}: {e['msg']}" for e in err.errors(include_input=False)[:8])
