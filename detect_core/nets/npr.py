"""Expert B's net: what an upsampling step leaves between neighbouring pixels (idea of Tan et al. 2024, NPR), own construction."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as fn
from torch import Tensor, nn


class NprResNet(nn.Module):
    """Residual against its own nearest-neighbour halving, then the first two stages of a bottleneck ResNet.

    `x_BCHW` float (B, 3, S, S) in -1..1, cut at native scale: any resizing destroys the cue. 1,437,761 parameters at
    width 64, 362,529 at 32.

    Args:
        width: channels of the stem.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        from torchvision.models.resnet import Bottleneck

        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
        )

        def stage(before: int, planes: int, count: int, stride: int) -> nn.Sequential:
            after = planes * 4
            skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            return nn.Sequential(Bottleneck(before, planes, stride, skip), *(Bottleneck(after, planes) for _ in range(count - 1)))

        self.stages = nn.Sequential(stage(width, width, 3, 1), stage(4 * width, 2 * width, 4, 2))
        self.head = nn.Linear(8 * width, 1)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 8 * width)."""
        height, breadth = (side // 2 * 2 for side in x_BCHW.shape[-2:])
        even = x_BCHW[:, :, :height, :breadth]
        residual = even - fn.interpolate(even[:, :, ::2, ::2], scale_factor=2.0, mode="nearest")
        return cast("Tensor", self.stages(self.stem(residual * (2 / 3))).mean(dim=(2, 3)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))
