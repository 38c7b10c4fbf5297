"""From crop scores to tracks to one video score. Pure functions; strategies have names that verdicts record.

`best_window/1`: in each track the best window of five consecutive crops counts, without its highest and its lowest
crop (one glitch cannot decide), the video gets its worst track, and a crowd pays for having had more draws. A partial
fake, and one fake face among many, stay visible; averages over all faces would hide both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .errors import OptionError
from .structs import CropScore

STRATEGY: Final = "best_window/1"
WINDOW: Final = 5
MIN_TRACK_CROPS: Final = 3
"""A track with fewer crops says nothing."""
MIN_MEAN_WEIGHT: Final = 0.12
"""A face whose crops weigh less is too small or too blurred to be judged."""
_REFERENCE_SIDE_PX: Final = 112.0
_REFERENCE_SHARPNESS: Final = 60.0


@dataclass(frozen=True, slots=True)
class TrackWindow:
    """The best window of one track."""

    track_id: int
    z: float
    """Weighted mean logit of the window."""
    start: int
    stop: int
    """Crop numbers of the window, [start, stop)."""
    num_crops: int
    mean_weight: float
    """Mean quality weight over the track's crops."""

    @property
    def is_judgeable(self) -> bool:
        """Whether the face is large and sharp enough to be judged."""
        return self.mean_weight >= MIN_MEAN_WEIGHT


def quality_weight(*, confidence: float, side_px: float, sharpness: float) -> float:
    """Weight of one crop in [0, 1]: sure, large and sharp faces count most."""
    size = min(side_px / _REFERENCE_SIDE_PX, 1.0)
    sharp = min(sharpness / _REFERENCE_SHARPNESS, 1.0)
    return float(min(max(confidence * size * (0.25 + 0.75 * sharp), 0.0), 1.0))


def best_window(z: Sequence[float], weights: Sequence[float], *, track_id: int = 0) -> TrackWindow | None:
    """The window of a track that leans most to fake; None when the track has too few crops to say anything.

    Args:
        z: fused logits in time order.
        weights: quality weights, same length.
        track_id: carried into the result.
    """
    count = len(z)
    if count != len(weights):
        raise OptionError(f"got {count} logits and {len(weights)} weights; expected one weight per logit")
    if count < MIN_TRACK_CROPS:
        return None
    mean_weight = float(np.mean(weights))
    if count < WINDOW:
        return TrackWindow(track_id=track_id, z=float(np.median(z)), start=0, stop=count, num_crops=count, mean_weight=mean_weight)
    scored = [(_trimmed(z[i : i + WINDOW], weights[i : i + WINDOW]), i) for i in range(count - WINDOW + 1)]
    value, start = max(scored, key=lambda pair: (pair[0], -pair[1]))
    return TrackWindow(track_id=track_id, z=value, start=start, stop=start + WINDOW, num_crops=count, mean_weight=mean_weight)


def window_scores(z: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Score of every window of a track, in time order; one value for a track shorter than a window."""
    if len(z) < WINDOW:
        return [float(np.median(z))] if len(z) >= MIN_TRACK_CROPS else []
    return [_trimmed(z[i : i + WINDOW], weights[i : i + WINDOW]) for i in range(len(z) - WINDOW + 1)]


def num_draws(windows: Iterable[TrackWindow]) -> int:
    """How many faces could have made the highest score: those that cannot be judged never do, and hide nobody in a crowd."""
    return max(1, sum(window.is_judgeable for window in windows))


def crowd_corrected(best_z: float, *, num_draws: int, beta: float) -> float:
    """Take back what `num_draws` draws add to a maximum under an exponential tail: beta ln K logits."""
    return best_z - beta * math.log(max(num_draws, 1))


def windows_of(scores: Sequence[CropScore], fuse: Callable[[Mapping[str, float]], float]) -> list[TrackWindow]:
    """Best window of every track that is long enough, by track number."""
    tracks = {track_id: of_track(scores, track_id) for track_id in sorted({score.track_id for score in scores})}
    found = [best_window([fuse(s.logits) for s in track], [s.weight for s in track], track_id=i) for i, track in tracks.items()]
    return [window for window in found if window is not None]


def of_track(scores: Sequence[CropScore], track_id: int) -> list[CropScore]:
    """One track's crop scores in time order."""
    return sorted((score for score in scores if score.track_id == track_id), key=lambda score: score.pts_seconds)


def _trimmed(z: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted mean without the highest and the lowest value."""
    order = np.argsort(np.asarray(z, np.float64), kind="stable")[1:-1]
    kept = np.asarray(z, np.float64)[order]
    kept_weights = np.asarray(weights, np.float64)[order] + 1e-6
    return float((kept * kept_weights).sum() / kept_weights.sum())
