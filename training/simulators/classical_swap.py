"""The swap of before neural nets: another face fitted by five points and cloned in without a seam. For tests only.

Pérez, Gangnet and Blake 2003, "Poisson Image Editing", by OpenCV. No recipe trains on it: detectors are asked about a
way of making fakes that shares no code with those they learned from.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import torch
import torch.nn.functional as fn
from numpy.typing import NDArray
from torch import Generator

from ..geometry import align_to
from .base import Fakes, Reals
from .blends import nearest_layout

_REACH: Final = 2.3
"""Size of the cloned oval over the spread of the five points."""


class ClassicalSwap:
    """Another person's face of the batch, aligned and cloned into an oval around the five points."""

    family = "classical_swap"

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        donors = nearest_layout(reals.landmarks, generator)
        theta = align_to(reals.landmarks[donors], reals.landmarks)
        grid = fn.affine_grid(theta, list(reals.images.shape), align_corners=False)
        fitted = fn.grid_sample(reals.images[donors], grid, mode="bilinear", padding_mode="border", align_corners=False)
        images, masks = [], []
        for outer, inner, points in zip(reals.images, fitted, reals.landmarks, strict=True):
            swapped, mask = _cloned(_bytes(inner), _bytes(outer), np.asarray(points.cpu(), np.float32))
            images.append(torch.from_numpy(swapped).permute(2, 0, 1).float() / 255)
            masks.append(torch.from_numpy(mask)[None].float() / 255)
        m = torch.stack(masks).to(reals.images.device)
        fakes = m * torch.stack(images).to(m.device) + (1 - m) * reals.images  # outside the oval not even rounded
        return Fakes(fakes, m, reals.images, {"family": self.family})


def _cloned(inner: NDArray[np.uint8], outer: NDArray[np.uint8], points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture with the oval of `inner` cloned in, and the oval."""
    side = outer.shape[0]
    spread = (points.max(axis=0) - points.min(axis=0)) * side * _REACH / 2
    centre = (points.mean(axis=0) * side).round().astype(int)
    axes = np.maximum(spread.round().astype(int), 3)
    # the solver needs a border of untouched pixels around the oval
    axes = np.minimum(axes, np.minimum(centre, side - 1 - centre) - 2)
    mask = np.zeros((side, side), np.uint8)
    if (axes < 2).any():
        return outer, mask
    cv2.ellipse(mask, (int(centre[0]), int(centre[1])), (int(axes[0]), int(axes[1])), 0, 0, 360, 255, -1)
    # it writes into the mask that it is given
    cloned = cv2.seamlessClone(inner, outer, mask.copy(), (int(centre[0]), int(centre[1])), cv2.NORMAL_CLONE)
    return np.asarray(cloned, np.uint8), mask


def _bytes(image: torch.Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
