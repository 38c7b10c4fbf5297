"""Every reason not to judge: when it applies, when it does not, and that a second opinion can only take a suspicion back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detect_core.aggregate import TrackWindow
from detect_core.calibration import Fusion, VideoCalibration
from detect_core.domain import FEATURES, Domain
from detect_core.policy import NOT_LOOKED_AT, Circumstances, Decision, FaceCounts, decide, unstable
from detect_core.second_opinion import COPIES, asked_again, recompressed
from detect_core.structs import CropScore

CALIBRATION = VideoCalibration(
    fusion=Fusion(kind="max", offsets={}, weights={}),
    strategy="best_window/1",
    beta=0.0,
    platt_a=1.0,
    platt_c=0.0,
    t_review=0.6,
    t_fake=0.9,
    name="test",
    max_quantiser=33.0,
    domain=Domain(mean=np.zeros(len(FEATURES)), precision=np.eye(len(FEATURES)), limit=4.0),
    max_disagreement=2.0,
)
NORMAL = Circumstances()
COUNTS = FaceCounts(num_frames=32, num_frames_with_face=32, num_small_or_unsure=0, min_face_px=40.0)
CLEAN, SUSPECT, FAKE = -2.0, 1.0, 4.0


def judged(z: float, circumstances: Circumstances = NORMAL, logits: dict[str, float] | None = None) -> Decision:
    window = TrackWindow(track_id=3, z=z, start=0, stop=5, num_crops=20, mean_weight=0.9)
    return decide(
        [window],
        counts=COUNTS,
        num_crops=20,
        calibration=CALIBRATION,
        track_logits={3: logits or {"a": z}},
        circumstances=circumstances,
    )


@pytest.mark.parametrize(
    ("z", "word", "reasons"),
    [
        (CLEAN, "inconclusive", ("HEAVY_COMPRESSION",)),
        (SUSPECT, "inconclusive", ("HEAVY_COMPRESSION",)),
        (FAKE, "manipulated", ("SCORE_ABOVE_T_FAKE",)),
    ],
)
def test_beyond_known_compression_only_a_score_above_t_fake_is_believed(z: float, word: str, reasons: tuple[str, ...]) -> None:
    decision = judged(z, Circumstances(quantiser=33.1))
    assert (decision.verdict, decision.reason_codes) == (word, reasons)
    assert decision.p_fake == pytest.approx(CALIBRATION.probability(z))


@pytest.mark.parametrize("quantiser", [None, 0.0, 33.0])
def test_known_or_unknown_compression_changes_nothing(quantiser: float | None) -> None:
    for z in (CLEAN, SUSPECT, FAKE):
        assert judged(z, Circumstances(quantiser=quantiser)) == judged(z)


@pytest.mark.parametrize("z", [CLEAN, SUSPECT, FAKE])
def test_an_unknown_kind_of_face_gets_no_verdict_at_all(z: float) -> None:
    decision = judged(z, Circumstances(distances={3: 4.1}))
    assert (decision.verdict, decision.reason_codes, decision.track_id) == ("inconclusive", ("OUT_OF_DOMAIN",), 3)
    assert judged(z, Circumstances(distances={3: 3.9, 7: 99.0})) == judged(z)


def test_detectors_that_contradict_each_other_make_no_suspicion() -> None:
    assert judged(SUSPECT, logits={"a": 5.0, "b": -3.0}).reason_codes == ("DETECTORS_DISAGREE",)
    assert judged(CLEAN, logits={"a": 5.0, "b": -3.0}).verdict == "authentic"


def test_a_second_opinion_takes_back_a_suspicion_that_most_copies_drop_and_nothing_else() -> None:
    drop, keep = 0.1, 0.8
    for z in (SUSPECT, FAKE):
        assert unstable(judged(z), again=[drop, drop, keep], calibration=CALIBRATION).reason_codes == ("UNSTABLE_UNDER_RECOMPRESSION",)
        assert unstable(judged(z), again=[drop, keep, keep], calibration=CALIBRATION) == judged(z)
        assert unstable(judged(z), again=[], calibration=CALIBRATION) == judged(z)
    assert unstable(judged(CLEAN), again=[drop] * 3, calibration=CALIBRATION) == judged(CLEAN)


def test_the_deciding_window_is_asked_again_on_each_copy_of_its_own_crops() -> None:
    rng = np.random.default_rng(0)
    scores = [CropScore(1, float(i), {"a": 3.0 if 4 <= i < 9 else -3.0, "track": 0.5}, 1.0, 100.0, (0, 0, 1, 1)) for i in range(12)]
    crops = {(1, float(i)): {"a": rng.integers(0, 256, (32, 32, 3), np.uint8)} for i in range(12)}
    asked: list[tuple[str, int]] = []

    def rescore(name: str, copies) -> list[float]:
        asked.append((name, len(copies)))
        assert all(copy.shape == (32, 32, 3) for copy in copies)
        assert not any(np.array_equal(copy, crops[1, float(4 + i)]["a"]) for i, copy in enumerate(copies))
        return [float(len(asked))] * len(copies)

    calibration = replace(CALIBRATION, fusion=Fusion(kind="weighted_sum", offsets={}, weights={"a": 1.0, "track": 2.0}))
    again = asked_again(scores, crops, track_id=1, num_draws=1, calibration=calibration, rescore=rescore, names=["a"])

    assert asked == [("a", 5)] * len(COPIES)
    assert again == [pytest.approx(calibration.probability(1.0 + copy)) for copy in range(1, len(COPIES) + 1)]


def test_copies_are_close_to_the_crop_and_differ_from_it() -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 64, 3)).copy()
    for quality, scale in COPIES.values():
        copy = recompressed(smooth, quality=quality, scale=scale)
        assert copy.shape == smooth.shape
        assert np.abs(copy.astype(int) - smooth).mean() < 4


def of_faces(
    *faces: tuple[float, float],
    circumstances: Circumstances = NORMAL,
    logits: dict[int, dict[str, float]] | None = None,
    again: dict[int, list[float]] | None = None,
    calibration: VideoCalibration = CALIBRATION,
) -> Decision:
    """The decision about faces of (z, mean weight)."""
    windows = [TrackWindow(track_id=i, z=z, start=0, stop=5, num_crops=20, mean_weight=weight) for i, (z, weight) in enumerate(faces)]
    return decide(
        windows,
        counts=COUNTS,
        num_crops=40,
        calibration=calibration,
        track_logits=logits or {},
        circumstances=circumstances,
        again=again or {},
    )


def test_a_face_that_cannot_be_judged_hides_no_clear_one() -> None:
    clear, blurred = (FAKE, 0.9), (FAKE + 0.1, 0.05)
    assert of_faces(clear, blurred) == of_faces(clear, (CLEAN, 0.9))
    strange = Circumstances(distances={1: 99.0})
    assert of_faces(clear, (FAKE + 0.1, 0.9), circumstances=strange).track_id == 0
    contradictory = {1: {"a": 9.0, "b": -3.0}}
    assert of_faces(clear, (FAKE + 0.1, 0.9), logits=contradictory).verdict == "manipulated"
    assert of_faces((SUSPECT, 0.9), blurred).verdict == "suspicious"
    dropped = {1: [0.1, 0.1, 0.8]}
    assert of_faces(clear, (FAKE + 0.1, 0.9), again=dropped).track_id == 0
    assert of_faces((CLEAN, 0.9), (FAKE, 0.9), again=dropped).reason_codes == ("UNSTABLE_UNDER_RECOMPRESSION",)
    assert of_faces(clear, (FAKE + 0.1, 0.9), again={**dropped, 0: [0.1] * 3}).track_id == 1


def test_a_face_that_cannot_be_judged_hides_no_clear_one_that_is_uncertain_in_a_crowd() -> None:
    crowded = replace(CALIBRATION, beta=3.0)
    clean, blurred = (CLEAN, 0.9), (FAKE + 0.1, 0.05)
    decision = of_faces((FAKE, 0.9), clean, blurred, calibration=crowded)
    assert (decision.reason_codes, decision.track_id) == (("CROWD_UNCERTAIN",), 0)
    assert of_faces(clean, clean, blurred, calibration=crowded).reason_codes == ("LOW_EVIDENCE",)


@pytest.mark.parametrize("z", [SUSPECT, FAKE])
def test_a_crowd_that_takes_a_score_below_a_threshold_makes_it_uncertain_and_never_clean(z: float) -> None:
    crowd = [(CLEAN, 0.9)] * 11
    decision = of_faces((z, 0.9), *crowd, calibration=replace(CALIBRATION, beta=0.8))
    assert (decision.verdict, decision.reason_codes, decision.track_id) == ("inconclusive", ("CROWD_UNCERTAIN",), 0)
    assert of_faces((z, 0.9), *crowd, calibration=replace(CALIBRATION, beta=0.001)) != decision
    assert of_faces(*crowd, calibration=replace(CALIBRATION, beta=0.8)).verdict == "authentic"


def test_a_face_that_cannot_be_judged_keeps_the_others_from_being_cleared() -> None:
    assert of_faces((CLEAN, 0.9), (FAKE, 0.05)).reason_codes == ("LOW_EVIDENCE",)
    assert of_faces((CLEAN, 0.9), (FAKE, 0.9), circumstances=Circumstances(distances={1: 99.0})).reason_codes == ("OUT_OF_DOMAIN",)
    assert of_faces((FAKE, 0.05), (FAKE, 0.05)).reason_codes == ("LOW_EVIDENCE",)


def test_the_sentence_gives_the_score_that_charts_show_and_what_it_counts_as_in_a_crowd() -> None:
    crowded = replace(CALIBRATION, beta=0.5)
    alone = of_faces((SUSPECT, 0.9), calibration=crowded)
    assert alone.sentence == "Suspicious: the face scores 0.73, between 0.60 and 0.90; a person should look."
    faces = [(CLEAN, 0.9)] * 3
    assert of_faces((0.0, 0.9), *faces, calibration=crowded).sentence == (
        "No manipulation found: the highest of 4 face tracks scores 0.50, which counts as 0.33 among 4 faces."
    )
    assert of_faces((2.0, 0.9), *faces, calibration=crowded).sentence == (
        "Suspicious: face 0 of 4 scores 0.88, which counts as 0.79 among 4 faces, between 0.60 and 0.90; a person should look."
    )
    assert of_faces((FAKE, 0.9), *faces, calibration=crowded).sentence == (
        "Likely manipulated: face 0 of 4 scores 0.98, which counts as 0.96 among 4 faces, at or above the threshold 0.90."
    )


def test_a_value_and_its_line_never_read_alike_unless_they_are() -> None:
    def sentence_of(p: float) -> str:
        return judged(float(np.log(p / (1 - p)))).sentence

    assert sentence_of(0.5996) == "No manipulation found: the highest of 1 face track scores 0.5996."
    assert "scores 0.8999, between 0.6000 and 0.9000;" in sentence_of(0.8999)
    assert "scores 0.902, at or above the threshold 0.900." in sentence_of(0.902)
    at_the_line = replace(CALIBRATION, t_review=CALIBRATION.probability(SUSPECT))
    assert "scores 0.73, between 0.73 and 0.90;" in of_faces((SUSPECT, 0.9), calibration=at_the_line).sentence
    assert "(quantiser 33.2 of 51, known up to 33.0)" in judged(SUSPECT, Circumstances(quantiser=33.2)).sentence
    assert "(quantiser 40 of 51, known up to 33)" in judged(SUSPECT, Circumstances(quantiser=40.0)).sentence


def seen_in_part(z: float, *, num_faces: int = 20, not_looked_at: tuple[str, ...] = ()) -> Decision:
    """The decision about one face that was followed over 20 of `num_faces` boxes."""
    window = TrackWindow(track_id=3, z=z, start=0, stop=5, num_crops=20, mean_weight=0.9)
    counts = replace(COUNTS, num_faces=num_faces, not_looked_at=not_looked_at)
    return decide([window], counts=counts, num_crops=20, calibration=CALIBRATION, track_logits={})


def test_many_faces_that_could_not_be_followed_keep_a_video_from_being_cleared() -> None:
    assert seen_in_part(CLEAN, num_faces=33).verdict == "authentic"
    decision = seen_in_part(CLEAN, num_faces=34)
    assert (decision.verdict, decision.reason_codes) == ("inconclusive", ("FACES_NOT_FOLLOWED",))
    assert "14 of 34 faces" in decision.sentence
    assert decision.p_fake == seen_in_part(CLEAN).p_fake
    assert seen_in_part(SUSPECT, num_faces=99).verdict == "suspicious"


@pytest.mark.parametrize("code", NOT_LOOKED_AT)
def test_pictures_that_were_not_looked_at_keep_a_video_from_being_cleared(code: str) -> None:
    decision = seen_in_part(CLEAN, not_looked_at=(code,))
    assert (decision.verdict, decision.reason_codes, decision.track_id) == ("inconclusive", (code,), 3)
    assert NOT_LOOKED_AT[code] in decision.sentence
    assert seen_in_part(CLEAN, num_faces=99, not_looked_at=(code,)).reason_codes == (code, "FACES_NOT_FOLLOWED")
    assert seen_in_part(SUSPECT, not_looked_at=(code,)) == seen_in_part(SUSPECT)
