"""What people said about verdicts, as labels: clean is real, fake is fake; unsure and closed say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine, distinct, func, select

from .engine import reading
from .review_schema import DECIDED, review_items
from .schema import verdicts

Label = Literal["clean", "fake"]
_LABELS: tuple[Label, ...] = ("clean", "fake")


@dataclass(frozen=True, slots=True)
class LabelledVerdict:
    """One verdict and the decision in force."""

    verdict_seq: int
    video_id: str
    content_sha256: str
    bundle_set: str
    verdict: str
    p_fake: float | None
    label: Label
    decided_by: str


class Labels:
    """The part of the ledger that calibration and precision are computed from."""

    _engine: Engine

    def labelled_verdicts(self, *, bundle_set: str | None = None) -> Iterator[LabelledVerdict]:
        """Decided verdicts, oldest first; of one bundle set when one is named."""
        wanted = (
            select(
                verdicts.c.seq.label("verdict_seq"),
                verdicts.c.video_id,
                verdicts.c.content_sha256,
                verdicts.c.bundle_set,
                verdicts.c.verdict,
                verdicts.c.p_fake,
                review_items.c.decision.label("label"),
                review_items.c.decided_by,
            )
            .join(review_items, review_items.c.verdict_seq == verdicts.c.seq)
            .where(review_items.c.state == DECIDED, review_items.c.decision.in_(_LABELS))
            .order_by(verdicts.c.seq)
        )
        if bundle_set is not None:
            wanted = wanted.where(verdicts.c.bundle_set == bundle_set)
        with reading(self._engine) as connection:
            for row in connection.execution_options(yield_per=2000).execute(wanted):
                yield LabelledVerdict(**row._mapping)

    def label_counts(self) -> dict[tuple[str, str], int]:
        """Videos by the verdict's word and what people said; a decision that stands for several revisions counts once."""
        video = func.count(distinct(review_items.c.tenant + "/" + review_items.c.video_id))
        wanted = (
            select(review_items.c.word, review_items.c.decision, video)
            .where(review_items.c.state == DECIDED, review_items.c.decision.in_(_LABELS))
            .group_by(review_items.c.word, review_items.c.decision)
        )
        with reading(self._engine) as connection:
            return {(row[0], row[1]): row[2] for row in connection.execute(wanted)}
