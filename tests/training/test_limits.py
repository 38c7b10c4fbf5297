"""Limits on made-up scores: what is known stays judged, what is beyond it is not, no flagged video is let go early."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detect_core.calibration import Fusion, VideoCalibration
from training.errors import DataError
from training.evaluate import evaluate_videos
from training.limits import FLAGGED, decision_of, first_look, fit_limits
from training.video_scores import DISTORTED, TrackLogits, VideoLogits

CALIBRATION = VideoCalibration(
    fusion=Fusion(kind="max", offsets={}, weights={}),
    strategy="best_window/1",
    beta=0.1,
    platt_a=1.0,
    platt_c=0.0,
    t_review=0.6,
    t_fake=0.9,
    name="test",
)


def video(name, z, rng, *, label=0, quantiser=24.0, generator="", spread=0.3, look=None):
    logits = [float(v) for v in rng.normal(z, spread, 32)]
    look = rng.normal(0, 1, 6) if look is None else look
    track = TrackLogits({"a": logits}, [1.0] * 32, appearance=[float(v) for v in look], first_look={"a": logits[2::4]})
    return VideoLogits(name, label, name, "toy", generator, "test", [track], quantiser=quantiser)


@pytest.fixture
def population():
    rng = np.random.default_rng(0)
    reals = [video(f"real{i}", rng.normal(-2, 0.4), rng, quantiser=rng.uniform(18, 28)) for i in range(60)]
    fakes = [video(f"fake{i}", rng.normal(2, 1), rng, label=1, generator="toy") for i in range(30)]
    copies = []
    for name, quantiser, shift in (("none", None, 0.0), ("mild", 31.0, 0.1), ("hard", 39.0, 3.5)):
        copies += [video(f"real{i}{DISTORTED}{name}", rng.normal(-2 + shift, 0.4), rng, quantiser=quantiser) for i in range(20)]
    return [*reals, *fakes, *copies]


def test_compression_is_known_up_to_where_reals_are_not_flagged_more_often(population):
    fitted = fit_limits(population, CALIBRATION).calibration
    assert 28.0 < fitted.max_quantiser <= 31.0
    hard = [v for v in population if v.file.endswith("hard")]
    decisions = [decision_of(v, fitted) for v in hard]
    assert not any(decision.verdict in ("authentic", "suspicious") for decision in decisions)
    assert ("HEAVY_COMPRESSION",) in {decision.reason_codes for decision in decisions}


def test_every_real_of_the_calibration_is_known_and_a_stranger_is_not(population):
    fitted = fit_limits(population, CALIBRATION).calibration
    rng = np.random.default_rng(1)
    for v in population:
        if v.role == "real":
            assert "OUT_OF_DOMAIN" not in decision_of(v, fitted).reason_codes
    stranger = video("stranger", 3.0, rng, look=np.full(6, 9.0))
    assert decision_of(stranger, fitted).reason_codes == ("OUT_OF_DOMAIN",)


def test_no_flagged_video_is_let_go_by_the_first_look_and_most_reals_are(population):
    limits = fit_limits(population, CALIBRATION)
    clear = limits.calibration.first_look_clear
    flagged = [v for v in population if decision_of(v, CALIBRATION).verdict in FLAGGED]
    assert limits.num_flagged == len(flagged) > 20
    assert limits.num_missed == 0
    assert all(first_look(v, CALIBRATION) >= clear for v in flagged)
    assert clear < CALIBRATION.t_review
    assert limits.cleared_reals > 0.8


def test_a_short_fake_stretch_keeps_a_video_from_being_let_go(population):
    """Row D of the stress table: frames 10 to 15 of 32 are fake; the first look sees one or two of them."""
    clear = fit_limits(population, CALIBRATION).calibration.first_look_clear
    logits = [3.0 if 10 <= i <= 15 else -3.0 for i in range(32)]
    for start in range(4):
        track = TrackLogits({"a": logits}, [1.0] * 32, first_look={"a": logits[start::4]})
        partial = VideoLogits("partial", 1, "p", "toy", "x", "test", [track])
        assert decision_of(partial, CALIBRATION).verdict == "manipulated"
        assert first_look(partial, CALIBRATION) > clear


def test_a_track_too_short_for_a_first_look_is_never_clear(population):
    short = replace(population[0], tracks=[*population[0].tracks, TrackLogits({"a": [-3.0, -3.0, -3.0]}, [1.0] * 3)])
    assert first_look(short, CALIBRATION) is None


def test_the_document_holds_what_the_loader_reads(population):
    document = json.loads(json.dumps(fit_limits(population, CALIBRATION).document()))
    assert set(document) == {"max_disagreement", "max_quantiser", "domain", "first_look_clear"}
    assert len(document["domain"]["mean"]) == len(document["domain"]["precision"]) == 6


def test_a_written_limit_does_not_shut_out_the_video_that_it_was_taken_from(population):
    limits = fit_limits(population, CALIBRATION)
    fitted, written = limits.calibration, limits.document()
    assert fitted.domain.limit <= written["domain"]["limit"] < fitted.domain.limit + 0.0011
    assert fitted.max_disagreement <= written["max_disagreement"] < fitted.max_disagreement + 0.00011


def test_scores_without_appearance_are_refused():
    rng = np.random.default_rng(0)
    old = [replace(video(f"r{i}", -2, rng), tracks=[TrackLogits({"a": [-2.0] * 8}, [1.0] * 8)]) for i in range(40)]
    with pytest.raises(DataError, match="score the videos again"):
        fit_limits(old, CALIBRATION)


def test_a_real_video_without_a_face_lowers_the_coverage(population):
    fitted = replace(CALIBRATION, first_look_clear=None)
    true = [v for v in population if v.role in ("real", "fake")]
    empty = [replace(v, file=f"empty{i}", tracks=[]) for i, v in enumerate(true[:20])]

    rows = {row.what: row for row in evaluate_videos([*true, *empty], fitted)}

    judged = sum(decision_of(v, fitted).verdict != "inconclusive" for v in true if not v.label)
    assert rows["coverage: real videos that get a verdict"].value == pytest.approx(judged / 80, abs=1e-4)
    assert "NO_FACE 20" in rows["coverage: real videos that get a verdict"].note
    assert rows["real videos called manipulated"].unit == "of 80"
