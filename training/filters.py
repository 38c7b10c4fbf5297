"""Batched image filters: blur, sharpening, resampling, colour. Float (B, C, H, W) in 0..1 in and out, clamped."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor

from .geometry import uniform


def only(images: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to the chosen images of a batch; `chosen` is bool (B,)."""
    if not bool(chosen.any()):
        return images
    out = images.clone()
    out[chosen] = change(images[chosen])
    return out


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian with one sigma (pixels) per image; borders are repeated. Not clamped: serves masks too."""
    batch, channels, height, width = images.shape
    radius = min(max(1, int(float(sigma.max()) * 3 + 0.5)), height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernels = torch.exp(-(offsets[None] ** 2) / (2 * sigma.clamp_min(1e-3)[:, None] ** 2))
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, batch * channels, height, width)
    flat = fn.conv2d(fn.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernels[:, None, None, :], groups=batch * channels)
    flat = fn.conv2d(fn.pad(flat, (0, 0, radius, radius), mode="replicate"), kernels[:, None, :, None], groups=batch * channels)
    return flat.reshape(batch, channels, height, width)


def box_blur(images: Tensor) -> Tensor:
    """3x3 mean with repeated borders."""
    return fn.avg_pool2d(fn.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)


def sharpen(images: Tensor, amount: Tensor) -> Tensor:
    """Unsharp mask, amount (B,) from 0."""
    return (images + amount[:, None, None, None] * (images - box_blur(images))).clamp(0, 1)


def resample(images: Tensor, scale: float, *, down: str = "area", up: str = "bilinear") -> Tensor:
    """Shrink by `scale` (0..1) and bring back to the old size."""
    height, width = images.shape[-2:]
    small_size = (max(8, round(height * scale)), max(8, round(width * scale)))
    small = _interpolate(images, small_size, down)
    return _interpolate(small, (height, width), up).clamp(0, 1)


def resample_groups(images: Tensor, scales: Tensor, *, down: str = "area", up: str = "bilinear") -> Tensor:
    """`resample` with one scale per image, at most eight different ones per batch to stay batched."""
    out = images.clone()
    levels = (scales * 8).round().clamp(1, 8) / 8
    for level in sorted(set(levels.tolist())):
        if level < 1:
            members = levels == level
            jittered = float(scales[members].mean())
            out[members] = resample(images[members], jittered, down=down, up=up)
    return out


def shift_colour(images: Tensor, *, rgb: Tensor, saturation: Tensor, brightness: Tensor, contrast: Tensor, hue: Tensor) -> Tensor:
    """Change colour.

    Args:
        images: (B, 3, H, W) in 0..1.
        rgb: (B, 3), added.
        saturation: (B,), 1 keeps.
        brightness: (B,), added.
        contrast: (B,), 1 keeps; about each image's mean grey.
        hue: (B,) radians, rotation of the chroma plane.
    """
    weights = torch.tensor([0.299, 0.587, 0.114])
    grey = (images * weights[None, :, None, None]).sum(1, keepdim=True)
    chroma = images - grey
    # A rotation about the grey axis leaves luminance and greys alone, which is what a hue shift does.
    angle = hue[:, None, None]
    axis = torch.full((3,), 3**-0.5)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) * 3**-0.5
    matrix = torch.cos(angle) * torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * torch.outer(axis, axis)
    chroma = torch.einsum("bij,bjhw->bihw", matrix, chroma) * saturation[:, None, None, None]
    changed = grey + chroma + rgb[:, :, None, None] + brightness[:, None, None, None]
    middle = grey.mean((2, 3), keepdim=True)
    return ((changed - middle) * contrast[:, None, None, None] + middle).clamp(0, 1)


def random_colour(images: Tensor, *, strength: float, generator: Generator) -> Tensor:
    """`shift_colour` with all parameters drawn; strength 1 moves RGB by up to 20 grey levels and the rest by up to 0.3."""
    batch = len(images)
    return shift_colour(
        images,
        rgb=uniform((batch, 3), -0.08, 0.08, generator) * strength,
        saturation=1 + uniform((batch,), -0.4, 0.4, generator) * strength,
        brightness=uniform((batch,), -0.12, 0.12, generator) * strength,
        contrast=1 + uniform((batch,), -0.25, 0.25, generator) * strength,
        hue=uniform((batch,), -0.15, 0.15, generator) * strength,
    )


def _interpolate(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if mode in ("area", "nearest"):
        return fn.interpolate(images, size=size, mode=mode)
    return fn.interpolate(images, size=size, mode=mode, align_corners=False)
