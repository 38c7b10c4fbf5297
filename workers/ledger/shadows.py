"""What a shadow bundle set would have said about the same crops, beside what the one in charge said. Never published, never a verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Engine, Float, Index, Integer, String, Table, UniqueConstraint, select

from .engine import reading
from .records import VerdictRecord
from .review_schema import OPEN, review_items
from .schema import db_now, metadata, verdicts
from .submissions import insert_or_ignore

SHADOW_DISAGREES: Final = "SHADOW_DISAGREES"
"""Reason with which such a video stands in the review queue."""

_Seconds = Float(53)
shadow_verdicts: Final = Table(
    "shadow_verdicts",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("verdict_seq", BigInteger, nullable=False),
    Column("video_id", String(128), nullable=False),
    Column("bundle_set", String(128), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("p_fake", Float(53)),
    Column("created_at", _Seconds, nullable=False),
    UniqueConstraint("bundle_set", "verdict_seq", name="uq_shadow_verdicts_pair"),
    sqlite_autoincrement=True,
)
Index("ix_shadow_verdicts_verdict", shadow_verdicts.c.verdict_seq)


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """Both opinions about one video."""

    verdict_seq: int
    video_id: str
    bundle_set: str
    """Of the verdict in charge."""
    verdict: str
    p_fake: float | None
    shadow_verdict: str
    shadow_p_fake: float | None
    went_to_people: bool
    """Whether it ever stood in the review queue, for whatever reason."""

    @property
    def draw(self) -> float:
        """Its lot in [0, 1): a disagreement goes before people when this is below the share at the time."""
        return _draw(self.verdict_seq)


def record_shadow(
    connection: Connection, *, verdict_seq: int, ledger_id: str, video_id: str, verdict: VerdictRecord, tenant: str = ""
) -> None:
    """Write the shadow's opinion, in the transaction that writes the verdict; some disagreements go before people."""
    shadow = verdict.shadow
    if shadow is None:
        return
    row = {
        "verdict_seq": verdict_seq,
        "video_id": video_id,
        "bundle_set": shadow.bundle_set,
        "verdict": shadow.verdict,
        "p_fake": shadow.p_fake,
    }
    connection.execute(insert_or_ignore(connection, shadow_verdicts).values(created_at=db_now()), row)
    if shadow.verdict != verdict.verdict and _draw(verdict_seq) < shadow.review_share:
        item = {
            "verdict_seq": verdict_seq,
            "tenant": tenant,
            "ledger_id": ledger_id,
            "video_id": video_id,
            "word": verdict.verdict,
            "p_fake": verdict.p_fake,
            "reasons": SHADOW_DISAGREES,
            "state": OPEN,
            "reading": "first",
        }
        connection.execute(insert_or_ignore(connection, review_items).values(opened_at=db_now()), item)


def _draw(verdict_seq: int) -> float:
    # 53 bits: all of them fit a float, so that the lot stays below 1
    return (int.from_bytes(hashlib.sha256(f"shadow/{verdict_seq}".encode()).digest()[:8], "big") >> 11) / 2**53


class Shadows:
    """The part of the ledger that compares bundle sets."""

    _engine: Engine

    def shadow_pairs(self, shadow_bundle_set: str) -> Iterator[ShadowPair]:
        """Every video that both looked at, oldest first."""
        wanted = (
            select(
                shadow_verdicts.c.verdict_seq,
                verdicts.c.video_id,
                verdicts.c.bundle_set,
                verdicts.c.verdict,
                verdicts.c.p_fake,
                shadow_verdicts.c.verdict.label("shadow_verdict"),
                shadow_verdicts.c.p_fake.label("shadow_p_fake"),
                review_items.c.verdict_seq.is_not(None).label("went_to_people"),
            )
            .join(verdicts, verdicts.c.seq == shadow_verdicts.c.verdict_seq)
            .outerjoin(review_items, review_items.c.verdict_seq == shadow_verdicts.c.verdict_seq)
            .where(shadow_verdicts.c.bundle_set == shadow_bundle_set)
            .order_by(shadow_verdicts.c.seq)
        )
        with reading(self._engine) as connection:
            for row in connection.execution_options(yield_per=2000).execute(wanted):
                yield ShadowPair(**row._mapping)
