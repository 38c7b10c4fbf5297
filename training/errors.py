"""Errors of the training package, on the one tree of detect_core."""

from __future__ import annotations

from detect_core.errors import DetectCoreError


class TrainingError(DetectCoreError):
    """Base of everything that training raises on purpose."""

    code = "TRAINING_ERROR"


class DataError(TrainingError, ValueError):
    """Raised when the data cannot be trained on: missing, broken, one class only, empty."""


class LeakError(DataError):
    """Raised when a group, a file or a near-duplicate stands in more than one split."""


class DivergedError(TrainingError):
    """Raised when a loss is not finite; the run stops instead of exporting noise."""


class CheckpointError(TrainingError):
    """Raised when a checkpoint belongs to another run or cannot be read."""


class OutOfMemoryError(TrainingError):
    """Raised when a run needs more memory than there is; says what to lower."""


class TimeBoxError(TrainingError):
    """Raised when a run is stopped because its time is used up; it can be continued from its folder."""


class ConfigError(TrainingError, ValueError):
    """Raised when a recipe, preset or option does not exist or has the wrong type."""
