"""What would change with other lines: every scored verdict of one bundle set, held against two thresholds of the visitor's choice.

Only a look: thresholds belong to the bundle set's calibration and change with it. Verdicts that were `cannot tell` for
another reason than their score stay so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Query, Request, Response

from ..ledger.review_queries import ScoredWord
from .pages import render
from .session import Session
from .signed_in import Desk

MOVING: Final = ("manipulated", "suspicious", "authentic")
_NUM_BINS: Final = 50
Line = Annotated[float | None, Query(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Change:
    """What the chosen lines make of one word."""

    word: str
    now: int
    to_manipulated: int
    to_suspicious: int
    to_authentic: int


@dataclass(frozen=True, slots=True)
class Effect:
    """The whole effect."""

    changes: tuple[Change, ...]
    now: dict[str, int]
    then: dict[str, int]
    num_flips: int
    num_flips_decided: int
    """Flips of videos on which people have decided already."""
    fake_below: int
    """Videos that people found manipulated, which would no longer be shown to anybody."""
    clean_above: int
    """Videos that people found not manipulated, which would be called likely manipulated."""
    num_labelled_fake: int
    num_labelled_clean: int


def effect_of(rows: Sequence[ScoredWord]) -> Effect:
    """Sum up per word where verdicts would go."""
    moving = {row.word: row for row in rows if row.decision is None and row.word in MOVING}
    decided = [row for row in rows if row.decision is not None and row.word in MOVING]
    changes = tuple(
        Change(word=word, now=_all(row), to_manipulated=row.num_above, to_suspicious=row.num_between, to_authentic=row.num_below)
        for word in MOVING
        for row in [moving.get(word, ScoredWord(word, None, 0, 0, 0))]
    )
    fakes, cleans = ([row for row in decided if row.decision == name] for name in ("fake", "clean"))
    return Effect(
        changes=changes,
        now={change.word: change.now for change in changes},
        then={
            "manipulated": sum(change.to_manipulated for change in changes),
            "suspicious": sum(change.to_suspicious for change in changes),
            "authentic": sum(change.to_authentic for change in changes),
        },
        num_flips=sum(_flips(row) for row in moving.values()),
        num_flips_decided=sum(_flips(row) for row in decided),
        fake_below=sum(row.num_below for row in fakes),
        clean_above=sum(row.num_above for row in cleans),
        num_labelled_fake=sum(map(_all, fakes)),
        num_labelled_clean=sum(map(_all, cleans)),
    )


def _all(row: ScoredWord) -> int:
    return row.num_below + row.num_between + row.num_above


def _flips(row: ScoredWord) -> int:
    return _all(row) - {"manipulated": row.num_above, "suspicious": row.num_between, "authentic": row.num_below}[row.word]


def add_thresholds(app: FastAPI, desk: Desk) -> None:
    """Serve the page."""
    reader = Depends(desk.reader())

    @app.get("/thresholds")
    def thresholds(
        request: Request,
        session: Annotated[Session, reader],
        bundle: Annotated[str, Query(max_length=128)] = "",
        review: Line = None,
        fake: Line = None,
    ) -> Response:
        sets = desk.ledger.bundle_sets()
        chosen = bundle if any(bundle == name for name, _ in sets) else (sets[0][0] if sets else "")
        used = desk.ledger.thresholds_in_use(chosen) if chosen else None
        low = review if review is not None else used[0] if used else 0.5
        high = max(low, fake if fake is not None else used[1] if used else 0.8)
        return render(
            request,
            "thresholds.html",
            session=session,
            sets=sets,
            chosen=chosen,
            used=used,
            low=low,
            high=high,
            effect=effect_of(desk.ledger.scored_words(chosen, review=low, fake=high)),
            bins=desk.ledger.score_histogram(chosen, num_bins=_NUM_BINS) if chosen else [],
        )
