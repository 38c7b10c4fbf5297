"""Human review: items, an append-only log, login links; the open queue is filled from the verdicts on record.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_OPEN = sa.text("state = 'OPEN'")
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Words that people look at; NO_FACE is left out, since only faces are judged there is nothing to decide.
_BACKFILL = """
INSERT INTO review_items (verdict_seq, tenant, ledger_id, video_id, word, p_fake, opened_at, state, reading)
SELECT v.seq, v.tenant, v.ledger_id, v.video_id, v.verdict, v.p_fake, v.created_at, 'OPEN', 'first'
FROM verdicts v
WHERE v.verdict IN ('suspicious', 'manipulated', 'inconclusive') AND v.body NOT LIKE '%"NO_FACE"%'
  AND NOT EXISTS (SELECT 1 FROM verdicts w WHERE w.tenant = v.tenant AND w.video_id = v.video_id AND w.seq > v.seq)
"""
_REFUSAL = "the review log is append-only"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "review_items",
        sa.Column("verdict_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="", nullable=False),
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.Column("video_id", sa.String(length=128), nullable=False),
        sa.Column("word", sa.String(length=16), nullable=False),
        sa.Column("p_fake", sa.Float(precision=53), nullable=True),
        sa.Column("reasons", sa.String(length=200), server_default="", nullable=False),
        sa.Column("title", sa.String(length=200), nullable=True),
        sa.Column("opened_at", sa.Float(precision=53), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reading", sa.String(length=8), nullable=False),
        sa.Column("readers", sa.Text(), server_default="|", nullable=False),
        sa.Column("claimed_by", sa.String(length=64), nullable=True),
        sa.Column("claimed_until", sa.Float(precision=53), nullable=True),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("decided_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("verdict_seq"),
    )
    op.create_index("ix_review_open", "review_items", ["verdict_seq", "state"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    columns = ["word", "reading", "verdict_seq", "state"]
    op.create_index("ix_review_open_word", "review_items", columns, sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_index("ix_review_video", "review_items", ["video_id"])
    op.create_index("ix_verdicts_score", "verdicts", ["bundle_set", "verdict", "p_fake"])
    op.create_index("ix_verdicts_content", "verdicts", ["content_sha256"])
    op.create_table(
        "review_log",
        sa.Column("seq", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("verdict_seq", sa.BigInteger(), nullable=False),
        sa.Column("video_id", sa.String(length=128), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reading", sa.String(length=8), nullable=True),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("undoes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_review_log_item", "review_log", ["verdict_seq"])
    op.create_index("ix_review_log_actor", "review_log", ["actor", "seq"])
    op.create_table(
        "login_links",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("reviewer", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.Column("used_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("token_sha256"),
    )
    _refuse_changes_of_the_log()
    op.execute(_BACKFILL)


def _refuse_changes_of_the_log() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION review_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER review_log_append_only BEFORE UPDATE OR DELETE ON review_log "
            "FOR EACH ROW EXECUTE FUNCTION review_log_is_append_only()"
        )
        return
    for action in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER review_log_no_{action.lower()} BEFORE {action} ON review_log BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        )


def downgrade() -> None:
    """Take back."""
    op.drop_table("login_links")
    op.drop_table("review_log")  # its triggers go with it
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION review_log_is_append_only()")
    op.drop_index("ix_verdicts_content", "verdicts")
    op.drop_index("ix_verdicts_score", "verdicts")
    op.drop_table("review_items")
