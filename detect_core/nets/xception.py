"""Xception (Chollet 2017) through timm's `legacy_xception`, always without downloaded weights."""

from __future__ import annotations

from typing import Any, cast

import timm
from torch import Tensor, nn


class Xception(nn.Module):
    """The heavy tier. `x_BCHW` float (B, 3, S, S), S 224 or 299, mean = std = 0.5, to logits (B,). 20,809,001 parameters.

    Args:
        drop_rate: dropout before the last linear layer, in training mode only.
    """

    def __init__(self, drop_rate: float = 0.5) -> None:
        super().__init__()
        self.backbone = timm.create_model("legacy_xception", pretrained=False, num_classes=1, drop_rate=drop_rate)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 2048)."""
        backbone: Any = self.backbone
        return cast("Tensor", backbone.forward_head(backbone.forward_features(x_BCHW), pre_logits=True))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.backbone(x_BCHW).squeeze(1))
