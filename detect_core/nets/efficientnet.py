"""EfficientNet-B4 (Tan and Le 2019) through timm's `tf_efficientnet_b4`, always without downloaded weights."""

from __future__ import annotations

from typing import Any, cast

import timm
from torch import Tensor, nn


class EfficientNetB4(nn.Module):
    """`x_BCHW` float (B, 3, S, S), S 380 as published, to logits (B,). 17,550,409 parameters.

    Args:
        drop_rate: dropout in front of the logit, in training mode only.
    """

    def __init__(self, drop_rate: float = 0.4) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model("tf_efficientnet_b4", pretrained=False, num_classes=1, drop_rate=drop_rate)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 1792)."""
        return cast("Tensor", self.backbone.forward_head(self.backbone.forward_features(x_BCHW), pre_logits=True))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.backbone(x_BCHW).squeeze(1))
