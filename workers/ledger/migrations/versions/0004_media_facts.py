"""What a producer knows about a video: duration, size and faces, to predict what it will cost.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_COLUMNS = ("media_seconds", "media_megapixels", "media_faces")


def upgrade() -> None:
    """Apply."""
    for name in _COLUMNS:
        op.add_column("jobs", sa.Column(name, sa.Float(precision=53), nullable=True))


def downgrade() -> None:
    """Take back."""
    for name in reversed(_COLUMNS):
        op.drop_column("jobs", name)
