"""Polynomial SVM on PCA components of a net's embedding, as plain tensors: no scikit-learn at run time, no pickle.

The embedding study's head: standardise -> PCA -> `f(x) = sum_i a_i (gamma <sv_i, P(x)> + coef0)^degree + b`, then Platt
scaling to a logit. Training fits it with scikit-learn and fills the buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from . import build_net


class PolynomialSvm(nn.Module):
    """(B, dim) embeddings to logits (B,)."""

    mean: Tensor
    scale: Tensor
    pca_mean: Tensor
    components: Tensor
    support_vectors: Tensor
    dual_coef: Tensor
    scalars: Tensor
    """intercept, gamma, coef0, Platt slope and offset, float64."""

    def __init__(self, dim: int, num_components: int, num_support: int, degree: int = 3) -> None:
        super().__init__()
        self.degree = degree
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(dim, dtype=torch.float64))
        self.register_buffer("pca_mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("components", torch.zeros(num_components, dim, dtype=torch.float64))
        self.register_buffer("support_vectors", torch.zeros(num_support, num_components, dtype=torch.float64))
        self.register_buffer("dual_coef", torch.zeros(num_support, dtype=torch.float64))
        self.register_buffer("scalars", torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64))

    def decision(self, embedding_BD: Tensor) -> Tensor:
        """The SVM's decision function (B,), float64."""
        mean, scale, pca_mean, components = (t.double() for t in (self.mean, self.scale, self.pca_mean, self.components))
        projected = ((embedding_BD.double() - mean) / scale - pca_mean) @ components.T
        intercept, gamma, coef0 = self.scalars[:3].double()
        kernel = (gamma * projected @ self.support_vectors.double().T + coef0) ** self.degree
        return cast("Tensor", kernel @ self.dual_coef.double() + intercept)

    def forward(self, embedding_BD: Tensor) -> Tensor:
        slope, offset = self.scalars[3:].double()
        return cast("Tensor", (slope * self.decision(embedding_BD) + offset).to(embedding_BD.dtype))


class EmbeddingSvm(nn.Module):
    """A backbone's embedding scored by a polynomial SVM. `x_BCHW` as the backbone wants it, to logits (B,).

    Args:
        backbone: name in `detect_core.nets`.
        backbone_options: its keyword arguments.
        dim: length of its embedding.
        num_components: of the PCA.
        num_support: support vectors.
        degree: of the polynomial kernel.
    """

    def __init__(
        self,
        backbone: str,
        backbone_options: Mapping[str, Any],
        dim: int,
        num_components: int,
        num_support: int,
        degree: int = 3,
    ) -> None:
        super().__init__()
        self.backbone = build_net(backbone, **backbone_options)
        self.head = PolynomialSvm(dim, num_components, num_support, degree)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """The backbone's last hidden vector (B, dim)."""
        backbone: Any = self.backbone
        return cast("Tensor", backbone.embed(x_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)))
