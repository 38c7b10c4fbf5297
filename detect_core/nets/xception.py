"""Xception (Chollet 2017) through timm's `legacy_xception`, always without downloaded weights."""

from __future__ import annotations

from typing import Any, Self, cast

import timm
from torch import Tensor, nn


class Xception(nn.Module):
    """The heavy tier. `x_BCHW` float (B, 3, S, S), S 224 or 299, mean = std = 0.5, to logits (B,). 20,809,001 parameters.

    Args:
        drop_rate: dropout in front of the last layers, in training mode only.
        dense_width: width of one more dense layer in front of the logit; 0 for none.
    """

    def __init__(self, drop_rate: float = 0.5, dense_width: int = 0) -> None:
        super().__init__()
        backbone: Any = timm.create_model("legacy_xception", pretrained=False, num_classes=1, drop_rate=drop_rate)
        if dense_width:
            backbone.fc = nn.Sequential(nn.Linear(backbone.num_features, dense_width), nn.ReLU(), nn.Linear(dense_width, 1))
        self.backbone = backbone
        self.frozen = False
        """Whether everything in front of the last layers keeps its batch statistics in training mode."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen and mode:
            backbone: Any = self.backbone
            for child in backbone.children():
                child.train(child is backbone.fc)
        return self

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 2048)."""
        backbone: Any = self.backbone
        return cast("Tensor", backbone.forward_head(backbone.forward_features(x_BCHW), pre_logits=True))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.backbone(x_BCHW).squeeze(1))
