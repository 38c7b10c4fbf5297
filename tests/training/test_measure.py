"""Evaluation of scored faces: both levels, every source and generator, intervals by person, plots that open."""

import json

import cv2
import numpy as np
import pytest

from training.errors import DataError
from training.measure import Origin, Scored, evaluation_rows, fit_temperature, log_loss, measured, read_predictions, write_evaluation
from training.metrics import auc
from training.plots import draw_curves


def scored(count=120, *, seed=0, shift=1.5, frames=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    origins = tuple(
        Origin(
            f"s{i // frames % 2}", f"g{i // frames % 3}" if y else "", f"p{i // frames}", f"{'fr'[1 - y]}{i // frames}.mp4@{i % frames}.0"
        )
        for i, y in enumerate(labels)
    )
    return Scored(rng.normal(labels * shift), labels.astype(np.int64), origins)


def test_rows_for_all_for_every_source_and_for_every_generator():
    rows = evaluation_rows(scored(), rounds=20)
    assert [row["what"] for row in rows] == ["all", "source s0", "source s1", "generator g0", "generator g1", "generator g2"]
    for row in rows:
        assert {"auc", "ap", "eer", "tpr_at_fpr_0.1pc", "tpr_at_fpr_1pc", "tpr_at_fpr_5pc", "ece", "log_loss", "accuracy"} <= set(row)
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    assert rows[0]["num_fake"] == rows[0]["num_real"] == 60
    assert rows[3]["num_real"] == 60
    assert rows[3]["num_fake"] < 60


def test_a_video_is_one_item_and_its_logit_the_mean_of_its_faces():
    faces = scored(12)
    videos = faces.by_video()
    assert videos.level == "video"
    first = [i for i, o in enumerate(faces.origins) if o.file.startswith(videos.origins[0].file)]
    assert videos.logits[0] == pytest.approx(faces.logits[first].mean())
    assert len(videos.logits) == len({o.file.split("@")[0] for o in faces.origins})
    assert videos.by_video() is videos


def test_predictions_read_back_give_the_same_figures(tmp_path):
    faces = scored()
    names = write_evaluation(faces, tmp_path, title="toy")
    assert names == ["predictions.csv", "evaluation.json", "roc.png", "reliability.png"]
    again = read_predictions(tmp_path / "predictions.csv")
    assert auc(again.logits, again.labels) == pytest.approx(auc(faces.logits, faces.labels), abs=1e-6)
    assert again.origins == faces.origins
    rows = json.loads((tmp_path / "evaluation.json").read_text())["rows"]
    assert {row["level"] for row in rows} == {"frame", "video"}
    assert rows[0]["auc"] == measured(again.logits, again.labels, prefix="")["auc"]
    for name in names[2:]:
        assert cv2.imread(str(tmp_path / name)).shape[0] > 200
    (tmp_path / "predictions.csv").write_text("logit,label\nx,1\n")
    with pytest.raises(DataError, match=r"predictions\.csv: not predictions"):
        read_predictions(tmp_path / "predictions.csv")


def test_a_net_that_says_nearly_nothing_keeps_its_ranks_on_disk(tmp_path):
    from training.measure import write_predictions

    faces = scored()
    whisper = Scored(np.float32(0.01 + 1e-8 * faces.logits).astype(np.float64), faces.labels, faces.origins)
    write_predictions(tmp_path / "p.csv", whisper)
    assert np.array_equal(read_predictions(tmp_path / "p.csv").logits.astype(np.float32), whisper.logits.astype(np.float32))


def test_a_temperature_makes_an_overconfident_net_honest():
    faces = scored(600)
    loud = faces.logits * 9 - 3
    t = fit_temperature(loud, faces.labels)
    assert t > 2
    assert log_loss(loud / t, faces.labels) < log_loss(loud, faces.labels)
    grid = min(log_loss(loud / k, faces.labels) for k in np.geomspace(0.05, 20, 300))
    assert log_loss(loud / t, faces.labels) == pytest.approx(grid, abs=1e-4)
    before = measured(loud, faces.labels, prefix="")["ece"]
    assert measured(loud / t, faces.labels, prefix="")["ece"] < before


def test_curves_go_on_counting_over_stages_and_empty_logs_draw_nothing(tmp_path):
    rows = [{"step": s, "loss": 1 / s, "seconds": s} for s in (1, 2, 3)] * 2
    assert draw_curves(rows, tmp_path / "c.png")
    assert cv2.imread(str(tmp_path / "c.png")) is not None
    assert not draw_curves([{"step": 1, "note": "x"}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_lengths_must_agree():
    with pytest.raises(DataError, match="as many logits"):
        Scored(np.zeros(3), np.zeros(2, np.int64), ())


def test_a_run_is_verified_from_its_predictions_and_a_typed_figure_is_found(tmp_path):
    from training.verify_run import verify_run

    faces = scored()
    write_evaluation(faces, tmp_path, title="toy")
    metrics = measured(faces.logits, faces.labels, prefix="test_")
    (tmp_path / "outcome.json").write_text(json.dumps({"metrics": metrics}))
    assert verify_run(tmp_path) > 50
    (tmp_path / "outcome.json").write_text(json.dumps({"metrics": {**metrics, "test_auc": 0.999}}))
    with pytest.raises(DataError, match=r"outcome\.json: test_auc is 0\.999"):
        verify_run(tmp_path)
    (tmp_path / "outcome.json").unlink()
    with pytest.raises(DataError, match=r"outcome\.json: not there"):
        verify_run(tmp_path)
