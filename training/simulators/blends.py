"""Blended fakes: a face on itself, on another person's, and a face that went through a decoder.

Self-blends after the idea of Shiohara and Yamasaki 2022, "Detecting Deepfakes with Self-Blended Images"; cross blends
after Li et al. 2020, "Face X-ray for More General Face Forgery Detection". Own implementation and parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor, nn

from ..device import Placed, bf16_where_fast
from ..filters import gaussian_blur, only, random_colour, resample_groups, sharpen
from ..geometry import align_to, chance, uniform, warp_affine, warp_elastic
from .base import Fakes, Reals
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
    """Another person's face, aligned by five points, colour-matched and feathered in: a classical swap."""

    family = "cross_blend"

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        donors = nearest_layout(reals.landmarks, generator)
        theta = align_to(reals.landmarks[donors], reals.landmarks)
        grid = fn.affine_grid(theta, list(reals.images.shape), align_corners=False)
        inner = fn.grid_sample(reals.images[donors], grid, mode="bilinear", padding_mode="border", align_corners=False)
        shape = "face" if bool(torch.rand(1, generator=generator) < 0.6) else None
        masks = draw_masks(reals.landmarks, side, generator, shape=shape)
        inner = match_colour(inner, reals.images, masks, uniform((batch,), 0.6, 1.0, generator))
        inner = only(inner, chance(batch, 0.7, generator), lambda x: degrade(x, generator))
        return _blend(inner, reals.images, masks, generator, family=self.family)


class DecoderBlend:
    """A reconstruction by a frozen autoencoder, pasted through a mask or, for a share, left as the whole picture.

    Args:
        nets: autoencoders, images in -1..1 to the same; any side that is a multiple of 4.
        whole_share: share of fakes without a mask (talking heads and generated portraits).
        family: name in the recipe.
    """

    def __init__(self, nets: Sequence[nn.Module], *, whole_share: float, family: str = "decoder_blend") -> None:
        self.nets = tuple(Placed(net.eval().requires_grad_(False)) for net in nets)
        self.whole_share = whole_share
        self.family = family

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        net = self.nets[int(torch.randint(len(self.nets), (1,), generator=generator))]
        least = min(max(12, side // 8), side // 4)  # the range is not empty below 48 px either
        inner_side = int(torch.randint(least, side // 4 + 1, (1,), generator=generator)) * 4
        inner = reconstruct(net.on(reals.images.device), reals.images, inner_side)
        # A reconstruction with a visible colour cast would be found by colour alone.
        whole_image = torch.ones_like(inner[:, :1])
        inner = match_colour(inner, reals.images, whole_image, uniform((batch,), 0.7, 1.0, generator))
        detail = uniform((batch,), 0.0, 0.5, generator)[:, None, None, None]
        inner = (inner + detail * (reals.images - inner)).clamp(0, 1)
        inner = only(inner, chance(batch, 0.3, generator), lambda x: sharpen(x, uniform((len(x),), 0.3, 1.5, generator)))
        masks = draw_masks(reals.landmarks, side, generator)
        whole = chance(batch, self.whole_share, generator)[:, None, None, None]
        masks = torch.where(whole, torch.ones_like(masks), masks)
        m = masks
        fake = (m * inner + (1 - m) * reals.images).clamp(0, 1)
        return Fakes(fake, m, reals.images, {"family": self.family, "inner_side": inner_side})


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


def reconstruct(net: nn.Module, images: Tensor, inner_side: int) -> Tensor:
    """Pass images in 0..1 through an autoencoder that works at `inner_side` pixels."""
    side = images.shape[-1]
    mode = "area" if inner_side < side else "bilinear"
    kwargs = {} if mode == "area" else {"align_corners": False}
    small = images if inner_side == side else fn.interpolate(images, size=(inner_side, inner_side), mode=mode, **kwargs)
    with torch.no_grad(), bf16_where_fast(images.device, True):
        out = net(2 * small - 1)
    out = ((out.float() + 1) / 2).clamp(0, 1)
    return out if inner_side == side else fn.interpolate(out, size=(side, side), mode="bilinear", align_corners=False)


def match_colour(inner: Tensor, outer: Tensor, masks: Tensor, strength: Tensor) -> Tensor:
    """Move mean and spread of `inner` under the mask towards those of `outer` by `strength` (B,) in 0..1."""
    weight = masks / masks.sum((2, 3), keepdim=True).clamp_min(1e-3)
    mean_i, mean_o = (inner * weight).sum((2, 3), keepdim=True), (outer * weight).sum((2, 3), keepdim=True)
    std_i = (((inner - mean_i) ** 2) * weight).sum((2, 3), keepdim=True).sqrt().clamp_min(0.02)
    std_o = (((outer - mean_o) ** 2) * weight).sum((2, 3), keepdim=True).sqrt()
    matched = (inner - mean_i) * (std_o / std_i).clamp(0.5, 2.0) + mean_o
    k = strength[:, None, None, None]
    return (k * matched + (1 - k) * inner).clamp(0, 1)
