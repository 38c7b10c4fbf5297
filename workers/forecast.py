"""What a video will cost before it is looked at: seconds in work from its duration, its size and the faces in view.

A straight line through what recent videos took: cheap, explainable, and sums of videos can be predicted from sums of their facts.
No fact has a negative price. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

DEFAULT_SECONDS: Final = 30.0
"""Per video, until one has ended."""

MIN_SAMPLES: Final = 12
"""With fewer ended videos the mean is all that is learned."""

_FLOOR: Final = 0.1
"""A running video is never predicted to be done: this share of it is left at least."""


@dataclass(frozen=True, slots=True)
class MediaCost:
    """What one ended video was and what it took."""

    duration_seconds: float
    megapixels: float
    num_faces: float
    """Mean faces in view."""
    work_seconds: float
    """From claim to verdict."""


@dataclass(frozen=True, slots=True)
class MediaSums:
    """Facts of many videos, added up. Producers know some of them: each sum goes with the number of videos that it covers."""

    num_videos: int = 0
    duration_seconds: float = 0.0
    num_with_duration: int = 0
    megapixels: float = 0.0
    num_with_megapixels: int = 0
    num_faces: float = 0.0
    num_with_faces: int = 0
    elapsed_seconds: float = 0.0
    """How long they have been in work already."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """Prices; all non-negative. The default is what is said before any video ended."""

    base_seconds: float = DEFAULT_SECONDS
    per_second: float = 0.0
    per_megapixel: float = 0.0
    per_face: float = 0.0
    mean_duration_seconds: float = 0.0
    """Stands in for an unknown duration; so do the others."""
    mean_megapixels: float = 0.0
    mean_faces: float = 0.0
    num_samples: int = 0

    def predict(self, sums: MediaSums) -> float:
        """Seconds in work of all of them together."""
        n = sums.num_videos
        return (
            n * self.base_seconds
            + self.per_second * (sums.duration_seconds + (n - sums.num_with_duration) * self.mean_duration_seconds)
            + self.per_megapixel * (sums.megapixels + (n - sums.num_with_megapixels) * self.mean_megapixels)
            + self.per_face * (sums.num_faces + (n - sums.num_with_faces) * self.mean_faces)
        )

    def left(self, sums: MediaSums) -> float:
        """Seconds that running videos will still be in work."""
        predicted = self.predict(sums)
        return max(predicted - sums.elapsed_seconds, _FLOOR * predicted)


def fit(costs: Sequence[MediaCost], *, min_samples: int = MIN_SAMPLES) -> CostModel:
    """Least squares without negative prices; a fact whose price would be negative is left out and the rest is fitted again.

    Args:
        costs: what ended videos were and took.
        min_samples: with fewer, only their mean is learned.
    """
    if not costs:
        return CostModel()
    facts = np.array([[c.duration_seconds, c.megapixels, c.num_faces] for c in costs], np.float64)
    work = np.array([c.work_seconds for c in costs], np.float64)
    means = facts.mean(axis=0)
    if len(costs) < min_samples:
        base, prices = float(work.mean()), np.zeros(3)
    else:
        base, prices = _least_squares(facts, work)
    return CostModel(
        base_seconds=base,
        per_second=float(prices[0]),
        per_megapixel=float(prices[1]),
        per_face=float(prices[2]),
        mean_duration_seconds=float(means[0]),
        mean_megapixels=float(means[1]),
        mean_faces=float(means[2]),
        num_samples=len(costs),
    )


def _least_squares(facts: NDArray[np.float64], work: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """(base, (3,) prices): centred, so that the base falls out; a fact that does not vary has no price."""
    spread = facts.std(axis=0)
    kept = [i for i in range(facts.shape[1]) if spread[i] > 1e-9]
    while kept:
        columns = (facts[:, kept] - facts[:, kept].mean(axis=0)) / spread[kept]
        solution, *_rest = np.linalg.lstsq(columns, work - work.mean(), rcond=None)
        prices = np.zeros(facts.shape[1])
        prices[kept] = solution / spread[kept]
        base = float(work.mean() - facts.mean(axis=0) @ prices)
        if solution.min() >= 0 and base >= 0:
            return base, prices
        # the most negative price goes first; a base below zero is the fault of the dearest fact's
        kept.pop(int(solution.argmin() if solution.min() < 0 else solution.argmax()))
    return float(work.mean()), np.zeros(facts.shape[1])
