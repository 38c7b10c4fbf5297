"""The score of one face over time as a strip of bars: drawn on the server, so that it is there without any script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ..messages.evidence import TrackEvidencePart

WIDTH: Final = 1000
HEIGHT: Final = 60
_LEAST_BAR: Final = 3.0
_MOST_BAR: Final = 34.0
NUM_STYLES: Final = 6
"""Line styles and colours repeat after this many faces; the number on the lane does not."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One looked-at moment, in the strip's units; `level` says which line it passes."""

    x: float
    y: float
    width: float
    height: float
    level: str
    pts_seconds: float
    score: float


@dataclass(frozen=True, slots=True)
class Lane:
    """One face."""

    track: TrackEvidencePart
    style: int
    bars: tuple[Bar, ...]
    median: float | None
    peak: float | None


def make_lanes(tracks: Sequence[TrackEvidencePart], *, duration_seconds: float, review: float | None, fake: float | None) -> list[Lane]:
    """One lane per face, most suspicious first as given."""
    return [
        _lane(track, style=place % NUM_STYLES, duration_seconds=duration_seconds, review=review, fake=fake)
        for place, track in enumerate(tracks)
    ]


def _lane(track: TrackEvidencePart, *, style: int, duration_seconds: float, review: float | None, fake: float | None) -> Lane:
    times, scores = track.samples.t, track.samples.score
    span = max(duration_seconds, times[-1] if times else 0.0, 0.001)
    steps = sorted(b - a for a, b in pairwise(times) if b > a)
    usual = steps[len(steps) // 2] if steps else span / 40
    bars = []
    for pts_seconds, score in zip(times, scores, strict=True):
        width = min(max(_LEAST_BAR, 0.7 * usual / span * WIDTH), _MOST_BAR)
        left = min(max(0.0, pts_seconds / span * WIDTH - width / 2), WIDTH - width)
        height = max(1.0, score * HEIGHT)
        level = "fake" if fake is not None and score >= fake else "review" if review is not None and score >= review else "below"
        bars.append(
            Bar(
                x=round(left, 1),
                y=round(HEIGHT - height, 1),
                width=round(width, 1),
                height=round(height, 1),
                level=level,
                pts_seconds=pts_seconds,
                score=score,
            )
        )
    ordered = sorted(scores)
    return Lane(
        track=track,
        style=style,
        bars=tuple(bars),
        median=ordered[len(ordered) // 2] if ordered else None,
        peak=ordered[-1] if ordered else None,
    )
