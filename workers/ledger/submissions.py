"""Taking videos in: idempotent, many per transaction."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, bindparam, case, func, insert, literal, select, update

from ..errors import (
    FetchTooLargeError,
    IdempotencyConflictError,
    MediaChangedError,
    MediaGoneError,
    QuotaExhaustedError,
    SourceNotAllowedError,
    UnknownVideoError,
)
from ..messages import DEFAULT_LANE
from ..messages.enqueue import MediaHint
from ..retry import RETRYABLE_CODES
from .door_schema import audit_log, tenant_usage
from .engine import hold_lock, writing
from .records import Submission, Submitted
from .schema import FAILED, POISONED, QUEUED, db_now, events, jobs, submission_keys

_DAY_SECONDS: Final = 86_400
_FETCH_CODES: Final = {error.code for error in (MediaGoneError, SourceNotAllowedError, FetchTooLargeError, MediaChangedError)}
"""The file was never judged; it may be found by now, at a freshly signed URL, in a volume that is mounted again, under a limit that was raised."""
_CHUNK: Final = 20_000
"""Postgres takes 65,535 parameters, SQLite 32,766. Few large look-ups: one that is repeated often is planned without its values, and badly."""
_SLACK_SECONDS: Final = 1.0
"""One taken for forgotten by mistake is only read again, from a list a moment later and from the stream when its entry is claimed as
stale (`VERIFRAME_STREAM_IDLE_SECONDS`); one missed would come back for good."""
_LATE_SECONDS: Final = 60.0
"""Lines of the audit log are numbered in the order of their times but for the length of a statement."""
FORGETTING: Final = "forgetting"
"""Lock between what takes messages in and what forgets a video: of two that overlap one sees what the other did."""
VIDEO_ERASED: Final = "video_erased"
"""The audit log's word for a forgotten video."""
_TRACE = re.compile(r"[\x21-\x7e]{1,64}")
"""What is no trace context is forgotten: a request is not refused for it, and it must not reach a database that cannot store it."""


def new_ledger_id() -> str:
    """32 hex digits: 12 of milliseconds, 20 random. Time order keeps the primary key's index compact."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def insert_or_ignore(connection: Connection, table: Any) -> Any:
    """An INSERT that does nothing on a unique conflict, in the connection's dialect."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgres_insert

        return postgres_insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table).on_conflict_do_nothing()


