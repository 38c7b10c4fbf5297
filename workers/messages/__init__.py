"""Public JSON contracts, versioned: what comes in (enqueue schema v1, Celery messages, CloudEvents, S3 events) and `verdict/1`."""

from .celery_wire import (
    DISPATCH_TASK,
    EXPLAIN_TASK,
    SCREEN_TASK,
    dispatch_message,
    enqueue_message,
    explain_message,
    inbox_lists,
    parse_celery_message,
)
from .enqueue import DEFAULT_LANE, INBOX_LANES, EnqueueRequest, Lane, parse_enqueue
from .events import EventRequest, Events, RefusedRecord, parse_cloud_event, parse_event, parse_s3_notification
from .evidence import EvidenceBody, evidence_body
from .naming import names_video
from .plain_json import load_json
from .verdict import JobFacts, VerdictBody, answer_to_job, failure_body, pending_body, verdict_body

__all__ = [
    "DEFAULT_LANE",
    "DISPATCH_TASK",
    "EXPLAIN_TASK",
    "INBOX_LANES",
    "SCREEN_TASK",
    "EnqueueRequest",
    "EventRequest",
    "Events",
    "EvidenceBody",
    "JobFacts",
    "Lane",
    "RefusedRecord",
    "VerdictBody",
    "answer_to_job",
    "dispatch_message",
    "enqueue_message",
    "evidence_body",
    "explain_message",
    "failure_body",
    "inbox_lists",
    "load_json",
    "names_video",
    "parse_celery_message",
    "parse_cloud_event",
    "parse_enqueue",
    "parse_event",
    "parse_s3_notification",
    "pending_body",
    "verdict_body",
]
