"""MiniXception: a small Xception-style net with an optional blend-mask head (expert A).

Separable residual blocks after Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions";
the mask head follows the idea of Li et al. 2020, "Face X-ray", to predict where two images were blended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class SeparableBlock(nn.Module):
    """Pre-activation block: `repeats` x [ReLU, depthwise 3x3, pointwise 1x1, BN] with a skip, optionally halving H and W."""

    def __init__(self, in_channels: int, out_channels: int, *, repeats: int, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for _ in range(repeats):
            layers += [
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            ]
            channels = out_channels
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.body = nn.Sequential(*layers)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.skip = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.body(x_BCHW) + self.skip(x_BCHW))


class MiniXception(nn.Module):
    """Expert A. `x_BCHW` float (B, 3, S, S), S a multiple of 16, to logits (B,).

    Args:
        widths: channels of stem 1, stem 2 and the four stages.
        num_middle: stride-1 blocks between the second and the last stage.
        middle_repeats: separable convolutions in each of them.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 192, 192, 256), num_middle: int = 3, middle_repeats: int = 3) -> None:
        super().__init__()
        stem1, stem2, stage1, stage2, middle, last = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem1, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(stem1),
            nn.ReLU(),
            nn.Conv2d(stem1, stem2, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem2),
            nn.ReLU(),
        )
        self.entry = nn.Sequential(
            SeparableBlock(stem2, stage1, repeats=2, stride=2),
            SeparableBlock(stage1, stage2, repeats=2, stride=2),
        )
        blocks = [SeparableBlock(stage2 if i == 0 else middle, middle, repeats=middle_repeats, stride=1) for i in range(num_middle)]
        self.middle = nn.Sequential(*blocks)
        self.exit = SeparableBlock(middle, last, repeats=2, stride=2)
        self.head = nn.Linear(last, 1)
        self.mask_head = nn.Conv2d(middle, 1, 1)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The map at 1/8 of the input's side, (B, middle, S/8, S/8)."""
        return cast("Tensor", self.middle(self.entry(self.stem(x_BCHW))))

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, last)."""
        return self._pool(self.features(x_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))

    def forward_with_mask(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,) and blend-mask logits (B, S/8, S/8)."""
        features = self.features(x_BCHW)
        return self.head(self._pool(features)).squeeze(1), self.mask_head(features).squeeze(1)

    def _pool(self, features: Tensor) -> Tensor:
        return torch.relu(self.exit(features)).mean(dim=(2, 3))
