"""Calibration on made-up scores: order kept, reals safe, document readable by the worker's own loader."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detect_core.bundle import CropSpec, save_bundle
from detect_core.calibration import Fusion, load_bundle_set
from detect_core.nets import build_net
from training.calibrate import calibrate, default_shares, fading, fit_beta, fit_fades, fit_platt, set_document, video_scores
from training.errors import DataError
from training.held_out import material_sha256
from training.video_scores import DISTORTED, UNDISTORTED, TrackLogits, VideoLogits, load_scores, save_scores

FUSION = Fusion(kind="max", offsets={"blend": 0.0}, weights={})


def video(z, *, label=0, name="v", tracks=1, rng=None, generator=""):
    rng = rng or np.random.default_rng(0)
    made = [TrackLogits({"blend": [float(v) for v in rng.normal(z, 0.3, 12)]}, [1.0] * 12) for _ in range(tracks)]
    return VideoLogits(name, label, name, "toy", generator, "test", made)


def population(seed=0):
    rng = np.random.default_rng(seed)
    reals = [video(rng.normal(-1.5, 0.6), name=f"r{i}", rng=rng) for i in range(40)]
    fakes = [video(rng.normal(1.5, 0.8), label=1, name=f"f{i}", rng=rng, generator="sim:toy") for i in range(40)]
    return reals, fakes


def test_no_real_video_of_the_calibration_is_called_manipulated():
    reals, fakes = population()
    fitted = calibrate(reals, fakes, fusion=FUSION, headroom=1.0)
    z = np.array(video_scores(reals, FUSION, fitted.beta), float)
    p = 1 / (1 + np.exp(-(fitted.platt_a * z + fitted.platt_c)))
    assert fitted.num_false == 0
    assert p.max() < fitted.t_fake
    assert fitted.t_review <= fitted.t_fake
    assert (p >= fitted.t_review).mean() <= 0.2
    assert fitted.num_real_videos == 40


def test_platt_recovers_known_parameters():
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, 20_000)
    y = rng.random(20_000) < 1 / (1 + np.exp(-(1.7 * z - 0.4)))
    balanced = np.concatenate([np.flatnonzero(y)[:8000], np.flatnonzero(~y)[:8000]])
    a, c = fit_platt(z[balanced], y[balanced])
    assert a == pytest.approx(1.7, rel=0.1)
    assert abs(c) < 0.6


def test_beta_is_the_mean_excess_of_an_exponential_tail():
    scores = np.random.default_rng(2).exponential(0.5, 50_000)
    assert fit_beta(scores) == pytest.approx(0.5, rel=0.1)
    with pytest.raises(DataError, match="at least 10"):
        fit_beta([1.0, 2.0])


def test_a_crowd_pays_for_its_draws_and_no_track_is_no_score():
    rng = np.random.default_rng(3)
    alone, crowd = video(1.0, rng=rng), video(1.0, tracks=6, rng=rng)
    one, many = video_scores([alone, crowd], FUSION, 0.0), video_scores([alone, crowd], FUSION, 0.5)
    assert many[0] == one[0]
    assert many[1] == pytest.approx(one[1] - 0.5 * np.log(6))
    assert video_scores([VideoLogits("x", 0, "x", "toy", "", "test", [])], FUSION, 0.5) == [None]


def test_the_set_document_is_what_the_worker_loads(tmp_path):
    net = build_net("blend_resnet", widths=(4, 4, 8, 8), units=(1, 1, 1))
    options = {"widths": [4, 4, 8, 8], "units": [1, 1, 1]}
    bundle = save_bundle(
        tmp_path / "blend",
        net,
        name="blend",
        version="1",
        detector="blend",
        net="blend_resnet",
        net_options=options,
        crop=CropSpec(size_px=32, margin=1.3),
        temperature=1.0,
        card={},
    )
    fitted = calibrate(*population(), fusion=FUSION, headroom=1.0)
    document = set_document(
        name="default",
        bundles=[{"name": "blend", "path": "blend", "sha256": bundle.sha256}],
        optional=["xception"],
        fusion=FUSION,
        calibration=fitted,
        dataset_sha256="0" * 64,
        date="2026-01-01",
    )
    (tmp_path / "default.json").write_text(json.dumps(document))
    loaded = load_bundle_set(tmp_path / "default.json")
    assert loaded.missing == ("xception",)
    assert loaded.calibration.t_fake == pytest.approx(fitted.t_fake, abs=1e-4)
    assert document["protocol"]["fpr_upper_95"] == pytest.approx(0.0722, abs=1e-3)


def test_scores_of_other_bundles_are_refused(tmp_path):
    reals, _ = population()
    save_scores(reals, tmp_path / "s.jsonl", hashes={"blend": "a"})
    assert load_scores(tmp_path / "s.jsonl", hashes={"blend": "a"}) == reals
    with pytest.raises(DataError, match="scored by bundles"):
        load_scores(tmp_path / "s.jsonl", hashes={"blend": "b"})
    with pytest.raises(DataError, match="not a list of video scores"):
        load_scores(tmp_path / "missing.jsonl", hashes={})


def test_scores_are_good_for_their_own_material_only(tmp_path):
    reals, _ = population()
    save_scores(reals, tmp_path / "s.jsonl", hashes={"blend": "a"}, material="these")
    assert load_scores(tmp_path / "s.jsonl", hashes={"blend": "a"}, material="these") == reals
    with pytest.raises(DataError, match="other videos"):
        load_scores(tmp_path / "s.jsonl", hashes={"blend": "a"}, material="those")


def test_material_is_named_by_rows_sizes_faces_folds_and_the_version_of_scoring(tmp_path, monkeypatch):
    def named(**folders):
        return material_sha256(tmp_path, **{"faces_root": None, "folds_root": None, **folders})

    (tmp_path / "a.mp4").write_bytes(b"1")
    row = "a.mp4\treal\ttoy\t\tann\n"
    (tmp_path / "MANIFEST.tsv").write_text("file\tlabel\tsource\tgenerator\tidentity\n" + row)
    folds = tmp_path / "folds"
    folds.mkdir()
    (folds / "folds.json").write_text("{}")
    names = [named(), named(), named(folds_root=folds)]
    (tmp_path / "a.mp4").write_bytes(b"12")
    names.append(named())
    assert names[0] == names[1]
    monkeypatch.setattr("training.held_out._SCORING", "of a version to come")
    names.append(named())
    assert len(set(names)) == 4

    (tmp_path / "a#b.mp4").write_bytes(b"1")
    with (tmp_path / "MANIFEST.tsv").open("a") as manifest:
        manifest.write(row.replace("a.mp4", "a#b.mp4"))
    with pytest.raises(DataError, match="rename"):
        named()


def test_a_policy_stands_on_videos_alone():
    reals, fakes = population()
    stills = [replace(v, file=f"still:{v.file}") for v in reals[:5]]
    labelled = [video(1.0, label=1, name="real_fake", generator="toy")]
    fitted = calibrate([*reals, *stills], [*[replace(f, file=f"x#{f.file}") for f in fakes], *labelled], fusion=FUSION, headroom=1.0)
    assert (len(fitted.real_scores), len(fitted.fake_scores)) == (40, 1)


def test_detectors_of_one_kind_share_and_those_of_whole_tracks_do_not_fade():
    by_name = {bundle.name: bundle for bundle in load_bundle_set().bundles}
    both = [by_name["blend"], replace(by_name["blend"], name="blend_second"), by_name["autogan"], by_name["temporal"]]
    assert default_shares(both) == {"blend": 0.7, "blend_second": 0.7, "autogan": 0.3, "temporal": 1.0}
    assert default_shares(both[1:]) == {"blend_second": 1.0, "autogan": 0.3, "temporal": 1.0}
    assert fading(both) == ["blend", "blend_second"]


def test_the_drift_that_compression_adds_is_fitted_on_pairs_and_taken_back():
    rng = np.random.default_rng(3)
    reals = [replace(video(rng.normal(-2, 1), name=f"r{i}", rng=rng), quantiser=20.0 + i % 6) for i in range(30)]
    copies = []
    for real in reals:
        level = float(np.mean(real.tracks[0].logits["blend"]))
        for name, quantiser, gain in ((UNDISTORTED, None, 0.0), ("mild", 24.0, 0.0), ("hard", 33.0, 8.0 * 0.3)):
            copies.append(replace(video(level + gain, name=f"{real.file}{DISTORTED}{name}", rng=rng), quantiser=quantiser))

    fades = fit_fades([*reals, *copies], ["blend"])

    assert (fades["blend"].full_until, fades["blend"].none_from) == (25.0, 35.0)
    assert fades["blend"].drift == pytest.approx(0.3, abs=0.05)
    assert fit_fades(reals, ["blend"]) == {}
    scores = [
        np.mean(
            [
                z
                for v in copies
                if v.file.endswith(name)
                for z in v.track_scores(Fusion("evidence_sum", {"blend": 3.0}, {"blend": 1.0}, fades))
            ]
        )
        for name in ("mild", "hard")
    ]
    assert scores[1] == pytest.approx(0.2 * scores[0], abs=0.4), "eight of ten steps: a fifth is heard, and nothing of the drift"
