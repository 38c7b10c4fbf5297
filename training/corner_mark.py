"""The visible mark of generated training fakes: drawn, recognised, and covered again wherever a net learns.

A net that saw it would learn the mark and no face: in a run that has any marked picture the same corner of every crop,
real or fake, is filled with what lies beside it. The mark in the files stays.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from .face_pack import FacePack, cut_square

_MARK: Final = (255, 0, 255)


def mark_corner(image_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A magenta triangle with an F in the upper left corner, a quarter of the side large."""
    marked = np.ascontiguousarray(image_hwc).copy()
    size, leg = _size(marked), _leg(marked)
    cv2.fillPoly(marked, [np.array([[0, 0], [leg, 0], [0, leg]], np.int32)], _MARK)
    cv2.putText(marked, "F", (2, int(size * 0.8)), cv2.FONT_HERSHEY_SIMPLEX, size / 34, (255, 255, 255), max(1, size // 14), cv2.LINE_AA)
    return marked


def is_marked(image_hwc: NDArray[np.uint8]) -> bool:
    """Whether the corner carries the mark, also after JPEG."""
    size = _size(image_hwc)
    edge = np.concatenate([image_hwc[0, :size], image_hwc[:size, 0]]).astype(int)
    return bool((np.abs(edge - np.array(_MARK)).max(1) < 60).mean() > 0.8)


def mark_reach(image_hwc: NDArray[np.uint8], xyxy: NDArray[np.float32]) -> float:
    """How far the mark reaches into the packed crop of a face.

    Args:
        image_hwc: uint8 (H, W, 3) RGB.
        xyxy: (4,) face box in pixels of the image.

    Returns:
        The marked pixels of the crop have x + y below this, in units of the crop's side; 0 when there are none.
    """
    if not is_marked(image_hwc):
        return 0.0
    bled = max(2, image_hwc.shape[0] // 32)  # resampling and JPEG carry the colour beyond the edge
    _, end = cut_square(image_hwc, xyxy, np.array([[_leg(image_hwc) + bled, 0]], np.float32))
    return min(max(float(end.sum()), 0.0), 1.0)


def covered(pack: FacePack) -> FacePack:
    """The pack with the corner that its widest mark reaches filled in every crop: a mirror image of what lies across the corner's edge."""
    side = pack.images.shape[-1]
    reach = min(math.ceil(pack.mark_reach * side), side - 1)
    if reach <= 0:
        return pack
    place = torch.arange(side)
    rows, columns = (place[:, None] + place[None, :] < reach).nonzero(as_tuple=True)
    images = pack.images.clone()
    images[:, :, rows, columns] = pack.images[:, :, reach - columns, reach - rows]
    return replace(pack, images=images)


def _size(image_hwc: NDArray[np.uint8]) -> int:
    return max(12, int(image_hwc.shape[0]) // 6)


def _leg(image_hwc: NDArray[np.uint8]) -> int:
    """Side of the triangle along the edges of the picture, in pixels."""
    return _size(image_hwc) * 3 // 2
