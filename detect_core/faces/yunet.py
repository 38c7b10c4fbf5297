"""YuNet through OpenCV, for who has its model file: several times cheaper than MTCNN on a CPU.

Wu, Peng, Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector". The model file is not part of any dependency; the
user gives its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .detect import FoundFace

_LEAST_SCORE: Final = 0.6
_MAX_FACES: Final = 300
_MIN_OVERLAP: Final = 0.3
"""Least overlap with an expected box that counts as the face that was expected."""


class YunetFaceDetector:
    """The `FaceDetector` of a YuNet ONNX file. Owned by one thread."""

    def __init__(self, model: Path | str) -> None:
        """Load the model.

        Raises:
            OptionError: the file is missing or OpenCV cannot read it as YuNet.
        """
        path = Path(model)
        self.name = f"yunet/{path.stem}"
        if not path.is_file():
            raise OptionError(f"tried to load the face detector {path}: no such file; give the path of a YuNet ONNX file")
        try:
            self._net: Any = cv2.FaceDetectorYN.create(str(path), "", (320, 320), _LEAST_SCORE, 0.3, _MAX_FACES)
        except cv2.error as err:
            raise OptionError(f"tried to load the face detector {path}: OpenCV cannot read it ({err.err}); give a YuNet ONNX file") from err

    def find(self, images: Sequence[NDArray[np.uint8]], *, min_face_px: float) -> list[list[FoundFace]]:
        return [[face for face in self._find(image) if _side(face.xyxy) >= min_face_px] for image in images]

    def refine(self, items: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> list[list[FoundFace | None]]:
        """The whole search again: at its price there is nothing to save by looking at expected places only."""
        return [[_nearest(found, box) for box in expected] for found, expected in ((self._find(image), boxes) for image, boxes in items)]

    def _find(self, image_hwc: NDArray[np.uint8]) -> list[FoundFace]:
        height, width = image_hwc.shape[:2]
        self._net.setInputSize((width, height))
        _status, rows = self._net.detect(cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR))
        return [_face(np.asarray(row, np.float32)) for row in (rows if rows is not None else ())]


def _face(row: NDArray[np.float32]) -> FoundFace:
    """One row of OpenCV: x, y, w, h, five points (the eye, mouth corner left in the picture first), score."""
    x, y, width, height = row[:4]
    return FoundFace(
        xyxy=np.array([x, y, x + width, y + height], np.float32), landmarks=row[4:14].reshape(5, 2).copy(), confidence=float(row[14])
    )


def _side(xyxy: NDArray[np.float32]) -> float:
    return float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]))


def _nearest(found: Sequence[FoundFace], expected: NDArray[np.float32]) -> FoundFace | None:
    best = max(found, key=lambda face: _overlap(face.xyxy, expected), default=None)
    return best if best is not None and _overlap(best.xyxy, expected) >= _MIN_OVERLAP else None


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Intersection over union."""
    inner = float(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod())
    return inner / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - inner, 1e-6)
