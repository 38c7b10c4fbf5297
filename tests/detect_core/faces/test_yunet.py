"""YuNet behind the face-detector protocol. OpenCV's net is replaced: its model file is no dependency of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detect_core.errors import OptionError
from detect_core.faces.yunet import YunetFaceDetector


class RedSquares:
    """Answers as OpenCV's detector does: one row per picture, around its red pixels (so the channel order shows)."""

    def __init__(self) -> None:
        self.size = (0, 0)

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 - OpenCV's name
        self.size = size

    def detect(self, image_bgr: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert self.size == (image_bgr.shape[1], image_bgr.shape[0])
        ys, xs = np.nonzero((image_bgr[..., 2] > 200) & (image_bgr[..., 0] < 50))
        if not len(xs):
            return 0, None
        box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        return 1, np.array([[*box, *range(10), 0.93]], np.float32)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> YunetFaceDetector:
    model = tmp_path / "face.onnx"
    model.write_bytes(b"weights")

    class Factory:
        @staticmethod
        def create(path: str, *_options: Any) -> RedSquares:
            assert path == str(model)
            return RedSquares()

    monkeypatch.setattr(cv2, "FaceDetectorYN", Factory)
    return YunetFaceDetector(model)


def picture(left: int, top: int, side: int) -> np.ndarray:
    image = np.zeros((120, 200, 3), np.uint8)
    image[top : top + side, left : left + side] = (255, 0, 0)
    return image


def test_boxes_landmarks_and_score_arrive_in_our_order(detector: YunetFaceDetector) -> None:
    (face,), none = detector.find([picture(50, 20, 60), np.zeros((120, 200, 3), np.uint8)], min_face_px=40)

    assert face.xyxy.tolist() == [50, 20, 110, 80]
    assert face.landmarks.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert face.confidence == pytest.approx(0.93)
    assert none == []
    assert detector.find([picture(50, 20, 30)], min_face_px=40) == [[]]
    assert detector.name == "yunet/face"


def test_an_expected_face_is_found_again_or_reported_missing(detector: YunetFaceDetector) -> None:
    expected = np.array([[55, 25, 115, 85], [150, 0, 190, 40]], np.float32)
    ((there, gone),) = detector.refine([(picture(50, 20, 60), expected)])

    assert there is not None
    assert there.xyxy.tolist() == [50, 20, 110, 80]
    assert gone is None


def test_a_file_that_is_missing_or_no_model_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file"):
        YunetFaceDetector(tmp_path / "absent.onnx")
    (tmp_path / "words.onnx").write_bytes(b"these are words")
    with pytest.raises(OptionError, match="cannot read it"):
        YunetFaceDetector(tmp_path / "words.onnx")
