"""What hangs on a job is found by the job when it is forgotten, and an event to deliver names its receiver.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

from workers.ledger.receivers import receiver_of

revision = "0007"
down_revision = "0006"

_BY_JOB = ("outbox", "submission_keys", "dead_letters")


def upgrade() -> None:
    """Apply."""
    for table in _BY_JOB:
        op.create_index(f"ix_{table}_job", table, ["ledger_id"])
    op.create_index("ix_dead_letters_at", "dead_letters", ["created_at"])
    op.create_index("ix_shadow_verdicts_verdict", "shadow_verdicts", ["verdict_seq"])
    op.add_column("outbox", sa.Column("receiver", sa.Text(), nullable=False, server_default=""))
    outbox = sa.table("outbox", sa.column("url"), sa.column("receiver"), sa.column("delivered_at"), sa.column("given_up_at"))
    connection = op.get_bind()
    pending = outbox.c.delivered_at.is_(None) & outbox.c.given_up_at.is_(None)
    for url in connection.scalars(sa.select(outbox.c.url).where(pending).distinct()).all():
        connection.execute(outbox.update().where(pending, outbox.c.url == url).values(receiver=receiver_of(url)))


def downgrade() -> None:
    """Take back."""
    op.drop_column("outbox", "receiver")
    op.drop_index("ix_shadow_verdicts_verdict", "shadow_verdicts")
    op.drop_index("ix_dead_letters_at", "dead_letters")
    for table in _BY_JOB:
        op.drop_index(f"ix_{table}_job", table)
