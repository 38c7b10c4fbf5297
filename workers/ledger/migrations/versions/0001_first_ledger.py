"""The first ledger: jobs, verdicts, outbox, dead letters, keys, history, leaders.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_QUEUED = sa.text("state = 'QUEUED'")
_LEASED = sa.text("state = 'LEASED'")
_FINISHED = sa.text("finished_at IS NOT NULL")
_PENDING = sa.text("delivered_at IS NULL AND given_up_at IS NULL")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "dead_letters",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dedupe_key", sa.String(length=96), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("ledger_id", sa.String(length=32), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("dedupe_key"),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_at", "events", ["at"], unique=False)
    op.create_index("ix_events_job", "events", ["ledger_id"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="", nullable=False),
        sa.Column("video_id", sa.String(length=128), nullable=False),
        sa.Column("source_version", sa.String(length=80), server_default="", nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("policy", sa.String(length=64), nullable=True),
        sa.Column("content_sha256", sa.String(length=64), nullable=True),
        sa.Column("attributes", sa.Text(), server_default="{}", nullable=False),
        sa.Column("trace_id", sa.String(length=64), nullable=True),
        sa.Column("door", sa.String(length=16), nullable=False),
        sa.Column("lane", sa.String(length=16), nullable=False),
        sa.Column("route", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("due_at", sa.Float(precision=53), nullable=False),
        sa.Column("not_before", sa.Float(precision=53), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crash_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", sa.Float(precision=53), nullable=True),
        sa.Column("started_at", sa.Float(precision=53), nullable=True),
        sa.Column("finished_at", sa.Float(precision=53), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("verdict_seq", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("ledger_id"),
        sa.UniqueConstraint("tenant", "video_id", "source_version", name="uq_jobs_video"),
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["route", "due_at", "ledger_id", "created_at", "state"],
        unique=False,
        sqlite_where=_QUEUED,
        postgresql_where=_QUEUED,
    )
    op.create_index("ix_jobs_finished", "jobs", ["finished_at", "state"], unique=False, sqlite_where=_FINISHED, postgresql_where=_FINISHED)
    op.create_index(
        "ix_jobs_leased",
        "jobs",
        ["lease_until", "ledger_id", "owner", "lane", "state"],
        unique=False,
        sqlite_where=_LEASED,
        postgresql_where=_LEASED,
    )
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["lane", "created_at", "state"],
        unique=False,
        sqlite_where=_QUEUED,
        postgresql_where=_QUEUED,
    )

    op.create_table(
        "leaders",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "outbox",
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("next_try_at", sa.Float(precision=53), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("delivered_at", sa.Float(precision=53), nullable=True),
        sa.Column("given_up_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["next_try_at", "event_id", "created_at"],
        unique=False,
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    )

    op.create_table(
        "submission_keys",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "verdicts",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="", nullable=False),
        sa.Column("video_id", sa.String(length=128), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("bundle_set", sa.String(length=128), nullable=False),
        sa.Column("policy", sa.String(length=128), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("supersedes", sa.BigInteger(), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("p_fake", sa.Float(precision=53), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("tenant", "video_id", "content_sha256", "bundle_set", "policy", name="uq_verdicts_judgement"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_verdicts_ledger_id", "verdicts", ["ledger_id"], unique=False)
    op.create_index("ix_verdicts_word", "verdicts", ["verdict", "seq"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_verdicts_word", "verdicts")
    op.drop_index("ix_verdicts_ledger_id", "verdicts")

    op.drop_table("verdicts")
    op.drop_table("submission_keys")
    op.drop_index(
        "ix_outbox_pending",
        "outbox",
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    )

    op.drop_table("outbox")
    op.drop_table("leaders")
    op.drop_index("ix_jobs_waiting", "jobs", sqlite_where=_QUEUED, postgresql_where=_QUEUED)
    op.drop_index("ix_jobs_leased", "jobs", sqlite_where=_LEASED, postgresql_where=_LEASED)
    op.drop_index("ix_jobs_finished", "jobs")
    op.drop_index("ix_jobs_due", "jobs", sqlite_where=_QUEUED, postgresql_where=_QUEUED)

    op.drop_table("jobs")
    op.drop_index("ix_events_job", "events")
    op.drop_index("ix_events_at", "events")

    op.drop_table("events")
    op.drop_table("dead_letters")
