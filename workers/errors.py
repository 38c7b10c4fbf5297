"""The one error tree of the service.

As in `detect_core.errors` every class carries its public `code` and whether the same request may succeed later; what the
worker does about it is decided in `workers/retry.py`, what an HTTP client sees in `workers/web/errors.py`.
"""

from __future__ import annotations

from typing import ClassVar


class WorkerError(Exception):
    """Base of everything that the service raises on purpose."""

    code: ClassVar[str] = "INTERNAL"
    """Public error code, stable across versions."""

    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later."""


class SettingsError(WorkerError, ValueError):
    """Raised at start-up when a setting cannot work."""

    code = "INVALID_SETTINGS"


class SandboxError(SettingsError):
    """Raised at start-up when this machine cannot take files, network and processes away from the decode child."""

    code = "SANDBOX_OFF"


# --- what others send us ---------------------------------------------------------------------------------------------


class InvalidMessageError(WorkerError, ValueError):
    """Raised when an enqueue request, a queue message or an event breaks its published contract."""

    code = "INVALID_MESSAGE"


class InvalidVideoIdError(InvalidMessageError):
    """Raised when a video ID is not 1-128 characters of `A-Z a-z 0-9 _ -`."""

    code = "INVALID_VIDEO_ID"


class UnknownVersionError(InvalidMessageError):
    """Raised when a message names a `schema_version` or `specversion` that this build does not know."""

    code = "UNKNOWN_VERSION"


class UnknownTaskError(InvalidMessageError):
    """Raised when a Celery message on an inbox lane names a task that is not ours."""

    code = "UNKNOWN_TASK"


class IdempotencyConflictError(WorkerError, ValueError):
    """Raised when one idempotency key arrives with two different requests."""

    code = "IDEMPOTENCY_CONFLICT"


class UnknownVideoError(WorkerError, LookupError):
    """Raised when somebody asks for a video or a job that was never submitted."""

    code = "UNKNOWN_VIDEO"


class UnknownReviewError(WorkerError, LookupError):
    """Raised when somebody acts on a review item that does not exist."""

    code = "UNKNOWN_REVIEW"


class ReviewConflictError(WorkerError):
    """Raised when two people act on one review item: it is held, decided, or was read by the same person before."""

    code = "REVIEW_CONFLICT"


# --- who may ask, and how often --------------------------------------------------------------------------------------


class UnknownKeyError(WorkerError, LookupError):
    """Raised when somebody names an API key that does not exist or has ended."""

    code = "UNKNOWN_KEY"


class LimitError(WorkerError):
    """Base of refusals for one tenant that took its share; others are not affected."""

    code = "RATE_LIMITED"
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateLimitedError(LimitError):
    """Raised when a tenant sent more requests than its limit within a minute."""

    code = "RATE_LIMITED"


class QuotaExhaustedError(LimitError):
    """Raised when a tenant's videos of today are used up."""

    code = "QUOTA_EXHAUSTED"


# --- where media come from -------------------------------------------------------------------------------------------


class SourceError(WorkerError):
    """Base of errors while a video ID is turned into a local file."""

    code = "FETCH_TIMEOUT"


class SourceNotAllowedError(SourceError):
    """Raised when scheme, host, address range, redirect, bucket or path is outside the allow-lists."""

    code = "FETCH_NOT_ALLOWED"


class MediaGoneError(SourceError):
    """Raised when the source says that the file does not exist or may not be read (404, 410, 403)."""

    code = "FETCH_NOT_FOUND"


class MediaUnavailableError(SourceError):
    """Raised when the source is down, slow or answers 5xx: worth another try."""

    code = "FETCH_TIMEOUT"
    retryable = True


class FetchTooLargeError(SourceError):
    """Raised when the file holds more bytes than the fetch budget."""

    code = "FETCH_TOO_LARGE"


class MediaChangedError(SourceError):
    """Raised when the bytes differ from the request's `content_sha256`."""

    code = "FETCH_CHANGED"


# --- ledger ----------------------------------------------------------------------------------------------------------


class LedgerError(WorkerError):
    """Base of errors of the ledger."""

    code = "LEDGER_UNAVAILABLE"


class LedgerUnavailableError(LedgerError):
    """Raised when the database cannot be reached, is locked for too long or refuses the connection."""

    code = "LEDGER_UNAVAILABLE"
    retryable = True


class LedgerFullError(LedgerUnavailableError):
    """Raised when the database cannot write because its disk is full."""

    code = "LEDGER_FULL"


class LedgerSchemaError(LedgerError):
    """Raised at start-up when the database has another schema revision than this build."""

    code = "LEDGER_SCHEMA"


class LeaseLostError(LedgerError):
    """Raised when a worker writes after its lease was taken: it stops silently, nothing is written."""

    code = "LEASE_LOST"


# --- broker and machine ----------------------------------------------------------------------------------------------


class BrokerError(WorkerError):
    """Base of errors of the broker."""

    code = "BROKER_UNAVAILABLE"


class BrokerUnavailableError(BrokerError):
    """Raised when the broker cannot be reached."""

    code = "BROKER_UNAVAILABLE"
    retryable = True


class BrokerFullError(BrokerUnavailableError):
    """Raised when the broker refuses writes because its memory limit is reached."""

    code = "BROKER_FULL"


class BrokerPolicyError(BrokerError):
    """Raised at start-up when the broker may evict keys, which would lose videos silently."""

    code = "BROKER_EVICTS"


class BacklogFullError(WorkerError):
    """Raised when more videos wait than `backlog_limit` allows: come back later."""

    code = "BACKLOG_FULL"
    retryable = True


class PortInUseError(WorkerError, OSError):
    """Raised when a port that a server needs is taken."""

    code = "PORT_IN_USE"


class DiskFullError(WorkerError, OSError):
    """Raised when a folder that the service must write has no room."""

    code = "DISK_FULL"


class FileAccessError(WorkerError, OSError):
    """Raised when a path that somebody named to a command cannot be read or written."""

    code = "FILE_ACCESS"


class MissingExtraError(WorkerError):
    """Raised when a command needs a package that only comes with one of the extras."""

    code = "MISSING_EXTRA"


class EncodeError(WorkerError):
    """Raised when a clip that a command makes for itself cannot be encoded."""

    code = "CLIP_NOT_MADE"


class WorkerDiedError(WorkerError):
    """Raised when the worker that a command started ends again and again, so that waiting for it is no use."""

    code = "WORKER_DIED"


class BenchError(WorkerError):
    """Raised when a part of the bench cannot be measured."""

    code = "BENCH_FAILED"


class AlreadyRunningError(WorkerError):
    """Raised when a second embedded system is started on the same state folder."""

    code = "ALREADY_RUNNING"
