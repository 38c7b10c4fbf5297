"""The batched cascade finds what the facenet-pytorch loop finds, on a portrait that ships with scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN

from builders import astronaut_pictures, moving_pictures
from detect_core.faces.cascade import Candidates, _strongest
from detect_core.faces.detect import MtcnnFaceDetector
from pretended_gpu import GPU, PretendedGpu


@pytest.fixture(scope="module")
def detector() -> MtcnnFaceDetector:
    return MtcnnFaceDetector()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))


def test_finds_the_same_face_as_the_published_loop(detector: MtcnnFaceDetector) -> None:
    pictures = astronaut_pictures(4)
    published = MTCNN(keep_all=True, min_face_size=40)
    boxes, probabilities, points = published.detect(np.stack(pictures), landmarks=True)

    for found, box, probability, point in zip(detector.find(pictures, min_face_px=40), boxes, probabilities, points, strict=True):
        sure = [face for face in found if face.confidence > 0.9]
        assert len(sure) == int((probability > 0.9).sum()) == 1
        expected_box, expected_points = np.asarray(box[0], np.float64), np.asarray(point[0], np.float64)
        assert overlap(sure[0].xyxy, expected_box) > 0.8
        np.testing.assert_allclose(sure[0].landmarks, expected_points, atol=0.05 * (expected_box[2] - expected_box[0]))


def test_a_picture_is_judged_the_same_alone_and_in_company(detector: MtcnnFaceDetector) -> None:
    pictures = astronaut_pictures(3)
    together = detector.find(pictures, min_face_px=40)
    alone = [detector.find([picture], min_face_px=40)[0] for picture in pictures]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose([face.xyxy for face in a], [face.xyxy for face in b], atol=0.5)


def test_pictures_without_faces_or_without_room_for_one_give_none(detector: MtcnnFaceDetector) -> None:
    assert [[face for face in found if face.confidence > 0.95] for found in detector.find(moving_pictures(2), min_face_px=40)] == [[], []]
    assert detector.find([np.zeros((30, 30, 3), np.uint8)], min_face_px=40) == [[]]
    assert detector.find([], min_face_px=40) == []


def test_a_flood_of_candidates_is_bounded(detector: MtcnnFaceDetector) -> None:
    tiles = np.tile(astronaut_pictures(1, size=(120, 90))[0], (8, 8, 1))
    found = detector.find([tiles], min_face_px=20)[0]
    assert 5 < len(found) <= 300


def test_a_flood_of_candidates_is_bounded_on_a_gpu() -> None:
    with PretendedGpu() as mode:
        picture = torch.tensor([0] * 400 + [1] * 10, device=GPU)
        candidates = Candidates(
            picture=picture,
            xyxy=torch.zeros((410, 4), device=GPU),
            probability=torch.linspace(0.6, 0.9, 410, device=GPU),
        )
        kept = _strongest(candidates, 2)
    assert mode.met > 0
    assert torch.bincount(kept.picture.as_subclass(torch.Tensor)).tolist() == [300, 10]
