"""The one way into the system, whatever the door: ledger row first, then a hint to the workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from . import tracing
from .broker import Dispatcher
from .errors import BacklogFullError, BrokerError, WorkerError
from .ledger import Ledger, Submission, Submitted
from .messages import DEFAULT_LANE
from .metrics import Metrics

_CHECK_SECONDS: Final = 0.5
log = structlog.get_logger(__name__)


class Intake:
    """Takes videos in. Accepted means "has a ledger row"; the message that follows is only a hint."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, *, metrics: Metrics, resend_seconds: float, backlog_limit: int) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._resend_seconds = resend_seconds
        self._backlog_limit = backlog_limit
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._waiting = 0
        self._trouble: WorkerError | None = None

    def require_room(self) -> None:
        """Refuse new work while the broker is down or full or the backlog is too long: nothing was written yet.

        Raises:
            BrokerUnavailableError, BrokerFullError, BacklogFullError, LedgerUnavailableError.
        """
        with self._lock:
            if time.monotonic() - self._checked_at > _CHECK_SECONDS:
                self._trouble, self._waiting = self._check()
                self._checked_at = time.monotonic()
            trouble, waiting = self._trouble, self._waiting
        if trouble is not None:
            raise trouble
        if waiting >= self._backlog_limit:
            raise BacklogFullError(f"{waiting} videos wait already, the limit is {self._backlog_limit}: try again later")

    def _check(self) -> tuple[WorkerError | None, int]:
        """Ask broker and ledger; trouble is kept too, so that many waiting clients do not each wait for a dead broker."""
        try:
            self._dispatcher.check()
            return None, self._ledger.count_waiting()
        except WorkerError as err:
            return err, 0

    def accept(self, submissions: Sequence[Submission], *, refuse_conflicts: bool = False, quota: int | None = None) -> list[Submitted]:
        """Write the ledger rows, then send hints while the dispatch queues have room.

        Raises:
            LedgerUnavailableError: nothing was taken in.
            IdempotencyConflictError: only with `refuse_conflicts`; nothing was taken in.
            QuotaExhaustedError: only with `quota`; nothing was taken in.
        """
        submissions = [_traced(submission) for submission in submissions]
        room = self._room()
        grace: list[float] = []
        for submission in submissions:
            lane = submission.request.lane or DEFAULT_LANE
            has_room = room.get(lane, 0) > 0
            room[lane] = room.get(lane, 0) - 1
            # a row that we hint at is left alone by the reconciler; one that we do not is due at once
            grace.append(self._resend_seconds if has_room else 0.0)
        outcomes = self._ledger.submit_many(submissions, grace_seconds=grace, refuse_conflicts=refuse_conflicts, quota=quota)
        hints = [(o.ledger_id, o.lane) for o, seconds in zip(outcomes, grace, strict=True) if o.created and seconds > 0]
        try:
            self._dispatcher.send(hints)
        except BrokerError as err:
            log.warning("hints_not_sent", code=err.code, num_jobs=len(hints), note="the janitor sends them")
        for outcome, submission in zip(outcomes, submissions, strict=True):
            if outcome.created:
                self._metrics.enqueued.labels(source=submission.door, queue=outcome.lane).inc()
            elif not outcome.forgotten:
                self._metrics.duplicates.labels(reason="dedupe").inc()
        return outcomes

    def _room(self) -> dict[str, int]:
        try:
            return dict(self._dispatcher.room())
        except BrokerError:
            return {}


def _traced(submission: Submission) -> Submission:
    """The submission with the span under which its screening will appear."""
    request = submission.request
    with tracing.span(
        "veriframe submit",
        traceparent=submission.trace_id,
        kind="PRODUCER",
        video_id=request.video_id,
        door=submission.door,
        lane=request.lane,
    ) as opened:
        return submission if opened.traceparent == submission.trace_id else replace(submission, trace_id=opened.traceparent)
