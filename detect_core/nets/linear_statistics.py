"""A line through standardised statistics: the scoring half of detectors whose evidence is measured, not learned."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class LinearStatistics(nn.Module):
    """`x_BF` float (B, num_features) statistics to logits (B,).

    Args:
        num_features: how many statistics.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.head = nn.Linear(num_features, 1)

    def embed(self, x_BF: Tensor) -> Tensor:
        """Standardised statistics, cut at 4 deviations: what lies further out was never seen."""
        return ((x_BF - self.mean) / self.scale).clamp(-4, 4)

    def forward(self, x_BF: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BF)).squeeze(1))
