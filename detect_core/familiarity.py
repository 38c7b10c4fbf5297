"""How far the faces that may decide are from those that a bundle set was calibrated on, see `domain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .aggregate import TrackWindow
from .bundle import Bundle
from .calibration import VideoCalibration
from .detectors import is_track_bundle
from .domain import appearance
from .structs import CropScore


def first_crop_bundle(bundles: Sequence[Bundle]) -> Bundle | None:
    """The bundle whose crops stand for a face: calibration measures those of the first detector of single crops, so screening does."""
    return next((bundle for bundle in bundles if not is_track_bundle(bundle)), bundles[0] if bundles else None)


def distances_of(
    windows: Sequence[TrackWindow],
    tracks: Mapping[int, Sequence[CropScore]],
    pictures: Mapping[tuple[int, float], NDArray[np.uint8]],
    calibration: VideoCalibration,
) -> dict[int, float]:
    """Mahalanobis distances of the tracks that may decide; of the others nobody asks.

    Args:
        windows: what the tracks were judged by.
        tracks: track id -> its crop scores.
        pictures: (track, seconds) -> (S, S, 3) RGB crop of `first_crop_bundle`.
        calibration: holds the known faces; without them there are no distances.
    """
    if calibration.domain is None or not windows:
        return {}
    highest = max(windows, key=lambda window: window.z)
    deciding = [window.track_id for window in windows if window is highest or calibration.probability(window.z) >= calibration.t_review]
    return {
        track_id: calibration.domain.distance(appearance([pictures[track_id, score.pts_seconds] for score in tracks[track_id]]))
        for track_id in deciding
    }
