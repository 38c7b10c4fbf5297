"""The small custom nets of the studies: cnn5, cnn6, the AutoGAN study's CNN, the Xception study's CNN, Meso4, MesoInception4.

Meso4 and MesoInception4 after Afchar et al. 2018. Every layer object is used once: some originals share one batch
norm between two convolutions, which mixes their statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn


class SmallNet(nn.Module):
    """`features` to a vector, `head` to one logit per image."""

    def __init__(self, features: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.head = head

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector."""
        return cast("Tensor", self.features(x_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))


class GlobalMean(nn.Module):
    """(B, C, H, W) to (B, C)."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean(dim=(2, 3))


class Cnn5(SmallNet):
    """Embedding study: norm, then blocks of [Conv3, ReLU, MaxPool2, BN, Dropout .1 from the second]. `x` (B, 3, 224, 224) in 0..1.

    393,863 learned parameters with five blocks, 1,575,303 with six.
    """

    def __init__(self, num_blocks: int = 5) -> None:
        layers: list[nn.Module] = [nn.BatchNorm2d(3, eps=1e-3)]
        channels = 3
        for i in range(num_blocks):
            width = 16 * 2**i
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(width, eps=1e-3)]
            if i > 0:
                layers.append(nn.Dropout(0.1))
            channels = width
        super().__init__([*layers, GlobalMean()], nn.Linear(channels, 1))


class Cnn6(Cnn5):
    """`Cnn5` with six blocks."""

    def __init__(self) -> None:
        super().__init__(num_blocks=6)


class Reused(nn.Module):
    """Runs a module that stands elsewhere in the net, and owns nothing."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self._other = (other,)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self._other[0](x_BCHW))


class CnnS0(SmallNet):
    """AutoGAN study's CNN, `x` (B, 3, 64, 64): Conv7 and Conv3 of 16 channels.

    16,417 parameters; 28,082 with two outputs as in the study, and 28,050 with its shared norm as well.

    Args:
        outputs: 1, or 2 as the study had; the second minus the first is the logit then.
        legacy_shared_bn: one batch norm after both convolutions, the study's defect, for study only: its running
            statistics are a mixture that fits neither, so that the net in use is another one than in training.
    """

    def __init__(self, outputs: Literal[1, 2] = 1, legacy_shared_bn: bool = False) -> None:
        norm = nn.BatchNorm2d(16)
        layers = [
            nn.Conv2d(3, 16, 7),
            norm,
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3),
            Reused(norm) if legacy_shared_bn else nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.25),
        ]
        super().__init__(layers, nn.Linear(16 * 27 * 27, outputs))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.head(self.embed(x_BCHW))
        return out[:, 0] if out.shape[1] == 1 else out[:, 1] - out[:, 0]


class CnnS4(SmallNet):
    """Xception study's baseline. As published it diverges (46,114,433 parameters at 224 px, valid padding).

    Args:
        fixed: batch norm after each convolution and global pooling in place of the flat 359,552-vector (108,545 parameters).
        size_px: side of the input; decides the size of the published flat layer.
    """

    def __init__(self, fixed: bool = False, size_px: int = 224) -> None:
        def conv(before: int, after: int, kernel: int) -> list[nn.Module]:
            norm: list[nn.Module] = [nn.BatchNorm2d(after)] if fixed else []
            return [nn.Conv2d(before, after, kernel), *norm, nn.ReLU(), nn.MaxPool2d(2)]

        side = ((size_px - 6) // 2 - 2) // 2
        flat: list[nn.Module] = [GlobalMean()] if fixed else [nn.Flatten()]
        width = 128 if fixed else 128 * side * side
        dense = [nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.5)]
        super().__init__([*conv(3, 64, 7), *conv(64, 128, 3), *flat, *dense], nn.Linear(64, 1))


class Meso4(SmallNet):
    """Afchar et al. 2018, `x` (B, 3, S, S) in 0..1. 27,977 parameters at 256 px, 15,689 at 128 px."""

    def __init__(self, size_px: int = 256) -> None:
        layers: list[nn.Module] = []
        for before, after, kernel, pool in ((3, 8, 3, 2), (8, 8, 5, 2), (8, 16, 5, 2), (16, 16, 5, 4)):
            layers += [
                nn.Conv2d(before, after, kernel, padding=kernel // 2),
                nn.ReLU(),
                nn.BatchNorm2d(after, eps=1e-3),
                nn.MaxPool2d(pool),
            ]
        super().__init__([*layers, nn.Flatten()], _meso_head(16 * (size_px // 32) ** 2))


class Inception(nn.Module):
    """1x1, 3x3 and two dilated 3x3 branches side by side, ReLU after every convolution."""

    def __init__(self, in_channels: int, a: int, b: int, c: int, d: int) -> None:
        super().__init__()

        def branch(width: int, dilation: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(in_channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), nn.ReLU()
            )

        self.one = nn.Sequential(nn.Conv2d(in_channels, a, 1), nn.ReLU())
        self.two, self.three, self.four = branch(b, 1), branch(c, 2), branch(d, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([self.one(x_BCHW), self.two(x_BCHW), self.three(x_BCHW), self.four(x_BCHW)], dim=1)


class MesoInception4(SmallNet):
    """Afchar et al. 2018, `x` (B, 3, S, S) in 0..1. 28,615 parameters at 256 px."""

    def __init__(self, size_px: int = 256) -> None:
        layers: list[nn.Module] = [Inception(3, 1, 4, 4, 2), nn.BatchNorm2d(11, eps=1e-3), nn.MaxPool2d(2)]
        layers += [Inception(11, 2, 4, 4, 2), nn.BatchNorm2d(12, eps=1e-3), nn.MaxPool2d(2)]
        for before, after, pool in ((12, 16, 2), (16, 16, 4)):
            layers += [nn.Conv2d(before, after, 5, padding=2), nn.ReLU(), nn.BatchNorm2d(after, eps=1e-3), nn.MaxPool2d(pool)]
        super().__init__([*layers, nn.Flatten()], _meso_head(16 * (size_px // 32) ** 2))


def _meso_head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(width, 16), nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Linear(16, 1))
