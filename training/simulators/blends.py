"""Blended fakes: a face on itself, or on another person's.

Self-blends after the idea of Shiohara and Yamasaki 2022, "Detecting Deepfakes with Self-Blended Images"; cross blends
after Li et al. 2020, "Face X-ray for More General Face Forgery Detection". Own implementation and parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor

from ..filters import gaussian_blur, match_colour, only, random_colour, resample_groups, sharpen
from ..geometry import align_to, chance, uniform, warp_affine, warp_elastic
from .base import Fakes, Reals
from .decoders import DecoderBank
from .masks import draw_masks

_RATIOS = torch.tensor([0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0])


def _blend(inner: Tensor, outer: Tensor, masks: Tensor, generator: Generator, *, family: str) -> Fakes:
    """`m * inner + (1 - m) * outer` with a drawn opacity; the real of the pair is the outer image."""
    ratio = _RATIOS.to(inner.device)[torch.randint(len(_RATIOS), (len(inner),), generator=generator)][:, None, None, None]
    m = masks * ratio
    return Fakes((m * inner + (1 - m) * outer).clamp(0, 1), m, outer, {"family": family, "ratio": ratio.flatten().tolist()})


def degrade(images: Tensor, generator: Generator) -> Tensor:
    """The look of a generated face: softer (resampled or blurred) or harder (sharpened) than its surroundings."""
    batch = len(images)
    choice = torch.rand(batch, generator=generator)
    images = only(images, choice < 0.45, lambda x: resample_groups(x, uniform((len(x),), 0.25, 0.8, generator)))
    images = only(images, (choice >= 0.45) & (choice < 0.7), lambda x: gaussian_blur(x, uniform((len(x),), 0.4, 1.4, generator)))
    return only(images, (choice >= 0.7) & (choice < 0.85), lambda x: sharpen(x, uniform((len(x),), 0.3, 1.5, generator)))


class SelfBlend:
    """The face pasted on itself after a change of colour, sharpness and position."""

    family = "self_blend"

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        changed = random_colour(reals.images, strength=0.9, generator=generator)
        changed = degrade(changed, generator)
        swap = chance(batch, 0.35, generator)[:, None, None, None]
        inner, outer = torch.where(swap, reals.images, changed), torch.where(swap, changed, reals.images)
        masks = draw_masks(reals.landmarks, side, generator)
        shift = uniform((batch, 2), -0.03, 0.03, generator) * torch.tensor([1.0, 0.5])
        moved = warp_affine(torch.cat([inner, masks], 1), shift=shift, scale=uniform((batch, 2), 0.95, 1.05, generator))
        return _blend(moved[:, :3], outer, moved[:, 3:], generator, family=self.family)


class WarpBlend:
    """Expression change: the face is bent by a smooth field inside the mask, then slightly degraded."""

    family = "warp_blend"

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        sigma = uniform((batch,), 0.006, 0.03, generator)
        bent = warp_elastic(reals.images, sigma=sigma, cells=6, generator=generator)
        bent = only(bent, chance(batch, 0.6, generator), lambda x: degrade(x, generator))
        bent = only(bent, chance(batch, 0.4, generator), lambda x: random_colour(x, strength=0.35, generator=generator))
        return _blend(bent, reals.images, draw_masks(reals.landmarks, side, generator), generator, family=self.family)


class CrossBlend:
    """Another person's face, aligned by five points, colour-matched and feathered in: a classical swap.

    Args:
        decoders: most of the faces go through one of these, as those of learned swaps do.
    """

    family = "cross_blend"

    def __init__(self, decoders: DecoderBank | None = None) -> None:
        self.decoders = decoders

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        donors = nearest_layout(reals.landmarks, generator)
        theta = align_to(reals.landmarks[donors], reals.landmarks)
        grid = fn.affine_grid(theta, list(reals.images.shape), align_corners=False)
        inner = fn.grid_sample(reals.images[donors], grid, mode="bilinear", padding_mode="border", align_corners=False)
        decoders = self.decoders
        if decoders is not None:
            decoded = decoders.varied(inner, generator)[0]
            share = uniform((batch,), 0.2, 1.0, generator) * chance(batch, 0.7, generator)
            inner = inner + share[:, None, None, None] * (decoded - inner)
        shape = "face" if bool(torch.rand(1, generator=generator) < 0.6) else None
        masks = draw_masks(reals.landmarks, side, generator, shape=shape)
        inner = match_colour(inner, reals.images, masks, uniform((batch,), 0.6, 1.0, generator))
        inner = only(inner, chance(batch, 0.7, generator), lambda x: degrade(x, generator))
        return _blend(inner, reals.images, masks, generator, family=self.family)


class MouthResynthesis:
    """Lip-sync: the mouth region is stretched, smoothed and pasted back; nothing else changes."""

    family = "mouth"

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        masks = draw_masks(reals.landmarks, side, generator, shape="mouth" if bool(torch.rand(1, generator=generator) < 0.6) else "lower")
        bent = warp_elastic(reals.images, sigma=uniform((batch,), 0.004, 0.025, generator), cells=8, generator=generator)
        bent = resample_groups(bent, uniform((batch,), 0.25, 0.75, generator))
        bent = only(bent, chance(batch, 0.4, generator), lambda x: random_colour(x, strength=0.3, generator=generator))
        return _blend(bent, reals.images, masks, generator, family=self.family)


def nearest_layout(landmarks: Tensor, generator: Generator) -> Tensor:
    """For every face the other face of the batch with the most similar pose, judged by five points, with some noise."""
    centred = landmarks - landmarks.mean(1, keepdim=True)
    shape = (centred / centred.norm(dim=(1, 2), keepdim=True).clamp_min(1e-4)).flatten(1)
    distance = torch.cdist(shape, shape)
    distance = distance * uniform(tuple(distance.shape), 0.7, 1.3, generator)
    distance.fill_diagonal_(float("inf"))
    return distance.argmin(1) if len(landmarks) > 1 else torch.zeros(1, dtype=torch.long)
