"""AlexNet (Krizhevsky et al. 2012) for 64 px faces and in torchvision's layout for 224 px, one logit."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class AlexNet64(nn.Module):
    """`x_BCHW` float (B, 3, 64, 64) to logits (B,). 28,677,953 parameters."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 5, 2, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Flatten(),
        )
        self.hidden = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2304, 4096), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU()
        )
        self.head = nn.Linear(4096, 1)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 4096)."""
        return cast("Tensor", self.hidden(self.features(x_BCHW)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))


class AlexNet224(nn.Module):
    """`x_BCHW` float (B, 3, 224, 224) to logits (B,). 57,007,937 parameters."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        from torchvision.models import alexnet

        backbone = alexnet(weights=None, num_classes=1, dropout=dropout)
        self.features = nn.Sequential(backbone.features, backbone.avgpool, nn.Flatten())
        *hidden, last = backbone.classifier
        self.hidden = nn.Sequential(*hidden)
        self.head = last

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 4096)."""
        return cast("Tensor", self.hidden(self.features(x_BCHW)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))
