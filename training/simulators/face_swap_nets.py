"""The nets of the face-swap study: one encoder, a decoder with a mask per identity, a patch discriminator per identity.

The layout follows the study's description (shared encoder, image and mask, two discriminators); own implementation.
Training fakes only: nothing outside `training` may import this.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as fn
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Every place looks at every other; starts as the identity (one learned scale at 0)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        query, key, value = (layer(x_BCHW).flatten(2).transpose(1, 2).contiguous() for layer in (self.query, self.key, self.value))
        # Zeros change no product, and equal widths let torch take its fused kernel: a 64 x 64 map has 4,096 places.
        query, key = (fn.pad(part, (0, channels - part.shape[-1])) for part in (query, key))
        # The published attention has no 1/sqrt(d): its logits stay as they are.
        seen = fn.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
        return x_BCHW + self.scale * seen.transpose(1, 2).reshape(batch, channels, height, width)


class Upscale(nn.Module):
    """Doubles the side: convolution and pixel shuffle, or with `lite` nearest and convolution."""

    def __init__(self, before: int, after: int, *, lite: bool) -> None:
        super().__init__()
        self.lite = lite
        width = after if lite else 4 * after
        self.conv = nn.Conv2d(before, width, 3, padding=1, padding_mode="reflect" if lite else "zeros")
        self.norm = nn.InstanceNorm2d(width, affine=True)
        if not lite:
            _start_as_nearest(self.conv)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.lite:
            return cast("Tensor", self.norm(self.conv(fn.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))))
        return fn.pixel_shuffle(self.norm(fn.leaky_relu(self.conv(x_BCHW), 0.2)), 2)


class Encoder(nn.Module):
    """Shared by both identities. `x_BCHW` (B, 3, S, S) in -1..1, S 64, 128 or 256, to (B, 8 base, 8, 8)."""

    def __init__(self, size_px: int = 64, base: int = 64, *, lite: bool = False) -> None:
        super().__init__()
        top = 8 * base if lite else 16 * base
        layers: list[nn.Module] = [nn.Conv2d(3, base, 5, padding=2, bias=False), *_down(base, 2 * base, norm=False)]
        layers += [*_down(2 * base, 4 * base), SelfAttention(4 * base), *_down(4 * base, 8 * base), SelfAttention(8 * base)]
        layers += _down(8 * base, top)
        side = size_px // 16
        while side > 4:
            layers += _down(top, top)
            side //= 2
        hidden = (32 * base if size_px == 64 else 64 * base) if lite else 16 * base
        self.features = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(16 * top, hidden), nn.Linear(hidden, 16 * top), nn.Unflatten(1, (top, 4, 4)))
        self.up = Upscale(top, 8 * base, lite=lite)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.up(self.dense(self.features(x_BCHW))))


class Decoder(nn.Module):
    """One identity: code (B, 8 base, 8, 8) to a face (B, 3, S, S) in -1..1, its mask (B, 1, S, S) in 0..1 and smaller faces."""

    def __init__(self, size_px: int = 64, base: int = 64, *, lite: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Upscale(8 * base, 4 * base, lite=lite),
            Upscale(4 * base, 2 * base, lite=lite),
            SelfAttention(2 * base),
            Upscale(2 * base, base, lite=lite),
            _Residual(base),
            SelfAttention(base),
        )
        self.sides = nn.ModuleList()
        self.growth = nn.ModuleList()
        side = 64
        while side < size_px:
            self.sides.append(nn.Conv2d(base, 3, 5, padding=2))
            self.growth.append(nn.Sequential(Upscale(base, base, lite=lite), nn.Conv2d(base, base, 3, padding=1, bias=False), nn.ReLU()))
            side *= 2
        self.alpha = nn.Conv2d(base, 1, 5, padding=2)
        self.rgb = nn.Conv2d(base, 3, 5, padding=2)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        x = self.body(code)
        smaller = []
        for side, grow in zip(self.sides, self.growth, strict=True):
            smaller.append(torch.tanh(side(x)))
            x = grow(x)
        return torch.tanh(self.rgb(x)), torch.sigmoid(self.alpha(x)), smaller


class Discriminator(nn.Module):
    """[image, warped input] (B, 6, S, S) to a map of realness (B, 1, 8, 8)."""

    def __init__(self, size_px: int = 64, base: int = 64) -> None:
        super().__init__()
        layers = [*_judge(6, base, norm=False), *_judge(base, 2 * base), *_judge(2 * base, 4 * base), SelfAttention(4 * base)]
        side = size_px // 8
        while side > 8:
            layers += [*_judge(4 * base, 4 * base), SelfAttention(4 * base)]
            side //= 2
        self.layers = nn.Sequential(*layers, nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(4 * base, 1, 4, bias=False))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.layers(x_BCHW))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return fn.leaky_relu(x_BCHW + self.second(fn.leaky_relu(self.first(x_BCHW), 0.2)), 0.2)


def _down(before: int, after: int, *, norm: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, 2, padding=1, bias=False), nn.ReLU()]
    return [*layers, nn.InstanceNorm2d(after, affine=True)] if norm else layers


def _judge(before: int, after: int, *, norm: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 4, 2, padding=1, bias=False), nn.LeakyReLU(0.2)]
    return [*layers, nn.InstanceNorm2d(after, affine=True)] if norm else layers


def _start_as_nearest(conv: nn.Conv2d) -> None:
    """The four channels that a pixel shuffle lays side by side start equal: no checkerboard at the start (Aitken et al. 2017)."""
    with torch.no_grad():
        kernel = torch.empty(conv.out_channels // 4, *conv.weight.shape[1:])
        nn.init.kaiming_normal_(kernel)
        conv.weight.copy_(kernel.repeat_interleave(4, 0))
