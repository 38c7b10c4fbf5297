"""The pictures of an evaluation: drawn from its report and kept scores, with the figures that the report says."""

import csv
import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from detect_core.calibration import DEFAULT_SET, load_bundle_set
from training import cli
from training.errors import DataError
from training.evaluate import evaluate_videos, write_report
from training.evaluation_plots import draw_report, draw_scored
from training.measure import Origin, Scored
from training.metrics import auc
from training.plots import draw_reliability
from training.video_scores import TrackLogits, VideoLogits, save_scores


@pytest.fixture(scope="module")
def shipped():
    return load_bundle_set(DEFAULT_SET)


def video(i, label, shipped, *, suffix="", generator=None):
    rng = np.random.default_rng(100 * label + i)
    logits = {bundle.name: (rng.normal(1.5 * label - 1, 1.5) + rng.normal(0, 0.3, 8)).tolist() for bundle in shipped.bundles}
    generator = (generator or ("alpha" if i % 2 else "beta (kind)")) if label else ""
    return VideoLogits(f"v{label}{i}.mp4{suffix}", label, f"g{label}{i}", "set", generator, "test", [TrackLogits(logits, [1.0] * 8)])


@pytest.fixture(scope="module")
def scored(shipped):
    out = [video(i, label, shipped) for label in (0, 1) for i in range(12)]
    out += [video(40 + i, 0, shipped, suffix="#reencoded") for i in range(12)]
    return out + [video(40 + i, 1, shipped, suffix="#sim:self_blend", generator="sim:self_blend") for i in range(12)]


@pytest.fixture
def report(tmp_path, scored, shipped):
    path = tmp_path / "evaluation.json"
    write_report(evaluate_videos(scored, shipped.calibration), path, bundle_set=shipped, material="toy", videos=scored)
    return path


def coloured(path):
    """Pixels that are neither grey nor white: lines and bars."""
    image = cv2.imread(str(path)).astype(int)
    return int((image.max(2) - image.min(2) > 40).sum())


def test_every_auc_of_the_report_is_a_bar_with_its_interval(report):
    (path,) = draw_report(report)
    assert path.name == "evaluation_generators.png"
    assert coloured(path) > 5000
    document = json.loads(report.read_text())
    assert sum("95 % interval" in row["note"] for row in document["rows"]) >= 4  # what the bars' whiskers are read from
    flat = {**document, "rows": [{**row, "value": 0.01} if row["what"].startswith("AUC: ") else row for row in document["rows"]]}
    report.write_text(json.dumps(flat))
    assert coloured(draw_report(report)[0]) < coloured_before(document, report) / 3


def coloured_before(document, report):
    report.write_text(json.dumps(document))
    return coloured(draw_report(report)[0])


def test_curves_stand_on_the_scores_that_the_report_was_made_of(report, scored, shipped):
    written = draw_scored(scored, shipped.calibration, report)
    assert [path.name for path in written] == [
        "evaluation_videos.csv",
        "evaluation_roc.png",
        "evaluation_reliability.png",
        "evaluation_reliability_labelled.png",
    ]
    assert all(coloured(path) > 200 for path in written[1:])
    with written[0].open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(scored)
    true = [row for row in rows if row["role"] in ("real", "fake")]
    said = {row["what"]: row["value"] for row in json.loads(report.read_text())["rows"]}
    value = auc([float(row["logit"]) for row in true], [int(row["label"]) for row in true])
    assert value == pytest.approx(said["AUC: all labelled fakes against held-out reals (video level)"], abs=1e-4)


def test_scores_with_one_class_draw_no_curve(report, scored, shipped):
    written = draw_scored([v for v in scored if not v.label], shipped.calibration, report)
    assert [path.name for path in written] == ["evaluation_videos.csv"]


def test_a_reliability_curve_weighs_both_labels_the_same(tmp_path, monkeypatch):
    # Given two scores that are right when both labels weigh the same, and counts of which none divides the other.
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda _self, x, y, **_style: drawn.append((x, y)))
    low, high = float(np.log(0.2 / 0.8)), float(np.log(0.8 / 0.2))
    logits, labels = np.repeat([low, high, low, high], [12, 3, 2, 8]), np.repeat([0, 1], [15, 10])
    origins = tuple(Origin("s", "", f"g{i}", f"f{i}") for i in range(25))
    draw_reliability(Scored(logits, labels, origins, "video"), tmp_path / "r.png", title="toy", bins=2, even=True)
    x, y = drawn[-1]
    assert x == pytest.approx((0.2, 0.8))
    assert y == pytest.approx((0.2, 0.8))


def test_a_missing_or_foreign_report_is_named(tmp_path):
    with pytest.raises(DataError, match="not a report"):
        draw_report(tmp_path / "none.json")
    (tmp_path / "other.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(DataError, match="no row of an AUC"):
        draw_report(tmp_path / "other.json")


def test_the_command_draws_without_scoring(report, scored, shipped, tmp_path):
    kept = tmp_path / "scores.jsonl"
    asked = ["plots", "--report", str(report), "--scores", str(kept)]
    result = CliRunner().invoke(cli.app, asked)
    assert result.exit_code == 0
    assert "ROC and reliability are not drawn" in " ".join(result.output.split())
    save_scores(scored, kept, hashes={bundle.name: bundle.sha256 for bundle in shipped.bundles})
    assert CliRunner().invoke(cli.app, asked).exit_code == 0
    assert (tmp_path / "evaluation_roc.png").is_file()
    save_scores(scored, kept, hashes={"blend": "0" * 64})
    assert isinstance(CliRunner().invoke(cli.app, asked).exception, DataError)
