"""What passes between the ledger and its callers: frozen, plain data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from ..messages import EnqueueRequest
from .schema import QUEUED

Door = Literal["http", "queue", "stream", "cli"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One request on its way into the ledger."""

    request: EnqueueRequest
    door: Door
    trace_id: str | None = None
    key: str | None = None
    """Idempotency or event key: the same key twice is the same job."""
    key_sha256: str = ""
    """Hash of the request behind `key`: the same key with another request is refused."""
    tenant: str = ""
    source_version: str = ""
    """What tells two videos of one ID apart, at most 64 characters; empty: the request's content hash, if any."""
    read_at: float | None = None
    """When its message was read, by this process's monotonic clock in seconds: a video that was forgotten since is not taken in."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """Where one submission ended."""

    ledger_id: str
    created: bool
    """False when the same video has a job already that need not be tried again."""
    lane: str
    state: str = QUEUED
    """Of the job, as the ledger names it."""
    again_for: str | None = None
    """The failed job that this new one tries again."""
    forgotten: bool = False
    """It was not taken in and has no job: the video was forgotten after the message was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A lease on one job. Every later write carries `(ledger_id, owner, fence)`."""

    ledger_id: str
    owner: str
    fence: int
    video_id: str
    source: str | None
    content_sha256: str | None
    callback_url: str | None
    policy: str | None
    attributes: dict[str, Any]
    trace_id: str | None
    lane: str
    attempts: int
    crash_attempts: int
    retries: int
    created_at: float
    waited_seconds: float
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """Why a job could not be claimed; the message that asked is done with."""

    reason: Literal["terminal", "leased", "not_due", "unknown"]


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """What a shadow bundle set said about the same crops. Never published."""

    bundle_set: str
    verdict: str
    p_fake: float | None
    review_share: float = 0.0
    """Share of disagreements that people look at; drawn by a hash of the verdict, so it is repeatable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRecord:
    """One verdict on its way into the ledger."""

    content_sha256: str
    bundle_set: str
    policy: str
    verdict: str
    p_fake: float | None
    body: dict[str, Any]
    shadow: ShadowRecord | None = None

    def body_text(self) -> str:
        """The body as JSON text."""
        return json.dumps(self.body, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """One event to deliver to one URL."""

    event_id: str
    ledger_id: str
    kind: str
    url: str
    payload: str
    tries: int
    created_at: float


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job to dispatch."""

    ledger_id: str
    queue: str
    """Dispatch lane: the job's route, or one lane up when it is old."""


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A lease that ran out, and what became of its job."""

    ledger_id: str
    lane: str
    state: str


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job as it stands."""

    ledger_id: str
    video_id: str
    state: str
    lane: str
    attempts: int
    created_at: float
    finished_at: float | None
    error_code: str | None
    error_message: str | None
    attributes: dict[str, Any]
    trace_id: str | None
    body: dict[str, Any] | None = None
    """The verdict's body when there is one."""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One verdict in a listing."""

    seq: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What the ledger knows about waiting and running work."""

    queued: dict[str, int] = field(default_factory=dict)
    """Waiting jobs per lane."""
    oldest_age_seconds: dict[str, float] = field(default_factory=dict)
    """Age of the oldest waiting job per lane."""
    leased: dict[str, int] = field(default_factory=dict)
    """Running jobs per lane."""
    outbox_oldest_age_seconds: float = 0.0
