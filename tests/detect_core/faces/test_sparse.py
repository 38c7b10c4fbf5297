from __future__ import annotations

import numpy as np
import pytest

from builders import astronaut_pictures
from detect_core.faces.detect import FoundFace, MtcnnFaceDetector
from detect_core.faces.sparse import find_sparsely


def face(x: float, *, confidence: float = 0.99) -> FoundFace:
    return FoundFace(np.array([x, 10, x + 50, 60], np.float32), np.zeros((5, 2), np.float32), confidence)


class World:
    """A face detector that knows the truth and counts how often it is asked."""

    def __init__(self, faces: list[list[FoundFace]], *, refined_confidence: float = 0.99) -> None:
        self.faces = faces
        self.refined_confidence = refined_confidence
        self.searched: list[int] = []

    def find(self, images: list[np.ndarray]) -> list[list[FoundFace]]:
        self.searched += [int(image[0, 0, 0]) for image in images]
        return [self.faces[int(image[0, 0, 0])] for image in images]

    def refine(self, items: list[tuple[np.ndarray, np.ndarray]]) -> list[list[FoundFace | None]]:
        return [[FoundFace(box, np.zeros((5, 2), np.float32), self.refined_confidence) for box in boxes] for _, boxes in items]

    def run(self) -> list[list[FoundFace]]:
        images = [np.full((4, 4, 3), i, np.uint8) for i in range(len(self.faces))]
        return find_sparsely(images, find=self.find, refine=self.refine)


def test_steady_faces_are_searched_on_every_third_frame_only() -> None:
    world = World([[face(10 + i), face(200 - i)] for i in range(10)])
    found = world.run()
    assert world.searched == [0, 3, 6, 9]
    for i, faces in enumerate(found):
        assert sorted(float(each.xyxy[0]) for each in faces) == pytest.approx([10 + i, 200 - i], abs=0.01)


def test_frames_where_the_last_net_is_unsure_are_searched_after_all() -> None:
    world = World([[face(10)] for _ in range(7)], refined_confidence=0.5)
    world.run()
    assert sorted(world.searched) == list(range(7))


def test_frames_between_different_counts_are_searched() -> None:
    world = World([[face(10)]] * 4 + [[face(10), face(200)]] * 3)
    found = world.run()
    assert sorted(world.searched) == [0, 3, 4, 5, 6]
    assert [len(faces) for faces in found] == [1, 1, 1, 1, 2, 2, 2]


def test_boxes_that_slide_onto_one_face_are_not_believed() -> None:
    world = World([[face(10), face(200)]] * 4)
    world.refine = lambda items: [[face(10), face(12)] for _ in items]  # type: ignore[method-assign]
    world.run()
    assert sorted(world.searched) == [0, 1, 2, 3]


def test_few_or_no_frames_work_too() -> None:
    assert World([]).run() == []
    assert len(World([[face(1)]]).run()) == 1
    assert [len(faces) for faces in World([[], [], []]).run()] == [0, 0, 0]


def test_refined_faces_of_a_moving_portrait_equal_searched_ones() -> None:
    detector = MtcnnFaceDetector()
    pictures = astronaut_pictures(10)
    searched = detector.find(pictures, min_face_px=40)
    sparse = find_sparsely(pictures, find=lambda batch: detector.find(batch, min_face_px=40), refine=detector.refine)
    for every, some in zip(searched, sparse, strict=True):
        (a,), (b,) = ([each for each in faces if each.confidence > 0.9] for faces in (every, some))
        inner = np.clip(np.minimum(a.xyxy[2:], b.xyxy[2:]) - np.maximum(a.xyxy[:2], b.xyxy[:2]), 0, None).prod()
        union = (a.xyxy[2:] - a.xyxy[:2]).prod() + (b.xyxy[2:] - b.xyxy[:2]).prod() - inner
        assert inner / union > 0.8
