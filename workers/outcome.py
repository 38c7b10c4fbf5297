"""One job as a `verdict/1` object, whatever its state: the answer of the API and of `veriframe verdict`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .ledger import JobRow
from .ledger.schema import LEASED, QUEUED, VERDICT
from .messages import JobFacts, answer_to_job, failure_body, pending_body
from .retry import RETRYABLE_CODES


def public_state(state: str) -> str:
    """What `verdict/1` calls a job's state."""
    return {QUEUED: "queued", LEASED: "processing", VERDICT: "complete"}.get(state, "failed")


def job_body(job: JobRow) -> dict[str, Any]:
    """One job as a `verdict/1` object, whatever its state."""
    if job.state == VERDICT and job.body is not None:
        return answer_to_job(job.body, job_id=job.ledger_id, attributes=job.attributes, trace_id=job.trace_id)
    facts = JobFacts(
        video_id=job.video_id,
        job_id=job.ledger_id,
        attributes=job.attributes,
        trace_id=job.trace_id,
        created_at=datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="milliseconds"),
    )
    if job.state == QUEUED:
        return pending_body(state="queued", job=facts).to_json()
    if job.state == LEASED:
        return pending_body(state="processing", job=facts).to_json()
    code, message = job.error_code or job.state, job.error_message or "the video could not be judged"
    return failure_body(code=code, message=message, retryable=code in RETRYABLE_CODES, job=facts).to_json()
