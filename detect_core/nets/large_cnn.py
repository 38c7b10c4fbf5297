"""The large nets of the embedding study: VGGFace16 and DenseNet-121, both without downloaded weights."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class VggFace16(nn.Module):
    """VGG-16 convolutions and one dense layer (Parkhi et al. 2015 topology). `x` (B, 3, 224, 224). 66,099,009 parameters.

    Args:
        hidden: width of the dense layer, the embedding.
    """

    def __init__(self, hidden: int = 2048) -> None:
        super().__init__()
        from torchvision.models import vgg16

        self.features = vgg16(weights=None).features
        self.hidden = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(7 * 7 * 512, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, 1)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, hidden)."""
        return cast("Tensor", self.hidden(self.features(x_BCHW)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))


class DenseNet121(nn.Module):
    """Huang et al. 2017. `x` (B, 3, 224, 224). 6,954,881 parameters."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import densenet121

        self.features = nn.Sequential(densenet121(weights=None).features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(1024, 1)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 1024)."""
        return cast("Tensor", self.features(x_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))