def record_events(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Append to the history, in the caller's transaction."""
    if rows:
        connection.execute(_EVENT, [{"owner": None, "fence": None, "detail": None, **row} for row in rows])


_EVENT = insert(events).values(
    at=db_now(),
    ledger_id=bindparam("ledger_id"),
    kind=bindparam("kind"),
    owner=bindparam("owner"),
    fence=bindparam("fence"),
    detail=bindparam("detail"),
)
_NEWEST = (
    select(jobs.c.ledger_id, jobs.c.lane, jobs.c.state, jobs.c.error_code)
    .where(
        jobs.c.tenant == bindparam("tenant"),
        jobs.c.video_id == bindparam("video_id"),
        (jobs.c.source_version == bindparam("source_version")) | jobs.c.source_version.startswith(bindparam("again")),
    )
    # of two that were made within one millisecond the failed one is the older
    .order_by(jobs.c.created_at.desc(), case((jobs.c.state == FAILED, 1), else_=0), jobs.c.ledger_id.desc())
    .limit(1)
)
"""The newest job of a video's version: the first one, or the last that tries it again."""


class Submissions:
    """The part of the ledger that takes videos in."""

    _engine: Engine

    def submit(self, submission: Submission, *, grace_seconds: float = 0.0) -> Submitted:
        """Take in one video. See `submit_many`; a conflicting idempotency key raises.

        Raises:
            IdempotencyConflictError: `submission.key` was used for another request.
        """
        return self.submit_many([submission], grace_seconds=[grace_seconds], refuse_conflicts=True)[0]

    def submit_many(
        self,
        submissions: Sequence[Submission],
        *,
        grace_seconds: Sequence[float] | None = None,
        refuse_conflicts: bool = False,
        quota: int | None = None,
    ) -> list[Submitted]:
        """Take in videos in one transaction; when it returns they are safe.

        The same `(tenant, video_id, source_version)` or the same `key` twice gives the same job back. One that FAILED with a
        retryable code, or at a fetch, gets a new job instead, unless the `key` is the same: an event that is delivered again asks for
        nothing new.
        A message whose video was forgotten after it was read is not taken in; `forgotten` of its outcome says so.

        Args:
            submissions: what was asked for.
            grace_seconds: per submission, how long the reconciler leaves the row alone because the caller sends it itself.
            refuse_conflicts: raise when a key returns with another request, instead of taking it as a duplicate.
            quota: videos a day (UTC) that their one tenant may have taken in; what makes no new job is not counted. None: not counted.

        Raises:
            QuotaExhaustedError: the new ones do not fit any more; nothing of the batch is taken in.
            IdempotencyConflictError: see above; nothing of the batch is taken in.
            LedgerUnavailableError: the database is down or full; nothing of the batch is taken in.
        """
        if not submissions:
            return []
        rows = [
            _job_row(submission, grace=grace)
            for submission, grace in zip(submissions, grace_seconds or [0.0] * len(submissions), strict=True)
        ]
        with writing(self._engine) as connection:
            if refuse_conflicts:
                for key in sorted({submission.key for submission in submissions if submission.key is not None}):
                    hold_lock(connection, f"key:{key}")  # another request with it may be on its way: it is on record when we go on
            gone = _forgotten(connection, submissions)
            known = _known_keys(connection, submissions, refuse_conflicts=refuse_conflicts)
            # always in one order: of two batches that share videos in another order, each would wait for a row of the other
            in_order = sorted(range(len(rows)), key=lambda i: [rows[i][name] for name in ("tenant", "video_id", "source_version")])
            fresh = [rows[i] for i in in_order if submissions[i].key not in known and i not in gone]
            created: set[str] = set()
            if fresh:
                connection.execute(_job_insert(connection), fresh)
                for mine in _chunks([row["ledger_id"] for row in fresh]):
                    created.update(connection.scalars(select(jobs.c.ledger_id).where(jobs.c.ledger_id.in_(mine))))
            by_place = {i: _outcome(connection, rows[i], submissions[i], created, known) for i in in_order if i not in gone}
            by_place |= {i: Submitted(ledger_id="", created=False, lane=rows[i]["lane"], forgotten=True) for i in gone}
            outcomes = [by_place[i] for i in range(len(rows))]
            _record_keys(connection, submissions, outcomes, known)
            new = [outcome for outcome in outcomes if outcome.created]
            record_events(connection, [_submitted(outcome) for outcome in new])
            if new and quota is not None:  # last: it holds up the tenant's other submits until this one is committed
                _charge(connection, submissions[0].tenant, len(new), quota=quota)
        return outcomes

    def resubmit(self, ledger_id: str) -> Submitted:
        """Make a new job for the request of a FAILED or POISONED one; the old row stays as it is.

        Raises:
            UnknownVideoError: there is no such dead job.
        """
        with writing(self._engine) as connection:
            row = connection.execute(select(jobs).where(jobs.c.ledger_id == ledger_id, jobs.c.state.in_((FAILED, POISONED)))).first()
            if row is None:
                raise UnknownVideoError(f"no FAILED or POISONED job {ledger_id!r:.40}: `veriframe dead-letters` lists them")
            request = ("tenant", "video_id", "source", "callback_url", "policy", "content_sha256", "attributes", "trace_id", "lane")
            kept = (*request, "media_seconds", "media_megapixels", "media_faces")
            fresh = new_ledger_id()
            values = {name: getattr(row, name) for name in kept}
            connection.execute(
                insert(jobs).values(
                    ledger_id=fresh,
                    source_version=_again(row.source_version) + fresh[:12],
                    door="cli",
                    route=row.lane,
                    state=QUEUED,
                    created_at=db_now(),
                    due_at=db_now(),
                    **values,
                )
            )
            outcome = Submitted(ledger_id=fresh, created=True, lane=row.lane, again_for=ledger_id)
            record_events(connection, [_submitted(outcome)])
        return outcome


def _charge(connection: Connection, tenant: str, num_videos: int, *, quota: int) -> None:
    """Count videos against today's quota, all or none."""
    now = float(connection.scalar(select(db_now() / _DAY_SECONDS)) or 0.0)
    today = {"tenant": tenant, "day": int(now)}
    connection.execute(insert_or_ignore(connection, tenant_usage), {**today, "videos": 0})
    mine = update(tenant_usage).where(tenant_usage.c.tenant == tenant, tenant_usage.c.day == today["day"])
    more = tenant_usage.c.videos + num_videos
    if connection.execute(mine.where(more <= quota).values(videos=more)).rowcount != 1:
        raise QuotaExhaustedError(
            f"today's quota of {quota} videos is used up: it begins anew at 00:00 UTC",
            retry_after_seconds=round((1 - now % 1) * _DAY_SECONDS) + 1,
        )


def _again(source_version: str) -> str:
    """What the source versions of all jobs that try this one again begin with."""
    return f"{source_version[:64]}+"


def _submitted(outcome: Submitted) -> dict[str, Any]:
    detail = f"again:{outcome.again_for}" if outcome.again_for is not None else None
    return {"ledger_id": outcome.ledger_id, "kind": "submitted", "detail": detail}


def _job_row(submission: Submission, *, grace: float) -> dict[str, Any]:
    request = submission.request
    lane = request.lane or DEFAULT_LANE
    media = request.media or MediaHint()
    return {
        "ledger_id": new_ledger_id(),
        "tenant": submission.tenant,
        "video_id": request.video_id,
        "source_version": submission.source_version or request.source_version,
        "source": request.source,
        "callback_url": request.callback_url,
        "policy": request.policy,
        "content_sha256": request.content_sha256,
        "attributes": json.dumps(request.attributes),
        "trace_id": submission.trace_id if submission.trace_id and _TRACE.fullmatch(submission.trace_id) else None,
        "door": submission.door,
        "lane": lane,
        "route": lane,
        "state": QUEUED,
        "grace": grace,
        "media_seconds": media.duration_seconds,
        "media_megapixels": media.megapixels,
        "media_faces": media.num_faces,
    }


def _job_insert(connection: Connection) -> Any:
    return insert_or_ignore(connection, jobs).values(created_at=db_now(), due_at=db_now() + bindparam("grace"))


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """So many at a time as one statement may name: each event of a batch may ask for a thousand videos."""
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def erased_since(connection: Connection, read_at: float) -> Select[str]:
    """IDs of the videos that were forgotten after `read_at`; until the transaction ends no other one is."""
    hold_lock(connection, FORGETTING, shared=True)
    since = db_now() - literal(time.monotonic() - read_at + _SLACK_SECONDS)
    # the log grows for ever and has no index by time: it is read from its end
    before = select(audit_log.c.seq).where(audit_log.c.at < since - _LATE_SECONDS).order_by(audit_log.c.seq.desc()).limit(1)
    recent = audit_log.c.seq > func.coalesce(before.scalar_subquery(), 0)
    return select(audit_log.c.target).where(recent, audit_log.c.at > since, audit_log.c.action == VIDEO_ERASED, audit_log.c.tenant == "")


def _forgotten(connection: Connection, submissions: Sequence[Submission]) -> set[int]:
    """Places of the messages whose video was forgotten after they were read: it must not come back."""
    read_at = {i: submission.read_at for i, submission in enumerate(submissions) if submission.read_at is not None}
    if not read_at:
        return set()
    erased = erased_since(connection, min(read_at.values()))
    ids = sorted({submissions[i].request.video_id for i in read_at})
    found: set[str] = set()
    for some in _chunks(ids):
        found.update(connection.scalars(erased.where(audit_log.c.target.in_(some))))
    return {i for i in read_at if submissions[i].request.video_id in found}


def _known_keys(connection: Connection, submissions: Sequence[Submission], *, refuse_conflicts: bool) -> dict[str | None, Submitted]:
    wanted = {s.key: s for s in submissions if s.key is not None}
    if not wanted:
        return {}
    with_job = select(submission_keys, jobs.c.lane, jobs.c.state).join(jobs, jobs.c.ledger_id == submission_keys.c.ledger_id)
    found = [row for some in _chunks(list(wanted)) for row in connection.execute(with_job.where(submission_keys.c.key.in_(some)))]
    for row in found:
        # an event that came by the stream left no hash of its request
        if refuse_conflicts and row.request_sha256 and row.request_sha256 != wanted[row.key].key_sha256:
            raise IdempotencyConflictError(
                f"this idempotency key was used for another request (job {row.ledger_id}): send a new key or the same request"
            )
    return {row.key: Submitted(ledger_id=row.ledger_id, created=False, lane=row.lane, state=row.state) for row in found}


def _outcome(
    connection: Connection, row: dict[str, Any], submission: Submission, created: set[str], known: dict[str | None, Submitted]
) -> Submitted:
    if submission.key in known:
        return known[submission.key]
    if row["ledger_id"] in created:
        return Submitted(ledger_id=row["ledger_id"], created=True, lane=row["lane"])
    again = _again(row["source_version"])
    same_video = {"tenant": row["tenant"], "video_id": row["video_id"], "source_version": row["source_version"], "again": again}
    newest = connection.execute(_NEWEST, same_video).one()
    # what failed may end otherwise now: its reason passes, or its file was not to be had
    if newest.state == FAILED and newest.error_code in RETRYABLE_CODES | _FETCH_CODES:
        # named after the failed job, so that of many who submit it again at once one makes the new job
        fresh = {**row, "source_version": again + newest.ledger_id[-12:]}
        if connection.execute(_job_insert(connection).returning(jobs.c.ledger_id), fresh).first() is not None:
            return Submitted(ledger_id=row["ledger_id"], created=True, lane=row["lane"], again_for=newest.ledger_id)
        newest = connection.execute(_NEWEST, same_video).one()
    return Submitted(ledger_id=newest.ledger_id, created=False, lane=newest.lane, state=newest.state)


def _record_keys(
    connection: Connection, submissions: Sequence[Submission], outcomes: Sequence[Submitted], known: dict[str | None, Submitted]
) -> None:
    rows = [
        {"key": s.key, "request_sha256": s.key_sha256, "ledger_id": o.ledger_id}
        for s, o in zip(submissions, outcomes, strict=True)
        if s.key is not None and s.key not in known and not o.forgotten
    ]
    if rows:
        rows.sort(key=lambda row: str(row["key"]))  # as jobs are
        connection.execute(insert_or_ignore(connection, submission_keys).values(created_at=db_now()), rows)
