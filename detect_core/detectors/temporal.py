"""A detector that looks at a followed face over time: where, and how much, its picture changes between looks.

The crops of a track are brought onto one face layout by their landmarks. What still changes then (expression, light,
head turns, hair, background) changes in other places and amounts on filmed people than on portraits animated by a
generator. The measured statistics are a 6 x 6 map of the temporal deviation and the spread of the head's pose, over
windows of six looks; a line through them gives the logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..bundle import Bundle, load_net
from ..errors import BundleMismatchError, DetectorError

WINDOW: Final = 6
"""Looks that are compared with each other."""
MIN_LOOKS: Final = 5
"""A shorter track has no spread worth measuring."""
_SIDE_PX: Final = 96
_GRID: Final = 6
_LAYOUT: Final = np.array([[0.35, 0.42], [0.65, 0.42], [0.5, 0.58], [0.38, 0.73], [0.62, 0.73]], np.float64) * _SIDE_PX
"""Where eyes, nose and mouth corners come to lie."""
NUM_FEATURES: Final = _GRID * _GRID + 5
_STILL: Final = -2.5
"""Log deviation of the mouth below which nobody speaks: a photograph moved across the screen is no animated portrait. Of
146 development videos all animated portraits lie above -2.35 and 97 % of the filmed people above this."""


class TemporalDetector:
    """Scores tracks with the line of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the bundle's line.

        Raises:
            BundleError: the weights are missing, changed or do not fit.
        """
        self.bundle = bundle
        self._net = load_net(bundle)

    def track_logits(self, crops: Sequence[NDArray[np.uint8]], landmarks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        """Score one track.

        Args:
            crops: (S, S, 3) RGB uint8 pictures in time order, S = `bundle.crop.size_px`.
            landmarks: (5, 2) points per crop in units of its side.

        Returns:
            (N,) logits, the mean over all windows for every crop: single windows are too noisy to name a moment. None for a
            track with fewer than `MIN_LOOKS` crops, and for one whose mouth never moves.

        Raises:
            BundleMismatchError: a crop has another size than the bundle says.
            DetectorError: a logit is not finite.
        """
        size = self.bundle.crop.size_px
        if any(crop.shape != (size, size, 3) for crop in crops):
            raise BundleMismatchError(
                f"{self.bundle.name} was given crops of shape { ({crop.shape for crop in crops}) }, expected ({size}, {size}, 3); "
                "cut them by its crop specification"
            )
        features = window_features(crops, landmarks)
        if features is None or float(np.median(mouth_change(features))) < _STILL:
            return None
        with torch.inference_mode():
            values = (self._net(torch.from_numpy(features)) / self.bundle.temperature).numpy()
        if not np.isfinite(values).all():
            raise DetectorError(f"{self.bundle.name} gave a logit that is not finite for {len(crops)} crops; the bundle is not usable")
        return np.full(len(crops), values.mean(), np.float32)


def window_features(crops: Sequence[NDArray[np.uint8]], landmarks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """(W, NUM_FEATURES) statistics of every window of `WINDOW` consecutive crops, or None when there are too few crops."""
    count = len(crops)
    if count < MIN_LOOKS:
        return None
    layouts = np.stack([_aligned(crop, points) for crop, points in zip(crops, landmarks, strict=True)])
    poses = np.stack([_pose(np.asarray(points, np.float64)) for points in landmarks])
    length = min(WINDOW, count)
    return np.stack([_statistics(layouts[i : i + length], poses[i : i + length]) for i in range(count - length + 1)])


def mouth_change(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(W,) log temporal deviation where the layout has the mouth."""
    cells = features[:, : _GRID * _GRID].reshape(-1, _GRID, _GRID)
    return np.asarray(cells[:, 4, 2:4].mean(axis=1), np.float32)


def _aligned(crop: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The face in the common layout, grey, without its own brightness and contrast."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    matrix = _similarity(np.asarray(landmarks, np.float64) * crop.shape[0])
    moved = cv2.warpAffine(grey, matrix, (_SIDE_PX, _SIDE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    return np.asarray((moved - moved.mean()) / (moved.std() + 1.0), np.float32)


def _similarity(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) least-squares similarity from `points` (5, 2) onto the layout (Umeyama 1991, without reflection)."""
    centre, target = points.mean(0), _LAYOUT.mean(0)
    p, q = points - centre, _LAYOUT - target
    norm = max(float((p**2).sum()), 1e-6)
    a = float((p * q).sum()) / norm
    b = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / norm
    rotation = np.array([[a, -b], [b, a]])
    return np.hstack([rotation, (target - rotation @ centre)[:, None]])


def _pose(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn, nod, tilt, size and mouth width of one face, all relative to its eye distance."""
    left, right, nose, mouth_left, mouth_right = points
    eyes = right - left
    distance = max(float(np.hypot(*eyes)), 1e-6)
    middle = (left + right) / 2
    return np.array(
        [
            (nose - middle)[0] / distance,
            (nose - middle)[1] / distance,
            np.arctan2(eyes[1], eyes[0]),
            np.log(distance),
            np.hypot(*(mouth_right - mouth_left)) / distance,
        ]
    )


def _statistics(layouts: NDArray[np.float32], poses: NDArray[np.float64]) -> NDArray[np.float32]:
    change = np.log(layouts.std(axis=0) + 0.02)
    cells = cv2.resize(change, (_GRID, _GRID), interpolation=cv2.INTER_AREA).ravel()
    spread = np.log(poses.std(axis=0) + 0.01)
    return np.concatenate([cells, spread]).astype(np.float32)
