"""The batched cascade finds what the facenet-pytorch loop finds, on a portrait that ships with scikit-image."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN

from builders import astronaut_pictures, moving_pictures
from detect_core.faces.cascade import Candidates, _not_contained, _strongest
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


def crowds(num_pictures: int, num_boxes: int, *, seed: int) -> Candidates:
    """Boxes of all sizes in each of some pictures: some within others, some alike, some turned inside out."""
    draw = torch.Generator().manual_seed(seed)
    count = num_pictures * num_boxes
    corner, side = torch.rand((count, 2), generator=draw) * 400, torch.rand((count, 2), generator=draw) * 150 - 5
    xyxy = torch.cat([corner, corner + side], dim=1)
    xyxy[::7] = xyxy[torch.randint(count, (len(xyxy[::7]),), generator=draw)]
    probability = torch.rand(count, generator=draw).round(decimals=2)
    return Candidates(xyxy, probability, torch.randint(num_pictures, (count,), generator=draw))


def kept_pair_by_pair(found: Candidates) -> list[int]:
    """The slow reference: every box against every kept one."""
    order = torch.argsort(found.probability, descending=True)
    boxes, picture = found.xyxy[order], found.picture[order]
    inner = (torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(boxes[:, None, :2], boxes[None, :, :2])).clamp(min=0)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    share = inner.prod(dim=2) / torch.minimum(area[:, None], area[None, :]).clamp(min=1e-6)
    rivals = ((share > 0.7) & (picture[:, None] == picture[None, :])).numpy()
    kept: list[int] = []
    for row in range(len(order)):
        if not rivals[row, kept].any():
            kept.append(row)
    return order[kept].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_boxes_within_others_are_those_of_the_pair_by_pair_comparison(seed: int) -> None:
    found = crowds(4, 60, seed=seed)
    kept = _not_contained(found).tolist()
    assert kept == kept_pair_by_pair(found)
    assert 4 < len(kept) < 240


def test_of_no_boxes_none_are_kept() -> None:
    assert _not_contained(crowds(1, 5, seed=0).at(torch.arange(0))).tolist() == []


def test_a_batch_of_crowds_is_thinned_out_in_a_moment() -> None:
    columns, rows = torch.meshgrid(torch.arange(20.0), torch.arange(15.0), indexing="xy")
    corner = torch.stack([columns.ravel(), rows.ravel()], dim=1).repeat(16, 1) * 30
    found = Candidates(torch.cat([corner, corner + 25], dim=1), torch.rand(4800), torch.arange(16).repeat_interleave(300))

    started = time.thread_time()
    assert len(_not_contained(found)) == 4800
    assert time.thread_time() - started < 1.5  # pair by pair it was a minute
