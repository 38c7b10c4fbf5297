"""Detectors score face crops: real or fake. A net, its weights, its preprocessing and its temperature together."""

from .base import Detector
from .registry import is_track_bundle, load_detector, load_track_detector
from .runtime import Precision, PrecisionWish

__all__ = ["Detector", "Precision", "PrecisionWish", "is_track_bundle", "load_detector", "load_track_detector"]
