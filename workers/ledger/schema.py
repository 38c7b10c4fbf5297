"""Tables of the ledger. Times are seconds since the epoch by the database's own clock, never by a worker's."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

QUEUED: Final = "QUEUED"
LEASED: Final = "LEASED"
VERDICT: Final = "VERDICT"
FAILED: Final = "FAILED"
POISONED: Final = "POISONED"
TERMINAL: Final = (VERDICT, FAILED, POISONED)
STATES: Final = (QUEUED, LEASED, *TERMINAL)

ISOLATE: Final = "isolate"
"""Route of videos under which a worker died: they run alone, so that a neighbour is never blamed twice."""


class db_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """Seconds since the epoch by the database's clock."""

    type = Float(53)
    inherit_cache = True


@compiles(db_now)
def _now_sqlite(_element: Any, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _now_postgres(_element: Any, _compiler: Any, **_: Any) -> str:
    # moves within a transaction, unlike now(), and is stable within a statement, unlike clock_timestamp(): only a stable value
    # can be an index condition
    return "extract(epoch from statement_timestamp())::double precision"


metadata: Final = MetaData()
_Seconds = Float(53)
_RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite only numbers INTEGER primary keys by itself

jobs: Final = Table(
    "jobs",
    metadata,
    Column("ledger_id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False, server_default=""),
    Column("video_id", String(128), nullable=False),
    Column("source_version", String(80), nullable=False, server_default=""),
    Column("source", Text),
    Column("callback_url", Text),
    Column("policy", String(64)),
    Column("content_sha256", String(64)),
    Column("attributes", Text, nullable=False, server_default="{}"),
    Column("trace_id", String(64)),
    Column("door", String(16), nullable=False),
    Column("lane", String(16), nullable=False),
    Column("route", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", _Seconds, nullable=False),
    Column("due_at", _Seconds, nullable=False),
    Column("not_before", _Seconds, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("crash_attempts", Integer, nullable=False, server_default="0"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("owner", String(64)),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("lease_until", _Seconds),
    Column("started_at", _Seconds),
    Column("finished_at", _Seconds),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("verdict_seq", BigInteger),
    Column("media_seconds", _Seconds),
    Column("media_megapixels", Float(53)),
    Column("media_faces", Float(53)),
    UniqueConstraint("tenant", "video_id", "source_version", name="uq_jobs_video"),
)
# Written as literals, never as bound parameters: a planner uses a partial index only when it can see the condition.
is_queued: Final = jobs.c.state == literal_column("'QUEUED'")
is_leased: Final = jobs.c.state == literal_column("'LEASED'")
# Partial and covering: the reconciler's scans touch only live rows, however many are finished.
Index(
    "ix_jobs_due",
    jobs.c.route,
    jobs.c.due_at,
    jobs.c.ledger_id,
    jobs.c.created_at,
    jobs.c.state,  # constant here, but without it SQLite reads the table row to check the condition again
    sqlite_where=is_queued,
    postgresql_where=is_queued,
)
Index(
    "ix_jobs_leased",
    jobs.c.lease_until,
    jobs.c.ledger_id,
    jobs.c.owner,
    jobs.c.lane,
    jobs.c.state,
    sqlite_where=is_leased,
    postgresql_where=is_leased,
)
Index("ix_jobs_waiting", jobs.c.lane, jobs.c.created_at, jobs.c.state, sqlite_where=is_queued, postgresql_where=is_queued)
is_finished: Final = jobs.c.finished_at.is_not(None)
Index("ix_jobs_finished", jobs.c.finished_at, jobs.c.state, sqlite_where=is_finished, postgresql_where=is_finished)

verdicts: Final = Table(
    "verdicts",
    metadata,
    Column("seq", _RowId, primary_key=True, autoincrement=True),
    Column("ledger_id", String(32), nullable=False, index=True),
    Column("tenant", String(64), nullable=False, server_default=""),
    Column("video_id", String(128), nullable=False),
    Column("content_sha256", String(64), nullable=False),
    Column("bundle_set", String(128), nullable=False),
    Column("policy", String(128), nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("supersedes", BigInteger),
    Column("verdict", String(16), nullable=False),
    Column("p_fake", Float(53)),
    Column("body", Text, nullable=False),
    Column("created_at", _Seconds, nullable=False),
    UniqueConstraint("tenant", "video_id", "content_sha256", "bundle_set", "policy", name="uq_verdicts_judgement"),
    sqlite_autoincrement=True,
)
# The list of verdicts: one tenant's and word's in the order of their time, with all that filters ask about, so that no body is read.
Index(
    "ix_verdicts_list",
    verdicts.c.tenant,
    verdicts.c.verdict,
    verdicts.c.created_at,
    verdicts.c.seq,
    verdicts.c.p_fake,
    verdicts.c.bundle_set,
    verdicts.c.video_id,
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("event_id", String(64), primary_key=True),
    Column("ledger_id", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("receiver", Text, nullable=False, server_default=""),
    Column("payload", Text, nullable=False),
    Column("created_at", _Seconds, nullable=False),
    Column("next_try_at", _Seconds, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("delivered_at", _Seconds),
    Column("given_up_at", _Seconds),
)
Index("ix_outbox_job", outbox.c.ledger_id)
is_pending: Final = outbox.c.delivered_at.is_(None) & outbox.c.given_up_at.is_(None)
Index(
    "ix_outbox_pending", outbox.c.next_try_at, outbox.c.event_id, outbox.c.created_at, sqlite_where=is_pending, postgresql_where=is_pending
)

dead_letters: Final = Table(
    "dead_letters",
    metadata,
    Column("seq", _RowId, primary_key=True, autoincrement=True),
    Column("dedupe_key", String(96), nullable=False, unique=True),
    Column("origin", String(16), nullable=False),
    Column("ledger_id", String(32)),
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("payload", Text),
    Column("created_at", _Seconds, nullable=False),
)

Index("ix_dead_letters_job", dead_letters.c.ledger_id)
Index("ix_dead_letters_at", dead_letters.c.created_at)

submission_keys: Final = Table(
    "submission_keys",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("ledger_id", String(32), nullable=False),
    Column("created_at", _Seconds, nullable=False),
)
Index("ix_submission_keys_job", submission_keys.c.ledger_id)

events: Final = Table(
    "events",
    metadata,
    Column("seq", _RowId, primary_key=True, autoincrement=True),
    Column("at", _Seconds, nullable=False),
    Column("ledger_id", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("owner", String(64)),
    Column("fence", Integer),
    Column("detail", Text),
    sqlite_autoincrement=True,
)
Index("ix_events_job", events.c.ledger_id)
Index("ix_events_at", events.c.at)

leaders: Final = Table(
    "leaders",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until", _Seconds, nullable=False),
)
