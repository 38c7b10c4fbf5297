"""The moments of a verdict are those of the face that it is about."""

from __future__ import annotations

from detect_core.aggregate import best_window, of_track
from detect_core.calibration import Fusion, VideoCalibration
from detect_core.evidence import NUM_EVIDENCE, track_score, worst_moments
from detect_core.structs import CropScore, Evidence

CALIBRATION = VideoCalibration(
    fusion=Fusion(kind="max", offsets={}, weights={}),
    strategy="best_window/1",
    beta=0.17,
    platt_a=1.0,
    platt_c=0.0,
    t_review=0.5,
    t_fake=0.8,
    name="test",
)
LOUD, BLIP = 1, 2
"""A face with high crops that cannot be judged, and one with a stretch and a single higher crop beside it."""


def crops(track_id: int, logits: list[float]) -> list[CropScore]:
    return [CropScore(track_id, float(i), {"a": logit}, 0.9, 120.0, (0.0, 0.0, 1.0, 1.0)) for i, logit in enumerate(logits)]


SCORES = [*crops(LOUD, [5.0] * 12), *crops(BLIP, [4.0, -4.0, -4.0, 1.0, 2.0, 1.5, 2.5, 1.2, -4.0, -4.0])]


def moments(deciding: int | None, scores: list[CropScore] = SCORES) -> list[Evidence]:
    track = of_track(scores, deciding) if deciding is not None else []
    window = (
        best_window([score.logits["a"] for score in track], [score.weight for score in track], track_id=deciding or 0) if track else None
    )
    line = track_score(track, window, calibration=CALIBRATION) if track else None
    return list(worst_moments(scores, calibration=CALIBRATION, pictures={}, thumbnails=False, deciding=line))


def test_the_window_that_decided_comes_first_then_the_rest_of_its_track() -> None:
    found = moments(BLIP)
    assert {moment.track_id for moment in found} == {BLIP}
    assert [moment.pts_seconds for moment in found] == [6.0, 4.0, 5.0, 7.0, 3.0, 0.0]


def test_other_faces_fill_up_what_a_short_track_leaves() -> None:
    found = moments(BLIP, [*crops(LOUD, [5.0] * 12), *crops(BLIP, [1.0, 2.0, 3.0])])
    assert [(moment.track_id, moment.pts_seconds) for moment in found[:4]] == [(BLIP, 2.0), (BLIP, 1.0), (BLIP, 0.0), (LOUD, 0.0)]
    assert len(found) == NUM_EVIDENCE


def test_where_no_face_decided_the_highest_crops_of_all_are_shown() -> None:
    assert {moment.track_id for moment in moments(None)} == {LOUD}
