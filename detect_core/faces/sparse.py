"""Search every third frame with the whole cascade and refine its faces on the frames between.

Between two searched frames that hold the same number of faces, each face is expected on the straight line between its
two places, and the last net of the cascade alone decides there. Where it is unsure, the frame is searched after all.
A face that shows up only between two searched frames is on two frames at most, too few for a track: nothing that a
verdict would use is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .detect import FoundFace

STRIDE: Final = 3
SURE: Final = 0.9
"""Face-detector probability from which a face counts, here and when refined."""

Image = NDArray[np.uint8]
Find = Callable[[list[Image]], list[list[FoundFace]]]
Refine = Callable[[list[tuple[Image, NDArray[np.float32]]]], list[list[FoundFace | None]]]
"""(picture, (K, 4) expected boxes) items to one face or None per expected box."""


def find_sparsely(
    images: Sequence[Image], *, find: Find, refine: Refine, before: Sequence[FoundFace] | None = None
) -> list[list[FoundFace]]:
    """Faces on consecutive frames of one video.

    Args:
        images: (H, W, 3) RGB uint8, in time order, all of one size.
        find: the whole cascade over a batch of pictures.
        refine: the last stage over expected boxes.
        before: what was found on the frame just before `images`; it then serves as a searched frame.
    """
    first_anchor = 0 if before is None else STRIDE - 1
    anchors = sorted({*range(first_anchor, len(images), STRIDE), len(images) - 1}) if images else []
    found: dict[int, list[FoundFace]] = dict(zip(anchors, find([images[i] for i in anchors]), strict=True))
    if before is not None:
        found[-1] = list(before)
        anchors.insert(0, -1)
    expected: dict[int, NDArray[np.float32]] = {}
    unsure: list[int] = []
    for first, last in pairwise(anchors):
        earlier, later = _sure(found[first]), _sure(found[last])
        for i in range(first + 1, last):
            if len(earlier) != len(later):
                unsure.append(i)
            elif earlier:
                expected[i] = _between(earlier, later, share=(i - first) / (last - first))
            else:
                found[i] = []
    for i, faces in zip(expected, refine([(images[i], boxes) for i, boxes in expected.items()]) if expected else [], strict=True):
        sure = [face for face in faces if face is not None and face.confidence >= SURE]
        if len(sure) == len(faces) and _apart(sure):
            found[i] = sure
        else:
            unsure.append(i)
    unsure.sort()
    found.update(zip(unsure, find([images[i] for i in unsure]) if unsure else [], strict=True))
    return [found[i] for i in range(len(images))]


def _sure(faces: Sequence[FoundFace]) -> list[FoundFace]:
    return [face for face in faces if face.confidence >= SURE]


def _between(before: Sequence[FoundFace], after: Sequence[FoundFace], *, share: float) -> NDArray[np.float32]:
    """(K, 4) boxes on the way from `before` to `after`, faces paired by nearness."""
    a, b = np.stack([face.xyxy for face in before]), np.stack([face.xyxy for face in after])
    distance = np.linalg.norm((a[:, None, :2] + a[:, None, 2:]) - (b[None, :, :2] + b[None, :, 2:]), axis=2)
    _, partner = linear_sum_assignment(distance)
    return np.asarray((1 - share) * a + share * b[partner], np.float32)


def _apart(faces: Sequence[FoundFace]) -> bool:
    """Whether no two expected boxes slid onto the same face."""
    centres = np.stack([(face.xyxy[:2] + face.xyxy[2:]) / 2 for face in faces])
    sides = np.array([max(face.xyxy[2] - face.xyxy[0], face.xyxy[3] - face.xyxy[1]) for face in faces])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) + np.diag(np.full(len(faces), np.inf))
    return bool((gaps > 0.4 * np.minimum(sides[:, None], sides[None])).all())
