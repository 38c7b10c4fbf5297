"""Detectors score face crops: real or fake. A net, its weights, its preprocessing and its temperature together."""

from .base import Detector
from .registry import load_detector
from .runtime import Precision, PrecisionWish

__all__ = ["Detector", "Precision", "PrecisionWish", "load_detector"]
