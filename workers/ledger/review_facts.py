"""What the gauges of the review queue are made of."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from .engine import reading
from .review_schema import is_open, review_items, review_log
from .schema import db_now

_PAGE = 1000


class ReviewFacts:
    """The part of the ledger behind the metrics of reviews."""

    _engine: Engine

    def review_backlog(self) -> tuple[int, float]:
        """(open items, age of the oldest in seconds)."""
        with reading(self._engine) as connection:
            count, oldest = connection.execute(
                select(func.count(), db_now() - func.min(review_items.c.opened_at)).select_from(review_items).where(is_open)
            ).one()
        return count, max(0.0, oldest or 0.0)

    def decisions_after(self, seq: int | None) -> tuple[int, list[tuple[str, str]]]:
        """(newest line of the log that was read, (decision, verdict's word) of decisions after line `seq`); None reads to the end only."""
        with reading(self._engine) as connection:
            if seq is None:
                return connection.scalar(select(func.max(review_log.c.seq))) or 0, []
            rows = connection.execute(
                select(review_log.c.seq, review_log.c.decision, review_items.c.word)
                .join(review_items, review_items.c.verdict_seq == review_log.c.verdict_seq)
                .where(review_log.c.seq > seq, review_log.c.kind == "decided")
                .order_by(review_log.c.seq)
                .limit(_PAGE)
            ).all()
        return (rows[-1][0] if rows else seq), [(row[1], row[2]) for row in rows]
