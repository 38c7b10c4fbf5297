"""Doors: API keys, tenants' limits and usage, the append-only audit log, erasures that reach the review log.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_REVIEW_REFUSAL = "the review log is append-only"
_AUDIT_REFUSAL = "the audit log is append-only"
_HAS_NO_SLIP = "NOT EXISTS (SELECT 1 FROM erasure_slips WHERE erasure_slips.verdict_seq = OLD.verdict_seq)"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="", nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=True),
        sa.Column("revoked_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("key_id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "tenant_limits",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("videos_per_day", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "tenant_usage",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("videos", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "day"),
    )
    op.create_table(
        "audit_log",
        sa.Column("seq", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="", nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("detail", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_target", "audit_log", ["target"])
    op.create_table(
        "erasure_slips",
        sa.Column("verdict_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("verdict_seq"),
    )
    op.create_index("ix_verdicts_tenant", "verdicts", ["tenant", "seq"])
    op.create_index("ix_verdicts_created", "verdicts", ["created_at"])
    _upgrade_triggers()


def _upgrade_triggers() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION review_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF TG_OP = 'DELETE' AND NOT ({_HAS_NO_SLIP}) THEN RETURN OLD; END IF; RAISE EXCEPTION '{_REVIEW_REFUSAL}'; END $$"
        )
        op.execute(
            f"CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{_AUDIT_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log "
            "FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()"
        )
        return
    op.execute("DROP TRIGGER review_log_no_delete")
    op.execute(
        f"CREATE TRIGGER review_log_no_delete BEFORE DELETE ON review_log WHEN {_HAS_NO_SLIP} "
        f"BEGIN SELECT RAISE(ABORT, '{_REVIEW_REFUSAL}'); END"
    )
    for action in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_log_no_{action.lower()} BEFORE {action} ON audit_log BEGIN SELECT RAISE(ABORT, '{_AUDIT_REFUSAL}'); END"
        )


def _downgrade_triggers() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION review_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION '{_REVIEW_REFUSAL}'; END $$"
        )
        return
    op.execute("DROP TRIGGER review_log_no_delete")
    op.execute(f"CREATE TRIGGER review_log_no_delete BEFORE DELETE ON review_log BEGIN SELECT RAISE(ABORT, '{_REVIEW_REFUSAL}'); END")


def downgrade() -> None:
    """Take back."""
    _downgrade_triggers()
    op.drop_index("ix_verdicts_created", "verdicts")
    op.drop_index("ix_verdicts_tenant", "verdicts")
    op.drop_table("erasure_slips")
    op.drop_table("audit_log")  # its triggers go with it
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_is_append_only()")
    op.drop_table("tenant_usage")
    op.drop_table("tenant_limits")
    op.drop_table("api_keys")
