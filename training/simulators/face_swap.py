"""The face swapper as a simulator of training fakes: batch of faces in, batch of labelled fakes out, nothing else.

It works on aligned crops only. There is no way from here to a frame of a video, on purpose: a fake leaves through
`training.training_fakes`, marked and labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor, nn

from ..errors import DataError
from ..filters import gaussian_blur
from ..geometry import align_to, uniform
from .base import Fakes, Reals
from .blends import match_colour

CANONICAL: Final = torch.tensor([[0.33, 0.38], [0.67, 0.38], [0.5, 0.56], [0.37, 0.74], [0.63, 0.74]])
"""Where the five points lie in an aligned face, in units of its side."""
MIN_ALPHA, MAX_ALPHA, MIN_CHANGE = 0.15, 0.95, 4 / 255
"""A collapsed mask gives back the input: such a "fake" would be a real with the wrong label."""


@dataclass(frozen=True, slots=True, eq=False)
class Swapper:
    """Encoder and both decoders, trained."""

    encoder: nn.Module
    decoders: tuple[nn.Module, nn.Module]
    size_px: int

    def swap(self, aligned: Tensor, *, to: int) -> tuple[Tensor, Tensor]:
        """Faces (B, 3, S, S) in -1..1 decoded as identity `to`; also the mask (B, 1, S, S)."""
        face, alpha, _ = self.decoders[to](self.encoder(aligned))
        return face, alpha


class FaceSwap:
    """Swaps every face to a drawn one of the two identities.

    Args:
        swapper: trained nets; random ones would teach a detector noise, so they must say that they were trained.
        trained: whether weights were loaded or trained.
    """

    family = "face_swap"

    def __init__(self, swapper: Swapper, *, trained: bool) -> None:
        if not trained:
            raise DataError("the face-swap simulator needs trained weights; run the recipe face_swap_gan first")
        self.swapper = swapper
        for net in (swapper.encoder, *swapper.decoders):
            net.eval().requires_grad_(False)

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        aligned, theta = align_faces(reals.images, reals.landmarks, self.swapper.size_px)
        to = int(torch.randint(2, (1,), generator=generator))
        with torch.no_grad():
            face, alpha = self.swapper.swap(2 * aligned - 1, to=to)
        face = (face.float() + 1) / 2
        face = match_colour(face, aligned, alpha.float(), uniform((batch,), 0.5, 1.0, generator))
        back = _inverse(theta)
        grid = fn.affine_grid(back, [batch, 4, side, side], align_corners=False)
        pasted = fn.grid_sample(torch.cat([face, alpha.float() * feather(face)], 1), grid, mode="bilinear", align_corners=False)
        mask = gaussian_blur(pasted[:, 3:], torch.full((batch,), side / 100)) * (pasted[:, 3:] > 0)
        fakes = (mask * pasted[:, :3] + (1 - mask) * reals.images).clamp(0, 1)
        return Fakes(fakes, mask, reals.images, {"family": self.family, "to": to, "alpha": alpha.float().mean((1, 2, 3)).tolist()})


def usable(fakes: Fakes) -> Tensor:
    """Bool (B,): the mask neither vanished nor covers all, and the face inside did change."""
    alpha = torch.as_tensor(fakes.recipe["alpha"])
    area = fakes.masks.sum((1, 2, 3)).clamp_min(1e-6)
    change = ((fakes.images - fakes.reals).abs().mean(1, keepdim=True) * (fakes.masks > 0.05)).sum((1, 2, 3)) / (
        (fakes.masks > 0.05).sum((1, 2, 3)).clamp_min(1)
    )
    return (alpha >= MIN_ALPHA) & (alpha <= MAX_ALPHA) & (change > MIN_CHANGE) & (area > 1)


def align_faces(images: Tensor, landmarks: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """Faces (B, 3, size, size) with their points on `CANONICAL`, and the (B, 2, 3) transform from aligned to source coordinates."""
    theta = align_to(landmarks, CANONICAL.expand(len(images), 5, 2))
    side = images.shape[-1]
    zoom = 2 if float(theta[:, :, 0].norm(dim=1).max()) * side > 1.6 * size_px else 1
    grid = fn.affine_grid(theta, [len(images), 3, size_px * zoom, size_px * zoom], align_corners=False)
    out = fn.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return (fn.avg_pool2d(out, zoom) if zoom > 1 else out), theta


def feather(images: Tensor) -> Tensor:
    """(B, 1, S, S): 1 in the middle of an aligned face, falling to 0 before its border."""
    side = images.shape[-1]
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ellipse = ((1 - (x / 0.86) ** 2 - ((y + 0.02) / 0.92) ** 2) / 0.35).clamp(0, 1)
    return ellipse.expand(len(images), 1, side, side)


def eye_regions(size_px: int, points: Tensor | None = None) -> Tensor:
    """(1, 1, S, S): discs on both eyes and the mouth of aligned faces.

    Raises:
        DataError: no pixel is inside; zeros would switch the eye loss off silently.
    """
    points = CANONICAL if points is None else points
    axis = (torch.arange(size_px) + 0.5) / size_px
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centres = torch.stack([points[0], points[1], points[3:].mean(0)])
    distance = ((x[None] - centres[:, 0, None, None]) ** 2 + ((y[None] - centres[:, 1, None, None]) * 1.4) ** 2).sqrt()
    mask = (distance < 0.11).any(0).float()[None, None]
    if not float(mask.sum()):
        raise DataError(f"eye regions are empty for points {points.tolist()}: they lie outside the face; check the landmarks of the data")
    return mask


def _inverse(theta: Tensor) -> Tensor:
    inner = torch.linalg.inv(theta[:, :, :2])
    return torch.cat([inner, -inner @ theta[:, :, 2:]], 2)
