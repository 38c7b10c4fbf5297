"""The list of verdicts by tenant, word and time from one covering index.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply."""
    listed = ["tenant", "verdict", "created_at", "seq", "p_fake", "bundle_set", "video_id"]
    op.create_index("ix_verdicts_list", "verdicts", listed)
    op.drop_index("ix_verdicts_word", "verdicts")
    op.drop_index("ix_verdicts_tenant", "verdicts")


def downgrade() -> None:
    """Take back."""
    op.create_index("ix_verdicts_tenant", "verdicts", ["tenant", "seq"])
    op.create_index("ix_verdicts_word", "verdicts", ["verdict", "seq"])
    op.drop_index("ix_verdicts_list", "verdicts")
