"""Detector name in a bundle's card -> the class that scores with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..bundle import Bundle
from ..errors import BundleMismatchError
from .base import Detector
from .crop_net import CropNetDetector

DETECTORS: Final[dict[str, Callable[..., Detector]]] = {
    "blend": CropNetDetector,
    "autogan": CropNetDetector,
    "synthesis": CropNetDetector,
    "xception": CropNetDetector,
    "embedding_svm": CropNetDetector,
}
"""One class serves all whose score is one net over one crop; a detector of another kind adds a row and a file."""


def load_detector(bundle: Bundle, *, device: str = "cpu") -> Detector:
    """Load the detector that a bundle's card names.

    Raises:
        BundleMismatchError: the name is unknown.
        BundleError: the weights are missing, changed or do not fit.
    """
    if bundle.detector not in DETECTORS:
        raise BundleMismatchError(f"bundle {bundle.name} wants detector {bundle.detector!r}; known: {', '.join(sorted(DETECTORS))}")
    return DETECTORS[bundle.detector](bundle, device=device)
