"""Fit the embedding study's pipeline on a net's last hidden vectors: StandardScaler -> PCA -> polynomial SVM -> Platt."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detect_core.nets.embedding_svm import PolynomialSvm

from .calibrate import fit_platt
from .errors import DataError

MAX_ROWS: Final = 20_000
"""The cost of an SVM grows with the square of its rows."""


def embeddings_of(net: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Last hidden vectors (N, dim) in eval mode."""
    module: Any = net.eval()
    with torch.inference_mode():
        return torch.cat([module.embed(part) for part in torch.split(images, 64)]).double().numpy()


def fit_svm(
    train: NDArray[np.float64],
    labels: NDArray[np.int64],
    held_out: NDArray[np.float64],
    held_out_labels: NDArray[np.int64],
    *,
    num_components: int = 50,
    degree: int = 3,
    seed: int = 0,
) -> PolynomialSvm:
    """Fit on training embeddings only; Platt parameters on held-out ones.

    Raises:
        DataError: a class is missing.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(set(labels.tolist())) < 2:
        raise DataError("the SVM needs both classes in the training split; add fakes or choose other sources")
    if len(train) > MAX_ROWS:
        keep = np.random.default_rng(seed).permutation(len(train))[:MAX_ROWS]
        train, labels = train[keep], labels[keep]
    scaler = StandardScaler().fit(train)
    scaled = scaler.transform(train)
    pca = PCA(min(num_components, scaled.shape[1], len(scaled) - 1), random_state=seed).fit(scaled)
    projected = pca.transform(scaled)
    variance = float(projected.var())
    gamma = 1 / (projected.shape[1] * variance) if variance > 0 else 1.0
    svc = SVC(kernel="poly", degree=degree, C=1.0, gamma=gamma, coef0=0.0).fit(projected, labels)
    head = PolynomialSvm(scaled.shape[1], projected.shape[1], len(svc.support_), degree)
    head.mean.copy_(torch.from_numpy(scaler.mean_))
    head.scale.copy_(torch.from_numpy(scaler.scale_))
    head.pca_mean.copy_(torch.from_numpy(pca.mean_))
    head.components.copy_(torch.from_numpy(pca.components_))
    head.support_vectors.copy_(torch.from_numpy(svc.support_vectors_))
    head.dual_coef.copy_(torch.from_numpy(svc.dual_coef_[0]))
    head.scalars.copy_(torch.tensor([float(svc.intercept_[0]), gamma, 0.0, 1.0, 0.0], dtype=torch.float64))
    slope, offset = fit_platt(head.decision(torch.from_numpy(held_out)).numpy(), held_out_labels)
    head.scalars[3:] = torch.tensor([slope, offset], dtype=torch.float64)
    return head
