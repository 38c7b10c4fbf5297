"""Photographs as short clips: generated portraits and real ones under the same slow zoom and the same encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from detect_core.structs import FaceBox

from .face_pack import PACK_MARGIN, PACK_SIDE_PX, FacePack
from .index_faces import both_labels_in_test, read_faces
from .reencode import reencode_h264
from .scorers import Scorers
from .video_scores import STILL, VideoLogits, score_track, shrink

_NUM_FRAMES: Final = 8
_CRFS: Final = (18, 23, 28)
_ZOOM: Final = 0.12


def score_still_clips(faces_root: Path, scorers: Scorers, *, limit: int = 70) -> list[VideoLogits]:
    """Score at most `limit` test portraits per source and label as clips, of sources that have generated portraits and real ones.

    Raises:
        DataError: the folder has no readable index.
    """
    counts: dict[tuple[str, int], int] = {}
    sources = both_labels_in_test(faces_root)
    if not sources:
        return []

    def keep(source: str, label: int) -> bool:
        counts[source, label] = counts.get((source, label), 0) + 1
        return counts[source, label] <= limit

    pack = read_faces(faces_root, keep=lambda row: row.split == "test" and row.source in sources and keep(row.source, row.label))
    return [_score(pack, i, scorers) for i in range(len(pack))]


def _score(pack: FacePack, i: int, scorers: Scorers) -> VideoLogits:
    row = pack.rows[i]
    image = np.ascontiguousarray(pack.images[i].permute(1, 2, 0).numpy())
    frames, quantiser = reencode_h264([_zoomed(image, k / (_NUM_FRAMES - 1)) for k in range(_NUM_FRAMES)], crf=_CRFS[i % len(_CRFS)])
    images = {name: [shrink(frame, spec) for frame in frames] for name, spec in scorers.specs().items()}
    side = PACK_SIDE_PX / PACK_MARGIN
    corner = (PACK_SIDE_PX - side) / 2
    xyxy = np.array([corner, corner, corner + side, corner + side], np.float32)
    boxes = [FaceBox(k, k / 2, xyxy, pack.landmarks[i].numpy() * PACK_SIDE_PX, 1.0) for k in range(_NUM_FRAMES)]
    track = score_track(scorers, images, boxes, [1.0] * _NUM_FRAMES, file=None)
    return VideoLogits(f"{STILL}{row.file}", row.label, row.group, row.source, row.generator, row.split, [track], quantiser=quantiser)


def _zoomed(image_hwc: NDArray[np.uint8], part: float) -> NDArray[np.uint8]:
    """The picture `part` of the way through a slow zoom to its centre."""
    side = image_hwc.shape[0]
    cut = round(side * _ZOOM * part / 2)
    inner = image_hwc[cut : side - cut, cut : side - cut]
    return np.asarray(cv2.resize(inner, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
