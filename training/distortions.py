"""The robustness suite: held-out videos after the round trips that uploads go through, with real encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .reencode import reencode_h264
from .scorers import Scorers
from .split_videos import VideoRow
from .video_faces import TrackCrops
from .video_scores import DISTORTED, NUM_SIMULATED, UNDISTORTED, WIDE, VideoLogits, score_track, shrink


@dataclass(frozen=True, slots=True)
class Distortion:
    """One round trip."""

    scale: float
    """The picture is shrunk to this share of its side before encoding and enlarged after decoding."""
    crf: int
    """x264 quality."""


DISTORTIONS: Final = {"mild": Distortion(1.0, 28), "medium": Distortion(0.5, 30), "H.264 CRF 40": Distortion(1.0, 40)}


def score_distorted(row: VideoRow, track: TrackCrops, scorers: Scorers) -> list[VideoLogits]:
    """Score the largest track of a video as it is after each distortion, and undistorted with the same looks."""
    step = max(1, len(track.boxes) // NUM_SIMULATED)
    chosen = range(0, len(track.boxes), step)
    clean = [np.ascontiguousarray(track.images[WIDE][i]) for i in chosen]
    out = []
    for name, (frames, quantiser) in {
        UNDISTORTED: (clean, None),
        **{name: _distorted(clean, d) for name, d in DISTORTIONS.items()},
    }.items():
        images = {key: [shrink(frame, spec) for frame in frames] for key, spec in scorers.specs().items()}
        scored = score_track(scorers, images, [track.boxes[i] for i in chosen], [track.weights[i] for i in chosen], file=row.file)
        file = f"{row.file}{DISTORTED}{name}"
        out.append(VideoLogits(file, row.label, row.group, row.source, row.generator, row.split, [scored], quantiser=quantiser))
    return out


def _distorted(frames: Sequence[NDArray[np.uint8]], distortion: Distortion) -> tuple[list[NDArray[np.uint8]], float | None]:
    side = frames[0].shape[0]
    inner = round(side * distortion.scale / 2) * 2
    small = [np.asarray(cv2.resize(frame, (inner, inner), interpolation=cv2.INTER_AREA), np.uint8) for frame in frames]
    coded, quantiser = reencode_h264(small, crf=distortion.crf)
    enlarged = [np.asarray(cv2.resize(frame, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8) for frame in coded]
    return enlarged, quantiser
