from __future__ import annotations

import numpy as np

from detect_core.faces.track import follow
from detect_core.structs import FaceBox, Frame


def frame(number: int, *, colour: int = 90) -> Frame:
    return Frame(frame_id=number, pts_seconds=number * 0.3, image_hwc=np.full((90, 160, 3), colour, np.uint8), scale=4.0)


def box(number: int, x: float, y: float = 100.0, side: float = 100.0) -> FaceBox:
    return FaceBox(
        frame_id=number,
        pts_seconds=number * 0.3,
        xyxy=np.array([x, y, x + side, y + side], np.float32),
        landmarks=np.zeros((5, 2), np.float32),
        confidence=0.99,
    )


def test_two_faces_that_move_slowly_are_two_tracks() -> None:
    frames = [frame(i) for i in range(10)]
    tracks = follow(frames, [[box(i, 100 + 10 * i), box(i, 400 - 8 * i)] for i in range(10)])
    assert [len(track.boxes) for track in tracks] == [10, 10]


def test_faces_keep_their_track_whatever_order_they_are_found_in() -> None:
    frames = [frame(i) for i in range(6)]
    boxes = [[box(i, 100), box(i, 400)][:: 1 if i % 2 else -1] for i in range(6)]
    tracks = follow(frames, boxes)
    assert [{float(b.xyxy[0]) for b in track.boxes} for track in tracks] in ([{100.0}, {400.0}], [{400.0}, {100.0}])


def test_a_missed_look_does_not_end_a_track_but_a_long_absence_does() -> None:
    frames = [frame(i) for i in range(8)]
    short = [[] if i == 3 else [box(i, 100)] for i in range(8)]
    long = [[] if 2 <= i <= 5 else [box(i, 100)] for i in range(8)]
    assert [len(track.boxes) for track in follow(frames, short)] == [7]
    assert [len(track.boxes) for track in follow(frames, long)] == [2, 2]


def test_a_cut_to_another_shot_ends_every_track() -> None:
    frames = [frame(i, colour=20 if i < 4 else 220) for i in range(8)]
    tracks = follow(frames, [[box(i, 100)] for i in range(8)])
    assert [len(track.boxes) for track in tracks] == [4, 4]


def test_a_face_of_another_size_at_the_same_place_is_another_face() -> None:
    frames = [frame(i) for i in range(4)]
    tracks = follow(frames, [[box(i, 100, side=100 if i < 2 else 250)] for i in range(4)])
    assert [len(track.boxes) for track in tracks] == [2, 2]


def test_no_faces_no_tracks() -> None:
    assert follow([frame(0)], [[]]) == []
