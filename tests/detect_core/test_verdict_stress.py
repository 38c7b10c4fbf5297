"""The stress scenarios of the verdict: partial fakes, crowds, blips, glitches, nothing to see."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detect_core.aggregate import MIN_TRACK_CROPS, TrackWindow, best_window, crowd_corrected, of_track, quality_weight
from detect_core.calibration import Fusion, VideoCalibration
from detect_core.evidence import suspicious_segments
from detect_core.policy import Decision, FaceCounts, decide
from detect_core.structs import CropScore

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
SHARP = 0.9
BLURRED = 0.05


def draw(rng: np.random.Generator, mean: float, count: int = 32) -> np.ndarray:
    return np.clip(rng.normal(mean, 0.04, count), 0.001, 0.999)


def judge(tracks: dict[int, np.ndarray], *, weight: float = SHARP) -> tuple[Decision, list[CropScore]]:
    scores = [
        CropScore(
            track_id=track_id,
            pts_seconds=i * 0.3,
            logits={"a": math.log(p / (1 - p))},
            weight=weight,
            side_px=120.0,
            xyxy=(0.0, 0.0, 1.0, 1.0),
        )
        for track_id, probabilities in tracks.items()
        for i, p in enumerate(probabilities)
    ]
    windows = []
    for track_id in tracks:
        track = of_track(scores, track_id)
        window = best_window([CALIBRATION.fusion.fuse(s.logits) for s in track], [s.weight for s in track], track_id=track_id)
        if window is not None:
            windows.append(window)
    counts = FaceCounts(
        num_frames=32, num_frames_with_face=max((len(p) for p in tracks.values()), default=0), num_small_or_unsure=0, min_face_px=40
    )
    num_crops = sum(window.num_crops for window in windows)
    return decide(windows, counts=counts, num_crops=num_crops, calibration=CALIBRATION, track_logits={}), scores


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_one_face_all_fake(rng: np.random.Generator) -> None:
    decision, _ = judge({1: draw(rng, 0.95)})
    assert decision.verdict == "manipulated"
    assert decision.p_fake is not None
    assert decision.p_fake >= 0.9


def test_b_one_face_real(rng: np.random.Generator) -> None:
    decision, _ = judge({1: draw(rng, 0.05)})
    assert decision.verdict == "authentic"
    assert decision.p_fake is not None
    assert decision.p_fake <= 0.2


def test_c_three_faces_one_fake_is_named(rng: np.random.Generator) -> None:
    decision, _ = judge({1: draw(rng, 0.05), 2: draw(rng, 0.05), 3: draw(rng, 0.95)})
    assert (decision.verdict, decision.track_id) == ("manipulated", 3)
    assert decision.p_fake is not None
    assert decision.p_fake >= 0.9


def test_d_six_fake_frames_of_32_are_found_and_located(rng: np.random.Generator) -> None:
    probabilities = draw(rng, 0.05)
    probabilities[10:16] = draw(rng, 0.95, 6)
    decision, scores = judge({1: probabilities})
    assert decision.verdict == "manipulated"
    assert decision.p_fake is not None
    assert decision.p_fake >= 0.8
    (segment,) = suspicious_segments(of_track(scores, 1), calibration=CALIBRATION)
    assert abs(segment.start_seconds / 0.3 - 10) <= 2
    assert abs(segment.end_seconds / 0.3 - 15) <= 2


def test_e_isolated_blips_do_not_accuse(rng: np.random.Generator) -> None:
    probabilities = draw(rng, 0.05)
    probabilities[[4, 15, 27]] = 0.9
    decision, _ = judge({1: probabilities})
    assert decision.verdict == "authentic"
    assert decision.p_fake is not None
    assert decision.p_fake <= 0.3


def test_f_a_real_crowd_stays_authentic(rng: np.random.Generator) -> None:
    decision, _ = judge({i: draw(rng, 0.05) for i in range(1, 9)})
    assert decision.verdict == "authentic"
    assert decision.p_fake is not None
    assert decision.p_fake <= 0.25


def test_g_one_fake_in_a_crowd_is_named(rng: np.random.Generator) -> None:
    tracks = {i: draw(rng, 0.05) for i in range(1, 9)}
    tracks[5] = draw(rng, 0.95)
    decision, _ = judge(tracks)
    assert (decision.verdict, decision.track_id) == ("manipulated", 5)
    assert decision.p_fake is not None
    assert decision.p_fake >= 0.8


def test_h_blurred_faces_that_say_nothing_are_inconclusive(rng: np.random.Generator) -> None:
    decision, _ = judge({1: draw(rng, 0.55)}, weight=BLURRED)
    assert decision.verdict == "inconclusive"
    assert decision.reason_codes == ("LOW_EVIDENCE",)
    assert decision.p_fake is None


def test_i_one_glitch_changes_next_to_nothing(rng: np.random.Generator) -> None:
    probabilities = draw(rng, 0.05)
    quiet, _ = judge({1: probabilities})
    probabilities[12] = 0.999
    glitched, _ = judge({1: probabilities})
    assert quiet.p_fake is not None
    assert glitched.p_fake is not None
    assert glitched.verdict == "authentic"
    assert abs(glitched.p_fake - quiet.p_fake) <= 0.1


def test_j_two_adjacent_blips_do_not_accuse(rng: np.random.Generator) -> None:
    probabilities = draw(rng, 0.05)
    probabilities[12:14] = 0.97
    decision, _ = judge({1: probabilities})
    assert decision.p_fake is not None
    assert decision.p_fake < 0.5


def test_k_order_of_tracks_and_any_one_crop_do_not_matter(rng: np.random.Generator) -> None:
    tracks = {1: draw(rng, 0.05), 2: draw(rng, 0.95)}
    whole, _ = judge(tracks)
    swapped, _ = judge({2: tracks[2], 1: tracks[1]})
    assert swapped == whole
    for missing in range(32):
        shorter, _ = judge({1: tracks[1], 2: np.delete(tracks[2], missing)})
        assert shorter.verdict == whole.verdict
        assert shorter.p_fake is not None
        assert whole.p_fake is not None
        assert abs(shorter.p_fake - whole.p_fake) <= 0.05


def test_l_nothing_to_see_is_never_a_score(rng: np.random.Generator) -> None:
    nothing, _ = judge({})
    assert (nothing.verdict, nothing.p_fake, nothing.reason_codes) == ("inconclusive", None, ("NO_FACE",))
    few, _ = judge({1: draw(rng, 0.95, 4)})
    assert (few.verdict, few.p_fake, few.reason_codes) == ("inconclusive", None, ("TOO_FEW_FRAMES",))
    assert MIN_TRACK_CROPS == 3


def test_a_score_that_a_crowd_explains_names_the_face_but_does_not_accuse() -> None:
    strict = judge({1: np.full(32, 0.805), **{i: np.full(32, 0.05) for i in range(2, 9)}})[0]
    assert strict.verdict == "inconclusive"
    assert strict.reason_codes == ("CROWD_UNCERTAIN",)
    assert strict.track_id == 1


def test_faces_that_cannot_be_judged_hide_nobody_in_a_crowd() -> None:
    counts = FaceCounts(num_frames=32, num_frames_with_face=32, num_small_or_unsure=0, min_face_px=40)
    clear = TrackWindow(track_id=1, z=1.6, start=0, stop=5, num_crops=32, mean_weight=SHARP)
    blurred = [TrackWindow(track_id=i, z=-3.0, start=0, stop=5, num_crops=32, mean_weight=BLURRED) for i in range(2, 25)]
    alone = decide([clear], counts=counts, num_crops=32, calibration=CALIBRATION, track_logits={})

    decision = decide([clear, *blurred], counts=counts, num_crops=768, calibration=CALIBRATION, track_logits={})

    assert (decision.verdict, decision.p_fake) == (alone.verdict, alone.p_fake)
    assert decision.verdict == "manipulated"


def test_the_crowd_correction_is_beta_ln_k() -> None:
    assert crowd_corrected(2.0, num_draws=1, beta=0.5) == 2.0
    assert crowd_corrected(2.0, num_draws=8, beta=0.5) == pytest.approx(2.0 - 0.5 * math.log(8))


def test_quality_weight_grows_with_size_and_sharpness() -> None:
    small = quality_weight(confidence=0.99, side_px=40, sharpness=80)
    large = quality_weight(confidence=0.99, side_px=200, sharpness=80)
    blurred = quality_weight(confidence=0.99, side_px=200, sharpness=2)
    assert 0 < small < large <= 1
    assert blurred < large
