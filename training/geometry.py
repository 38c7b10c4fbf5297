"""Batched geometry on face crops: views with jittered margin and position, similarity warps, elastic fields.

Images are float (B, C, H, W) in 0..1; landmarks (B, 5, 2) in units of the crop's side (0..1). Every function draws from
the generator that it is given, so that a run can be repeated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor

from .face_pack import PACK_MARGIN, FacePack


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Float32 tensor, U(low, high)."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def chance(batch: int, probability: float, generator: Generator) -> Tensor:
    """Bool (batch,), true with the given probability."""
    return torch.rand(batch, generator=generator) < probability


def view(
    pack: FacePack,
    indices: Tensor,
    *,
    size_px: int,
    margin: Tensor | float,
    shift: Tensor | None = None,
    flip: Tensor | None = None,
    rotation: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cut views of given margin out of packed crops.

    Args:
        pack: crops of margin `PACK_MARGIN`.
        indices: (B,) rows of the pack.
        size_px: side of the result.
        margin: wanted margin, one number or (B,), at most `PACK_MARGIN` when nothing is shifted.
        shift: (B, 2) offset of the centre in units of the cut side.
        flip: bool (B,), mirror left and right; landmarks change sides with it.
        rotation: (B,) radians.

    Returns:
        Images float32 (B, 3, size, size) in 0..1 and landmarks (B, 5, 2). Outside the pack its border is repeated.
    """
    batch = len(indices)
    rows = indices.cpu()  # the pack stays in main memory; a batch of it is small
    images = pack.images[rows].to(indices.device).float() / 255
    points = pack.landmarks[rows].to(indices.device).clone()
    scale = torch.as_tensor(margin, dtype=torch.float32).expand(batch) / PACK_MARGIN
    shift = torch.zeros(batch, 2) if shift is None else shift
    flip = torch.zeros(batch, dtype=torch.bool) if flip is None else flip
    angle = torch.zeros(batch) if rotation is None else rotation
    sign = torch.where(flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [torch.stack([sign * cos, -sin, 2 * shift[:, 0] * scale], 1), torch.stack([sign * sin, cos, 2 * shift[:, 1] * scale], 1)], dim=1
    )
    oversample = 2 if float(scale.max()) * images.shape[-1] > 1.6 * size_px else 1
    grid = fn.affine_grid(theta, [batch, 3, size_px * oversample, size_px * oversample], align_corners=False)
    cut = fn.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if oversample > 1:
        cut = fn.avg_pool2d(cut, oversample)
    centred = 2 * points - 1 - theta[:, None, :, 2]
    inverse = torch.linalg.inv(theta[:, :, :2])
    moved = (torch.einsum("bij,bpj->bpi", inverse, centred) + 1) / 2
    mirrored = moved[:, [1, 0, 2, 4, 3]]
    return cut, torch.where(flip[:, None, None], mirrored, moved)


def random_views(
    pack: FacePack,
    indices: Tensor,
    *,
    size_px: int,
    generator: Generator,
    margins: tuple[float, float] = (1.15, 1.6),
    max_shift: float = 0.05,
    max_rotation: float = 0.12,
) -> tuple[Tensor, Tensor]:
    """`view` with margin, position, small rotation and mirror drawn at random."""
    batch = len(indices)
    return view(
        pack,
        indices,
        size_px=size_px,
        margin=uniform((batch,), *margins, generator),
        shift=uniform((batch, 2), -max_shift, max_shift, generator),
        flip=chance(batch, 0.5, generator),
        rotation=uniform((batch,), -max_rotation, max_rotation, generator),
    )


def warp_affine(images: Tensor, *, shift: Tensor, scale: Tensor, padding: str = "border") -> Tensor:
    """Translate by `shift` (B, 2, units of the side) and zoom by `scale` (B, 2) about the centre."""
    zero = torch.zeros(len(images))
    theta = torch.stack(
        [torch.stack([1 / scale[:, 0], zero, -2 * shift[:, 0]], 1), torch.stack([zero, 1 / scale[:, 1], -2 * shift[:, 1]], 1)], dim=1
    )
    grid = fn.affine_grid(theta, list(images.shape), align_corners=False)
    return fn.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def warp_elastic(images: Tensor, *, sigma: Tensor, cells: int, generator: Generator, padding: str = "border") -> Tensor:
    """Move pixels by a smooth random field.

    Args:
        images: (B, C, H, W).
        sigma: (B,) standard deviation of the displacement in units of the side.
        cells: the field is drawn on a cells x cells grid and enlarged bicubically.
        generator: source of randomness.
        padding: as in `grid_sample`.
    """
    batch, _, height, width = images.shape
    coarse = torch.randn(batch, 2, cells, cells, generator=generator) * (2 * sigma)[:, None, None, None]
    field = fn.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    identity = torch.eye(2, 3).expand(batch, 2, 3)
    grid = fn.affine_grid(identity, [batch, 1, height, width], align_corners=False) + field
    return fn.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def align_to(source_points: Tensor, target_points: Tensor) -> Tensor:
    """Similarity (B, 2, 3) for `affine_grid` that brings faces with `source_points` onto `target_points` (least squares, 5 points).

    It maps target coordinates to source coordinates, both in -1..1, as `grid_sample` wants.
    """
    source, target = 2 * source_points - 1, 2 * target_points - 1
    mean_s, mean_t = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - mean_s, target - mean_t
    norm = (t**2).sum((1, 2)).clamp_min(1e-6)
    a = (t * s).sum((1, 2)) / norm
    b = (t[..., 0] * s[..., 1] - t[..., 1] * s[..., 0]).sum(1) / norm
    rotation = torch.stack([torch.stack([a, -b], 1), torch.stack([b, a], 1)], 1)
    offset = mean_s[:, 0] - torch.einsum("bij,bj->bi", rotation, mean_t[:, 0])
    return torch.cat([rotation, offset[..., None]], dim=2)
