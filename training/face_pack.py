"""Face crops as one tensor in memory: everything that training and evaluation read.

Every crop is a square centred on the face box with side = `PACK_MARGIN` x the longer side of the box, as the screening
pipeline cuts it, but wider, so that margin and position can be jittered later. Pixels beyond the picture repeat
its border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import DataError

PACK_MARGIN: Final = 1.6
"""Side of a packed crop over the longer side of the face box."""
PACK_SIDE_PX: Final = 224


@dataclass(frozen=True, slots=True)
class FaceRow:
    """Where one packed crop comes from."""

    file: str
    """Path inside the data folder; for videos with the time appended."""
    source: str
    label: int
    """1 = fake, 0 = real."""
    generator: str
    """Empty for real material."""
    group: str
    """Identity or near-duplicate cluster: never on both sides of a split."""
    split: str
    """train, valid or test."""
    kind: str
    """`still` or `video`."""
    face_px: float
    """Longer side of the face box in the original picture."""

    def __post_init__(self) -> None:
        if self.label not in (0, 1):
            raise DataError(f"{self.file}: label must be 0 (real) or 1 (fake), got {self.label!r}")
        if self.split not in ("train", "valid", "test"):
            raise DataError(f"{self.file}: split must be train, valid or test, got {self.split!r}")


@dataclass(frozen=True, slots=True, eq=False)
class FacePack:
    """N face crops with their landmarks."""

    images: Tensor
    """uint8 (N, 3, S, S) RGB."""
    landmarks: Tensor
    """float32 (N, 5, 2): left eye, right eye, nose, left and right mouth corner, in units of the crop side (0..1)."""
    rows: tuple[FaceRow, ...]
    mark_reach: float = 0.0
    """How far the mark of generated training fakes reaches into any of the crops, see `corner_mark`; 0 when none has it."""

    def __post_init__(self) -> None:
        n = len(self.rows)
        if self.images.shape[:2] != (n, 3) or self.images.dtype != torch.uint8 or self.landmarks.shape != (n, 5, 2):
            raise DataError(
                f"a face pack needs uint8 images (N, 3, S, S) and landmarks (N, 5, 2) for {n} rows, got {self.images.dtype} "
                f"{tuple(self.images.shape)} and {tuple(self.landmarks.shape)}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int]) -> FacePack:
        """The crops at `indices`, in that order."""
        chosen = torch.as_tensor(list(indices), dtype=torch.long)
        return FacePack(self.images[chosen], self.landmarks[chosen], tuple(self.rows[int(i)] for i in chosen), self.mark_reach)

    def where(self, *, split: str | None = None, label: int | None = None, source: str | None = None, kind: str | None = None) -> FacePack:
        """The crops whose row has every given value."""
        return self.take(
            [
                i
                for i, row in enumerate(self.rows)
                if (split is None or row.split == split)
                and (label is None or row.label == label)
                and (source is None or row.source == source)
                and (kind is None or row.kind == kind)
            ]
        )

    def sha256(self) -> str:
        """Hash over pixels, landmarks and rows: two packs with the same hash train the same net."""
        digest = hashlib.sha256(self.images.numpy().tobytes())
        digest.update(self.landmarks.numpy().tobytes())
        digest.update(repr(self.rows).encode())
        return digest.hexdigest()


def concatenate(packs: Sequence[FacePack]) -> FacePack:
    """Join packs of the same side."""
    if not packs:
        raise DataError("tried to join no face packs at all; give at least one data folder")
    rows = tuple(row for pack in packs for row in pack.rows)
    reach = max(pack.mark_reach for pack in packs)
    return FacePack(torch.cat([p.images for p in packs]), torch.cat([p.landmarks for p in packs]), rows, reach)


def cut_square(
    image_hwc: NDArray[np.uint8],
    xyxy: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    *,
    margin: float = PACK_MARGIN,
    side_px: int = PACK_SIDE_PX,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cut the square crop of one face and resample it to `side_px`.

    Args:
        image_hwc: uint8 (H, W, 3) RGB.
        xyxy: (4,) face box in pixels of the image; may reach beyond it.
        landmarks: (5, 2) in the same pixels.
        margin: side of the square over the longer side of the box.
        side_px: side of the result.

    Returns:
        The crop (side, side, 3) and its landmarks in units of the crop's side.
    """
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    side = max(8, round(margin * max(x1 - x0, y1 - y0)))
    left, top = round((x0 + x1) / 2 - side / 2), round((y0 + y1) / 2 - side / 2)
    height, width = image_hwc.shape[:2]
    pads = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
    inside = image_hwc[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    if inside.size == 0:
        raise DataError(f"face box {xyxy.tolist()} lies outside its {width}x{height} picture; build the index again")
    square = cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REPLICATE)
    interpolation = cv2.INTER_AREA if side > side_px else cv2.INTER_LINEAR
    crop = np.asarray(cv2.resize(square, (side_px, side_px), interpolation=interpolation), np.uint8)
    points = (np.asarray(landmarks, np.float32) - np.array([left, top], np.float32)) / np.float32(side)
    return crop, points.astype(np.float32)


def build_pack(crops: Sequence[NDArray[np.uint8]], landmarks: Sequence[NDArray[np.float32]], rows: Sequence[FaceRow]) -> FacePack:
    """Stack cut crops."""
    if not crops:
        raise DataError("no face crop was found in the data; check the folder and its index")
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    return FacePack(images, torch.from_numpy(np.stack(landmarks).astype(np.float32)), tuple(rows))
