"""Follow faces over the sampled frames: assignment by overlap, distance and size, cut at shot changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..structs import FaceBox, Frame, Track

_MAX_SIZE_RATIO: Final = 1.8
"""A face does not grow or shrink more than this between two looks."""
_MAX_MISSED_LOOKS: Final = 2
"""A face may be missed (blink of the face detector, a hand) this many looks and keep its track."""
_MIN_MATCH: Final = 0.3
"""Least similarity that counts as the same face."""
_SHOT_HISTOGRAM_DISTANCE: Final = 0.5
"""Half the pixels changed colour bin: another shot."""


@dataclass(slots=True)
class _OpenTrack:
    boxes: list[FaceBox]
    missed: int = 0


def follow(frames: Sequence[Frame], boxes_per_frame: Sequence[Sequence[FaceBox]]) -> list[Track]:
    """Link the boxes of consecutive frames into tracks.

    Args:
        frames: sampled frames in time order.
        boxes_per_frame: the accepted boxes of each frame.

    Returns:
        Tracks numbered from 1, ordered by first appearance, then by size.
    """
    done: list[list[FaceBox]] = []
    living: list[_OpenTrack] = []
    previous: NDArray[np.float32] | None = None
    for frame, boxes in zip(frames, boxes_per_frame, strict=True):
        histogram = _histogram(frame.image_hwc)
        if previous is not None and 0.5 * float(np.abs(histogram - previous).sum()) > _SHOT_HISTOGRAM_DISTANCE:
            done += [track.boxes for track in living]
            living = []
        previous = histogram
        living, ended = _advance(living, list(boxes))
        done += ended
    done += [track.boxes for track in living]
    done.sort(key=lambda boxes: (boxes[0].pts_seconds, -boxes[0].side_px))
    return [Track(track_id=i, boxes=tuple(boxes)) for i, boxes in enumerate(done, start=1)]


def _advance(living: list[_OpenTrack], boxes: list[FaceBox]) -> tuple[list[_OpenTrack], list[list[FaceBox]]]:
    taken: set[int] = set()
    matched: set[int] = set()
    if living and boxes:
        similarity = np.array([[_similarity(track.boxes[-1], box) for box in boxes] for track in living])
        for row, column in zip(*linear_sum_assignment(-similarity), strict=True):
            if similarity[row, column] >= _MIN_MATCH:
                living[row].boxes.append(boxes[column])
                living[row].missed = 0
                matched.add(int(row))
                taken.add(int(column))
    ended = []
    kept = []
    for i, track in enumerate(living):
        if i not in matched:
            track.missed += 1
        if track.missed > _MAX_MISSED_LOOKS:
            ended.append(track.boxes)
        else:
            kept.append(track)
    kept += [_OpenTrack([box]) for i, box in enumerate(boxes) if i not in taken]
    return kept, ended


def _similarity(a: FaceBox, b: FaceBox) -> float:
    """Overlap of two boxes; where looks are far apart in time and boxes no longer touch, nearness in face widths."""
    ratio = a.side_px / b.side_px
    if not 1 / _MAX_SIZE_RATIO <= ratio <= _MAX_SIZE_RATIO:
        return 0.0
    left_top, right_bottom = np.maximum(a.xyxy[:2], b.xyxy[:2]), np.minimum(a.xyxy[2:], b.xyxy[2:])
    inner = float(np.prod(np.clip(right_bottom - left_top, 0, None)))
    area = float(np.prod(a.xyxy[2:] - a.xyxy[:2])) + float(np.prod(b.xyxy[2:] - b.xyxy[:2]))
    overlap = inner / (area - inner)
    distance = float(np.linalg.norm((a.xyxy[:2] + a.xyxy[2:] - b.xyxy[:2] - b.xyxy[2:]) / 2)) / max(a.side_px, b.side_px)
    return max(overlap, 0.6 - 0.4 * distance)


def _histogram(image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of pixels per colour bin (4 x 4 x 4), on a coarse grid."""
    coarse = image_hwc[::8, ::8].astype(np.int32) >> 6
    bins = np.bincount((coarse[..., 0] * 16 + coarse[..., 1] * 4 + coarse[..., 2]).ravel(), minlength=64)
    return np.asarray(bins / max(1, bins.sum()), np.float32)
