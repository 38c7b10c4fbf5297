"""What happens to real and fake alike after a fake was made: colour, resampling, noise, overlays, compression, position.

A pair gets the same draws, so that no augmentation can tell its halves apart. Several of these (smoothing, sharpening,
captions, borders) are hard negatives at the same time: whole-picture edits that are not fakes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor

from .codec import random_codec, simulate_jpeg
from .filters import gaussian_blur, only, resample_groups, sharpen, shift_colour
from .geometry import chance, uniform


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Probabilities per pair. `strength` 0 switches everything but the final crop off."""

    colour: float = 0.5
    resample: float = 0.4
    soft_or_sharp: float = 0.3
    noise: float = 0.2
    overlay: float = 0.06
    codec: float = 0.65
    second_codec: float = 0.1
    grey: float = 0.02
    severity: float = 0.8
    """Scales the range of qualities; 1 reaches JPEG 35 and QP 42."""


def augment_pairs(
    reals: Tensor, fakes: Tensor, masks: Tensor, *, size_px: int, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Degrade both halves of each pair alike and cut the final crop.

    Args:
        reals: (B, 3, W, W) in 0..1.
        fakes: the same shape.
        masks: (B, 1, W, W).
        size_px: side of the result, at most W.
        config: probabilities.
        generator: source of randomness.

    Returns:
        Reals and fakes (B, 3, size, size) in 0..1 and masks (B, 1, size, size).
    """
    batch = len(reals)
    both = torch.cat([reals, fakes])

    def pairwise(probability: float) -> Tensor:
        return chance(batch, probability, generator).repeat(2)

    both = only(both, pairwise(config.colour), _twin(lambda x, n: _colour(x, n, generator)))
    both = only(both, pairwise(config.grey), lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    both = only(
        both, pairwise(config.soft_or_sharp / 2), _twin(lambda x, n: gaussian_blur(x, uniform((n,), 0.3, 1.3, generator).repeat(2)))
    )
    both = only(both, pairwise(config.soft_or_sharp / 2), _twin(lambda x, n: sharpen(x, uniform((n,), 0.2, 1.5, generator).repeat(2))))
    both = only(both, pairwise(config.resample), _twin(lambda x, n: resample_groups(x, uniform((n,), 0.4, 1.0, generator).repeat(2))))
    both = only(both, pairwise(config.noise), _twin(lambda x, n: _noise(x, n, generator)))
    both = only(both, pairwise(config.overlay), _twin(lambda x, n: _overlay(x, n, generator)))
    both = only(both, pairwise(config.codec), lambda x: random_codec(x, generator=generator, severity=config.severity))
    both = only(both, pairwise(config.second_codec), lambda x: random_codec(x, generator=generator, severity=config.severity))
    cut = _final_crop(torch.cat([both, masks.repeat(2, 1, 1, 1)], 1), size_px, generator)
    return cut[:batch, :3], cut[batch:, :3], cut[batch:, 3:]


def degrade_as_ffpp(images: Tensor, generator: Generator) -> Tensor:
    """Blur by a kernel of 3, 5 or 7 pixels and JPEG of quality 40 to 100, each on half of the pictures, every picture for itself.

    Usual in training on FaceForensics++; the mirror belongs to the view that cut the pictures. A kernel stands for the
    standard deviation that OpenCV derives from it: 0.8, 1.1 and 1.4 pixels.
    """
    sigma = 0.8 + 0.3 * torch.randint(3, (len(images),), generator=generator)
    quality = torch.randint(40, 101, (len(images),), generator=generator).float()
    blurred, coded = chance(len(images), 0.5, generator), chance(len(images), 0.5, generator)
    images = only(images, blurred, lambda x: gaussian_blur(x, sigma[blurred]))
    return only(images, coded, lambda x: simulate_jpeg(x, quality[coded]))


def _twin(change: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor], Tensor]:
    """Give `change` the number of pairs: the chosen of both halves arrive stacked."""
    return lambda images: change(images, len(images) // 2)


def _colour(images: Tensor, pairs: int, generator: Generator) -> Tensor:
    return shift_colour(
        images,
        rgb=uniform((pairs, 3), -0.06, 0.06, generator).repeat(2, 1),
        saturation=uniform((pairs,), 0.6, 1.3, generator).repeat(2),
        brightness=uniform((pairs,), -0.15, 0.15, generator).repeat(2),
        contrast=uniform((pairs,), 0.7, 1.3, generator).repeat(2),
        hue=uniform((pairs,), -0.12, 0.12, generator).repeat(2),
    )


def _noise(images: Tensor, pairs: int, generator: Generator) -> Tensor:
    sigma = uniform((pairs,), 0.004, 0.04, generator)[:, None, None, None]
    noise = torch.randn(pairs, *images.shape[1:], generator=generator) * sigma
    return (images + noise.repeat(2, 1, 1, 1)).clamp(0, 1)


def _overlay(images: Tensor, pairs: int, generator: Generator) -> Tensor:
    """A caption bar, a logo block or a black border, equal in both halves."""
    out = images.clone()
    side = images.shape[-1]

    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, max(high, low + 1), (1,), generator=generator))  # below 36 px a range would be empty

    for i in range(pairs):
        kind = int(torch.randint(3, (1,), generator=generator))
        shade = torch.rand(3, 1, 1, generator=generator)
        top = drawn(int(0.6 * side), side - 8)
        if kind == 0:
            height = drawn(4, side // 5)
            stripes = (torch.rand(1, 1, side // 4 + 1, generator=generator) < 0.5).float().repeat_interleave(4, 2)[:, :, :side]
            bar = shade * stripes + (1 - shade) * (1 - stripes)
            for j in (i, i + pairs):
                out[j, :, top : top + height] = bar
        elif kind == 1:
            size = drawn(8, side // 4)
            left = drawn(0, side - size)
            for j in (i, i + pairs):
                out[j, :, top : top + size, left : left + size] = shade
        else:
            width = drawn(2, side // 6)
            edge = int(torch.randint(4, (1,), generator=generator))
            rows = (slice(None), slice(0, width), slice(side - width, None), slice(None))[edge]
            columns = (slice(0, width), slice(None), slice(None), slice(side - width, None))[edge]
            for j in (i, i + pairs):
                out[j, :, rows, columns] = 0
    return out


def _final_crop(images: Tensor, size_px: int, generator: Generator) -> Tensor:
    """One common small zoom and shift per pair, resampled to the net's side."""
    pairs = len(images) // 2
    zoom = uniform((pairs,), size_px / images.shape[-1] * 0.96, 1.0, generator).repeat(2)
    room = (1 - zoom)[:, None]
    shift = uniform((pairs, 2), -1, 1, generator).repeat(2, 1) * room
    zero = torch.zeros_like(zoom)
    theta = torch.stack([torch.stack([zoom, zero, shift[:, 0]], 1), torch.stack([zero, zoom, shift[:, 1]], 1)], 1)
    grid = fn.affine_grid(theta, [len(images), 1, size_px, size_px], align_corners=False)
    return fn.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)
