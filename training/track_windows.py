"""Temporal statistics of videos: as they are, and of twins in another size and compression, so that neither can be learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from detect_core.bundle import CropSpec
from detect_core.detectors.temporal import window_features
from detect_core.faces.detect import FaceDetector

from .face_pack import PACK_MARGIN
from .reencode import reencode_h264
from .split_videos import VideoRow
from .video_faces import TrackCrops, cut_tracks

TEMPORAL_SPEC: Final = CropSpec(size_px=112, margin=PACK_MARGIN)
"""The crop of the `temporal` detector."""
WIDE_SPEC: Final = CropSpec(size_px=256, margin=PACK_MARGIN)
_TWIN_FACE_PX: Final = (95, 160)
_TWIN_CRF: Final = (20, 34)
_STRIDES: Final = (1, 2, 4)
"""Every look, every second, every fourth: how far looks lie apart depends on the length of a video, and must not decide."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackWindows:
    """The statistics of one track of one video or twin."""

    row: VideoRow
    variant: str
    """`original` or `twin<n>`, and the stride."""
    features: NDArray[np.float32]
    """(W, F)."""


def read_track_windows(
    root: Path,
    rows: Sequence[VideoRow],
    *,
    detector: FaceDetector,
    num_twins: int = 2,
    seed: int = 0,
    on_video: Callable[[str], None] = lambda _line: None,
) -> list[TrackWindows]:
    """Measure the largest track of each video.

    Raises:
        DataError: a video cannot be decoded.
    """
    out: list[TrackWindows] = []
    for number, row in enumerate(rows):
        tracks = cut_tracks(root / row.file, {"temporal": TEMPORAL_SPEC, "wide": WIDE_SPEC}, detector=detector)
        if tracks:
            track = max(tracks, key=lambda t: sum(box.side_px for box in t.boxes))
            generator = np.random.default_rng([seed, number])
            points = [box.landmarks_in_crop(PACK_MARGIN) for box in track.boxes]
            pictures = {"original": list(track.images["temporal"])}
            pictures |= {f"twin{i}": twin(track, generator) for i in range(num_twins)}
            for variant, crops in pictures.items():
                for stride in _STRIDES:
                    features = window_features(crops[::stride], points[::stride])
                    if features is not None:
                        out.append(TrackWindows(row, f"{variant}/{stride}", features))
        on_video(f"measured {number + 1}/{len(rows)} {row.file}")
    return out


def twin(track: TrackCrops, generator: np.random.Generator) -> list[NDArray[np.uint8]]:
    """The track's crops after a round trip through another size and x264 quality."""
    face = float(generator.uniform(*_TWIN_FACE_PX))
    side = round(min(face * PACK_MARGIN, WIDE_SPEC.size_px) / 2) * 2
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in track.images["wide"]]
    coded, _quantiser = reencode_h264([np.asarray(image, np.uint8) for image in small], crf=int(generator.integers(*_TWIN_CRF)))
    size = TEMPORAL_SPEC.size_px
    return [np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8) for image in coded]
