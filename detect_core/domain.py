"""Whether faces look like those that the detectors were measured on: plain statistics of the crops, Mahalanobis distance.

A score says something about pictures like the calibration's. Night vision, cartoons, a face behind a colour filter are
none of them; there the honest answer is "cannot tell". Mahalanobis 1936, "On the generalised distance in statistics".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import BundleIntegrityError

FEATURES: Final = ("brightness", "contrast", "blue", "red", "colourfulness", "detail")


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """Where the calibration's real faces lie."""

    mean: NDArray[np.float64]
    """(F,)"""
    precision: NDArray[np.float64]
    """(F, F) inverse covariance."""
    limit: float
    """Distance beyond which nothing is claimed."""

    def __post_init__(self) -> None:
        count = len(FEATURES)
        if self.mean.shape != (count,) or self.precision.shape != (count, count) or not np.isfinite([*self.mean, self.limit]).all():
            raise BundleIntegrityError(
                f"a domain needs {count} finite means and a square matrix of them, got {self.mean.shape} and {self.precision.shape}; calibrate again"
            )

    def distance(self, appearance: NDArray[np.float64]) -> float:
        """Mahalanobis distance of a track's appearance, >= 0."""
        away = appearance - self.mean
        return math.sqrt(max(float(away @ self.precision @ away), 0.0))


def appearance(crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """(F,) means of `FEATURES` over (S, S, 3) RGB crops: grey levels, and the logarithm of the Laplacian's variance."""
    return np.asarray(np.mean([_features(crop) for crop in crops], axis=0), np.float64)


def _features(crop: NDArray[np.uint8]) -> tuple[float, ...]:
    small = cv2.cvtColor(cv2.resize(crop, (96, 96), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2YCrCb)
    luma, red, blue = small[..., 0], small[..., 1], small[..., 2]
    detail = float(cv2.Laplacian(luma, cv2.CV_32F).var())
    return (
        float(luma.mean()),
        float(luma.std()),
        float(blue.mean()),
        float(red.mean()),
        float(red.std() + blue.std()),
        math.log1p(detail),
    )
