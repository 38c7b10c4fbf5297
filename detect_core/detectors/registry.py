"""Detector name in a bundle's card -> the class that scores with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..bundle import Bundle
from ..errors import BundleMismatchError
from .base import Detector
from .crop_net import CropNetDetector
from .runtime import PrecisionWish
from .temporal import TemporalDetector

DETECTORS: Final[dict[str, Callable[..., Detector]]] = {
    "blend": CropNetDetector,
    "autogan": CropNetDetector,
    "synthesis": CropNetDetector,
    "xception": CropNetDetector,
    "embedding_svm": CropNetDetector,
}
"""One class serves all whose score is one net over one crop; a detector of another kind adds a row and a file."""
TRACK_DETECTORS: Final = {"temporal": TemporalDetector}
"""Detectors that look at all crops of a track together."""


def is_track_bundle(bundle: Bundle) -> bool:
    """Whether a bundle's detector scores tracks, not single crops."""
    return bundle.detector in TRACK_DETECTORS


def load_track_detector(bundle: Bundle) -> TemporalDetector:
    """Load a detector of tracks; it runs on the CPU.

    Raises:
        BundleMismatchError: the bundle's detector scores single crops, or is unknown.
        BundleError: the weights are missing, changed or do not fit.
    """
    if not is_track_bundle(bundle):
        raise BundleMismatchError(f"bundle {bundle.name} wants detector {bundle.detector!r}; known of tracks: {', '.join(TRACK_DETECTORS)}")
    return TRACK_DETECTORS[bundle.detector](bundle)


def load_detector(bundle: Bundle, *, device: str = "cpu", precision: PrecisionWish = "fp32", compiled: bool = False) -> Detector:
    """Load the detector that a bundle's card names.

    Args:
        bundle: a verified bundle.
        device: torch device.
        precision: fp32 as it was calibrated in; `auto` takes bf16 where that is faster and the scores hold.
        compiled: let TorchInductor compile the net.

    Raises:
        BundleMismatchError: the name is unknown.
        BundleError: the weights are missing, changed or do not fit.
    """
    if bundle.detector not in DETECTORS:
        raise BundleMismatchError(f"bundle {bundle.name} wants detector {bundle.detector!r}; known: {', '.join(sorted(DETECTORS))}")
    return DETECTORS[bundle.detector](bundle, device=device, precision=precision, compiled=compiled)
