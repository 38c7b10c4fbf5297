"""EfficientNet-Lite0 with a blend-mask head: the depthwise net of Tan and Le 2019, "EfficientNet", in its variant for plain hardware.

Lite means no squeeze-and-excitation and ReLU6 in place of swish (M. Tan, Google, 2020). Every stage but the classifier's
1x1 convolution is there, in the published order and shapes, so that published weights fit. Strided convolutions pad both
sides alike: inside the picture that is the published net on a picture moved by a pixel. The mask head follows Li et al.
2020, "Face X-ray".
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn

_STEM: Final = 32
_STAGES: Final = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_NUM_UNTIL_MASK: Final = 5
"""Stages up to the map at 1/16 of the side, which the mask head reads."""
_BN_EPS: Final = 1e-3


class MobileBlock(nn.Module):
    """Inverted residual: widen by 1x1, filter each channel, narrow by 1x1; with a skip where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(in_channels, wide, 1, bias=False), nn.BatchNorm2d(wide, eps=_BN_EPS), nn.ReLU6()]
        layers += [
            nn.Conv2d(wide, wide, kernel, stride, padding=kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide, eps=_BN_EPS),
            nn.ReLU6(),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=_BN_EPS),
        ]
        self.body = nn.Sequential(*layers)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.body(x_BCHW)
        return cast("Tensor", y_BCHW + x_BCHW if self.has_skip else y_BCHW)


class EfficientNetLite0(nn.Module):
    """`x_BCHW` float (B, 3, S, S) in -1..1, S a multiple of 32, to logits (B,). 2,959,602 parameters, 0.19 GMAC at 160 px."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(3, _STEM, 3, 2, padding=1, bias=False), nn.BatchNorm2d(_STEM, eps=_BN_EPS), nn.ReLU6())
        ]
        channels, at_mask = _STEM, 0
        for number, (repeats, kernel, stride, expansion, width) in enumerate(_STAGES):
            for i in range(repeats):
                layers.append(MobileBlock(channels, width, kernel=kernel, stride=stride if i == 0 else 1, expansion=expansion))
                channels = width
            if number + 1 == _NUM_UNTIL_MASK:
                at_mask = len(layers)
                self.mask_head = nn.Conv2d(width, 1, 1)
        self.early = nn.Sequential(*layers[:at_mask])
        self.late = nn.Sequential(*layers[at_mask:])
        self.head = nn.Linear(2 * channels, 1)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 640): mean and maximum over positions, so that small regions count."""
        return self._pool(self.early(x_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))

    def forward_with_mask(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,) and blend-mask logits (B, S/16, S/16)."""
        features = self.early(x_BCHW)
        return self.head(self._pool(features)).squeeze(1), self.mask_head(features).squeeze(1)

    def _pool(self, features: Tensor) -> Tensor:
        maps = self.late(features)
        return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
