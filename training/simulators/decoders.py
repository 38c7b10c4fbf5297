"""Reconstructions by frozen autoencoders: what every decoder leaves in a picture, whoever is shown."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor, nn

from ..device import Placed
from ..filters import match_colour, only, sharpen
from ..geometry import chance, uniform, warp_elastic
from .base import Fakes, Reals
from .masks import draw_masks

GROUP: Final = 4
"""Faces that share a decoder in a varied batch: fewer cost more calls."""
_SHRINKS: Final = ("area", "bilinear", "bicubic")
_ENLARGES: Final = ("bilinear", "bicubic")


class DecoderBank:
    """Autoencoders to draw from.

    Args:
        nets: images in -1..1 to the same; any side that is a multiple of 4.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        self.nets = tuple(Placed(net.eval().requires_grad_(False)) for net in nets)

    def alike(self, images: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Images (B, 3, S, S) in 0..1 by one net at one side, and that side."""
        side = images.shape[-1]
        inner_side = int(torch.randint(max(12, side // 8), side // 4 + 1, (1,), generator=generator)) * 4
        return reconstruct(self._net(images, generator), images, inner_side), [inner_side]

    def varied(self, images: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Images (B, 3, S, S) in 0..1, every `GROUP` of them in its own way, and the sides.

        Each gets a net, its weights disturbed a little, a side up to 1.5 times the picture's, a way of resizing and,
        sometimes, a bent face: a detector that cannot learn a few decoders by heart has to learn what decoders share.
        """
        parts = [self._varied(part, generator) for part in torch.split(images, GROUP)]
        return torch.cat([part for part, _ in parts]), [inner_side for _, inner_side in parts]

    def _varied(self, images: Tensor, generator: Generator) -> tuple[Tensor, int]:
        net, side = self._net(images, generator), images.shape[-1]
        inner_side = int(torch.randint(max(12, side // 8), side * 3 // 8 + 1, (1,), generator=generator)) * 4
        down, up = (modes[int(torch.randint(len(modes), (1,), generator=generator))] for modes in (_SHRINKS, _ENLARGES))
        bent = only(
            images,
            chance(len(images), 0.4, generator),
            lambda x: warp_elastic(x, sigma=uniform((len(x),), 0.002, 0.012, generator), cells=6, generator=generator),
        )
        noise = float(uniform((1,), 0.0, 0.06, generator)) * float(torch.rand(1, generator=generator) < 0.7)
        return reconstruct(_disturbed(net, noise, generator), bent, inner_side, down=down, up=up), inner_side

    def _net(self, images: Tensor, generator: Generator) -> nn.Module:
        return self.nets[int(torch.randint(len(self.nets), (1,), generator=generator))].on(images.device)


class DecoderBlend:
    """A reconstruction pasted through a mask or, for a share, left as the whole picture.

    Args:
        nets: as `DecoderBank` takes them.
        whole_share: share of fakes without a mask (talking heads and generated portraits).
        family: name in the recipe.
        varied: reconstruct as `DecoderBank.varied` does, and leave up to 80 % of the real picture's detail, not 50.
    """

    def __init__(self, nets: Sequence[nn.Module], *, whole_share: float, family: str = "decoder_blend", varied: bool = False) -> None:
        bank = DecoderBank(nets)
        self._reconstruct = bank.varied if varied else bank.alike
        self._most_detail = 0.8 if varied else 0.5
        self.whole_share = whole_share
        self.family = family

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        batch, side = len(reals), reals.images.shape[-1]
        inner, inner_sides = self._reconstruct(reals.images, generator)
        # A reconstruction with a visible colour cast would be found by colour alone.
        whole_image = torch.ones_like(inner[:, :1])
        inner = match_colour(inner, reals.images, whole_image, uniform((batch,), 0.7, 1.0, generator))
        detail = uniform((batch,), 0.0, self._most_detail, generator)[:, None, None, None]
        inner = (inner + detail * (reals.images - inner)).clamp(0, 1)
        inner = only(inner, chance(batch, 0.3, generator), lambda x: sharpen(x, uniform((len(x),), 0.3, 1.5, generator)))
        masks = draw_masks(reals.landmarks, side, generator)
        whole = chance(batch, self.whole_share, generator)[:, None, None, None]
        masks = torch.where(whole, torch.ones_like(masks), masks)
        m = masks
        fake = (m * inner + (1 - m) * reals.images).clamp(0, 1)
        return Fakes(fake, m, reals.images, {"family": self.family, "inner_side": inner_sides})


def reconstruct(net: Callable[[Tensor], Tensor], images: Tensor, inner_side: int, *, down: str = "area", up: str = "bilinear") -> Tensor:
    """Pass images in 0..1 through an autoencoder that works at `inner_side` pixels.

    Args:
        net: the autoencoder, images in -1..1 to the same.
        images: (B, 3, S, S).
        inner_side: multiple of 4.
        down: interpolation towards a smaller picture, on the way in or out.
        up: towards a larger one.
    """
    side = images.shape[-1]
    small = _resize(images, inner_side, down if inner_side < side else up)
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16):
        out = net(2 * small - 1)
    out = ((out.float() + 1) / 2).clamp(0, 1)
    return _resize(out, side, down if side < inner_side else up)


def _resize(images: Tensor, side: int, mode: str) -> Tensor:
    if images.shape[-1] == side:
        return images
    smooth = {} if mode == "area" else {"align_corners": False, "antialias": side < images.shape[-1]}
    return fn.interpolate(images, size=(side, side), mode=mode, **smooth).clamp(0, 1)


def _disturbed(net: nn.Module, noise: float, generator: Generator) -> nn.Module:
    """A copy whose weights are a share `noise` (standard deviation) off; the net itself serves other batches meanwhile."""
    other = copy.deepcopy(net)
    for weights in other.parameters():
        weights.mul_(1 + noise * torch.randn(weights.shape, generator=generator))
    return other
