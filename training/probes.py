"""Probes for shortcuts: can the label be told from what is not the face? Run them on a data set before believing any AUC.

The file probe looks at suffix, size and quality only; the codec swap re-encodes both classes alike and crossed. Peers
were caught by both: real jpg against fake png, and detectors that lost everything after one JPEG.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .errors import DataError
from .metrics import auc

MAX_FILE_AUC: Final = 0.55
MAX_CODEC_DROP: Final = 0.03
Scorer = Callable[[Tensor], ArrayLike]
"""Images (N, 3, S, S) in 0..1 to N scores."""


@dataclass(frozen=True, slots=True)
class CodecSwap:
    """AUC as given, with both classes re-encoded alike, and crossed (reals lossless, fakes JPEG 75)."""

    as_given: float
    alike: float
    crossed: float

    @property
    def passed(self) -> bool:
        """Whether the scores stand on more than the codec."""
        return max(self.as_given - self.alike, self.as_given - self.crossed) < MAX_CODEC_DROP


def codec_swap(score: Scorer, reals: Tensor, fakes: Tensor) -> CodecSwap:
    """Measure a detector on the same faces in other files.

    Args:
        score: the detector.
        reals: (N, 3, S, S) in 0..1.
        fakes: (M, 3, S, S).
    """
    labels = [0] * len(reals) + [1] * len(fakes)

    def measured(first: Tensor, second: Tensor) -> float:
        return auc(np.concatenate([np.asarray(score(first), np.float64), np.asarray(score(second), np.float64)]), labels)

    return CodecSwap(as_given=measured(reals, fakes), alike=measured(_jpeg(reals), _jpeg(fakes)), crossed=measured(reals, _jpeg(fakes)))


def file_features(files: Sequence[Path]) -> NDArray[np.float64]:
    """What a file says without its picture: (N, 6) suffix is lossless, log bytes, width, height, bytes per pixel, blockiness.

    Raises:
        DataError: a file is not a readable picture.
    """
    rows = []
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise DataError(f"{file}: not a readable picture; the probe looks at stills only")
        height, width = image.shape
        size = file.stat().st_size
        lossless = float(file.suffix.lower() in (".png", ".bmp", ".webp"))
        rows.append([lossless, np.log(size), width, height, size / (width * height), blockiness(np.asarray(image, np.float64))])
    return np.array(rows, np.float64)


def blockiness(grey: NDArray[np.float64]) -> float:
    """Mean step across the borders of 8x8 blocks over the mean step elsewhere; 1 for an untouched picture."""
    across = np.abs(np.diff(grey, axis=1))
    border = across[:, 7::8]
    inner = np.delete(across, np.s_[7::8], axis=1)
    return float((border.mean() + 1e-3) / (inner.mean() + 1e-3)) if border.size and inner.size else 1.0


def probe_auc(features: NDArray[np.float64], labels: Sequence[int], groups: Sequence[str], *, folds: int = 5) -> float:
    """AUC of a logistic model on such features, cross-validated with whole groups left out; about .5 when they say nothing.

    Raises:
        DataError: a class is missing, or there are fewer groups than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(labels)) < 2 or len(set(groups)) < folds:
        raise DataError(f"the probe needs both classes and at least {folds} groups, got {len(set(labels))} and {len(set(groups))}")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    out = cross_val_predict(model, features, np.asarray(labels), groups=groups, cv=GroupKFold(folds), method="decision_function")
    return auc(out, labels)


def _jpeg(images: Tensor, quality: int = 75) -> Tensor:
    """Through a true JPEG file, in memory."""
    out = []
    for image in (images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).numpy():
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        out.append(torch.from_numpy(np.ascontiguousarray(decoded)))
    return torch.stack(out).permute(0, 3, 1, 2).float() / 255
