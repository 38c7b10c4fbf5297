"""A suspicion is asked again on re-compressed copies of the very crops that raised it, before anybody hears of it.

Traces of manipulation that matter survive a re-upload; what one round of JPEG or a smaller rendition wipes away may as
well have been noise. Only flagged videos pay for this: a few crops, three copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .aggregate import best_window, crowd_corrected, of_track
from .calibration import VideoCalibration
from .structs import CropScore

Crop = NDArray[np.uint8]
COPIES: Final[Mapping[str, tuple[int, float]]] = {"jpeg_70": (70, 1.0), "jpeg_50": (50, 1.0), "half_size_jpeg_80": (80, 0.5)}
"""Name -> JPEG quality and share of the side that the crop is shrunk to before it is encoded."""


def recompressed(crop_hwc: Crop, *, quality: int, scale: float) -> Crop:
    """A copy of an (S, S, 3) RGB crop after one round of shrinking, JPEG and enlarging."""
    side = crop_hwc.shape[0]
    inner = max(8, round(side * scale))
    small = cv2.resize(crop_hwc, (inner, inner), interpolation=cv2.INTER_AREA) if inner < side else crop_hwc
    done, payload = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"tried to encode a crop of shape {crop_hwc.shape}; expected (S, S, 3) uint8")
    decoded = cv2.imdecode(payload, cv2.IMREAD_COLOR)
    assert decoded is not None  # we encoded it
    again = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.resize(again, (side, side), interpolation=cv2.INTER_LINEAR) if inner < side else again, np.uint8)


def asked_again(
    scores: Sequence[CropScore],
    crops: Mapping[tuple[int, float], Mapping[str, Crop]],
    *,
    track_id: int,
    num_draws: int,
    calibration: VideoCalibration,
    rescore: Callable[[str, Sequence[Crop]], Sequence[float]],
    names: Sequence[str],
) -> list[float]:
    """P(fake) of the deciding track's best window under each re-compression.

    Args:
        scores: of all tracks.
        crops: (track, seconds) -> detector name -> crop.
        track_id: the track that decided.
        num_draws: faces that could be judged, for the crowd correction.
        calibration: fuses and calibrates.
        rescore: detector name and crops to their logits.
        names: detectors of single crops; what detectors of tracks said stays as it is.
    """
    track = of_track(scores, track_id)
    weights = [score.weight for score in track]
    window = best_window([calibration.fusion.fuse(score.logits) for score in track], weights)
    if window is None:
        return []
    members = track[window.start : window.stop]
    out = []
    for quality, scale in COPIES.values():
        logits = [dict(score.logits) for score in members]
        for name in names:
            copies = [recompressed(crops[score.track_id, score.pts_seconds][name], quality=quality, scale=scale) for score in members]
            for row, value in zip(logits, rescore(name, copies), strict=True):
                row[name] = float(value)
        again = best_window([calibration.fusion.fuse(row) for row in logits], weights[window.start : window.stop])
        assert again is not None
        out.append(calibration.probability(crowd_corrected(again.z, num_draws=num_draws, beta=calibration.beta)))
    return out
