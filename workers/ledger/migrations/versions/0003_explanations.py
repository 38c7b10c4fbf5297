"""Explanations on demand, and what a shadow bundle set would have said.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "explanations",
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("clip", sa.LargeBinary(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("ledger_id"),
    )
    op.create_index("ix_explanations_expiry", "explanations", ["expires_at"], unique=False)
    op.create_table(
        "shadow_verdicts",
        sa.Column("seq", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("verdict_seq", sa.BigInteger(), nullable=False),
        sa.Column("video_id", sa.String(length=128), nullable=False),
        sa.Column("bundle_set", sa.String(length=128), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("p_fake", sa.Float(precision=53), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("bundle_set", "verdict_seq", name="uq_shadow_verdicts_pair"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("shadow_verdicts")
    op.drop_index("ix_explanations_expiry", "explanations")
    op.drop_table("explanations")
