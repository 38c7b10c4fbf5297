"""Tables of human review: what waits for people, the append-only log of what they did, and their one-time login links."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text, literal_column

from .schema import metadata, verdicts

OPEN: Final = "OPEN"
DECIDED: Final = "DECIDED"
REPLACED: Final = "REPLACED"
"""A newer verdict of the same video took this item's place while it waited."""

_Seconds = Float(53)
_RowId = BigInteger().with_variant(Integer, "sqlite")

review_items: Final = Table(
    "review_items",
    metadata,
    Column("verdict_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(64), nullable=False, server_default=""),
    Column("ledger_id", String(32), nullable=False),
    Column("video_id", String(128), nullable=False),
    Column("word", String(16), nullable=False),
    Column("p_fake", Float(53)),
    Column("reasons", String(200), nullable=False, server_default=""),
    Column("title", String(200)),
    Column("opened_at", _Seconds, nullable=False),
    Column("state", String(12), nullable=False),
    Column("reading", String(8), nullable=False),
    Column("readers", Text, nullable=False, server_default="|"),  # |name|name|: who decided, and may not decide again
    Column("claimed_by", String(64)),
    Column("claimed_until", _Seconds),
    Column("decision", String(16)),
    Column("decided_by", String(64)),
    Column("decided_at", _Seconds),
)
is_open: Final = review_items.c.state == literal_column("'OPEN'")
# The queue is read oldest first, whole or by one word, and counted: only open rows are in these, however long the history is.
Index("ix_review_open", review_items.c.verdict_seq, review_items.c.state, sqlite_where=is_open, postgresql_where=is_open)
Index(
    "ix_review_open_word",
    review_items.c.word,
    review_items.c.reading,
    review_items.c.verdict_seq,
    review_items.c.state,
    sqlite_where=is_open,
    postgresql_where=is_open,
)
Index("ix_review_video", review_items.c.video_id)
# "What would change" walks these and never the bodies.
Index("ix_verdicts_score", verdicts.c.bundle_set, verdicts.c.verdict, verdicts.c.p_fake)
Index("ix_verdicts_content", verdicts.c.content_sha256)

review_log: Final = Table(
    "review_log",
    metadata,
    Column("seq", _RowId, primary_key=True, autoincrement=True),
    Column("at", _Seconds, nullable=False),
    Column("verdict_seq", BigInteger, nullable=False),
    Column("video_id", String(128), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reading", String(8)),
    Column("decision", String(16)),
    Column("reason", String(64)),
    Column("note", Text),
    Column("undoes", BigInteger),
    sqlite_autoincrement=True,
)
Index("ix_review_log_item", review_log.c.verdict_seq)
Index("ix_review_log_actor", review_log.c.actor, review_log.c.seq)

login_links: Final = Table(
    "login_links",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("reviewer", String(64), nullable=False),
    Column("created_at", _Seconds, nullable=False),
    Column("expires_at", _Seconds, nullable=False),
    Column("used_at", _Seconds),
)
