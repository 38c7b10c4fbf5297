"""The evaluation says what it can of any material, and nothing that it did not measure."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from detect_core.bundle import SHIPPED_ROOT, CropSpec, load_bundle, save_bundle
from detect_core.calibration import Fusion, VideoCalibration, load_bundle_set
from detect_core.nets import build_net
from training import cli
from training.beside import beside
from training.bundle_card import add_evaluation
from training.errors import ConfigError, DataError
from training.evaluate import Row, _ece_row, _least_ece, evaluate_videos, taught_generators, write_report
from training.scorers import track_lines
from training.set_card import set_card
from training.video_scores import DISTORTED, STILL, UNDISTORTED, TrackLogits, VideoLogits

CALIBRATION = VideoCalibration(
    fusion=Fusion(kind="weighted_sum", offsets={}, weights={"ours": 1.0}),
    strategy="best_window/1",
    beta=0.0,
    platt_a=1.0,
    platt_c=0.0,
    t_review=0.5,
    t_fake=0.9,
    name="test",
)


def video(file, label, *, logit=None, source="set", generator="toy"):
    z = 4.0 * label - 2 if logit is None else logit
    track = TrackLogits({"ours": [z] * 8, "other": [z / 2] * 8}, [1.0] * 8)
    return VideoLogits(file, label, file, source, generator if label else "", "test", [track])


def own_data():
    """Real videos and what is made from them; no labelled fakes, and portraits of one source that are all real."""
    rng = np.random.default_rng(0)
    reals = [video(f"r{i}", 0, logit=rng.normal(-2)) for i in range(12)]
    made = [video(f"{v.file}#reencoded", 0) for v in reals]
    made += [video(f"{v.file}#sim:self_blend", 1, generator="sim:self_blend") for v in reals]
    copies = [video(f"{v.file}{DISTORTED}{name}", 0) for v in reals for name in (UNDISTORTED, "mild", "medium", "H.264 CRF 40")]
    stills = [video(f"{STILL}f{i}", 0, source="ffhq") for i in range(4)]
    stills += [video(f"{STILL}w{label}{i}", label, source="web140k") for label in (0, 1) for i in range(4)]
    return [*reals, *made, *copies, *stills]


@pytest.fixture(scope="module")
def shipped():
    return load_bundle_set()


def test_material_without_labelled_fakes_is_measured_as_far_as_it_goes():
    rows = {row.what: row for row in evaluate_videos(own_data(), CALIBRATION, taught={"toy"})}
    assert "AUC: sim:self_blend fakes against re-encoded twins (families seen in training) (video level)" in rows
    assert rows["real videos called manipulated"].unit == "of 12"
    assert "FPR at the frozen threshold: mild" in rows
    assert not [what for what in rows if what.startswith(("AUC: all labelled", "mean AUC", "worst unseen", "TPR", "AUC drop", "ECE under"))]


def test_a_source_of_portraits_with_one_class_has_no_row():
    rows = [row.what for row in evaluate_videos(own_data(), CALIBRATION)]
    assert [what.split()[1] for what in rows if "portraits shown as clips" in what] == ["web140k"]


def portraits(source, *generators):
    """Four real portraits of a source shown as clips, and four of each generator."""
    made = [(generator, i) for generator in ("", *generators) for i in range(4)]
    return [video(f"{STILL}{source}{g}{i}", int(bool(g)), source=source, generator=g, logit=i + 2.0 * bool(g)) for g, i in made]


def test_portraits_are_of_seen_generators_only_where_a_card_names_them(shipped):
    taught = taught_generators(shipped.bundles)
    shown = [*portraits("ffhq", "StyleGAN2"), *portraits("web140k", "StyleGAN family (140k set)")]
    rows = {
        row.what: row for row in evaluate_videos([*own_data(), *shown, *portraits("own", "new", "StyleGAN2")], CALIBRATION, taught=taught)
    }
    # web140k of `own_data` has portraits of an unknown generator too
    assert [what for what in rows if "portraits" in what] == [
        "AUC: ffhq portraits shown as clips (generators seen in training) (video level)",
        "AUC: own portraits shown as clips (generators seen in training) (video level)",
        "AUC: own portraits shown as clips (video level)",
        "AUC: web140k portraits shown as clips (generators seen in training) (video level)",
        "AUC: web140k portraits shown as clips (video level)",
    ]
    unseen = [rows[f"AUC: {source} portraits shown as clips (video level)"].value for source in ("own", "web140k")]
    assert rows["worst unseen generator"].value == min(unseen)
    assert rows["mean AUC over unseen generators"].value == pytest.approx(sum(unseen) / 2, abs=1e-4)
    videos = [v for v in own_data() if v.role != "still_fake"]
    assert not [row.what for row in evaluate_videos([*videos, *shown], CALIBRATION, taught=taught) if "unseen" in row.what]


def test_without_labelled_fakes_another_detector_is_compared_on_what_is_there():
    assert [column.what for column in beside(own_data(), CALIBRATION, other="other")] == ["AUC: sim:self_blend"]


def test_an_ece_weighs_both_labels_the_same_whatever_their_counts():
    # Given scores that are right when both labels weigh the same, and counts of which none divides the other.
    low, high = float(np.log(0.2 / 0.8)), float(np.log(0.8 / 0.2))
    counts = ((0, low, 12), (0, high, 3), (1, low, 2), (1, high, 8))
    pairs = [(video(f"{label}{z}{i}", label, logit=z), z) for label, z, count in counts for i in range(count)]
    row = _ece_row("ECE", pairs, CALIBRATION, "<= 0.03")
    assert row.value == pytest.approx(0, abs=1e-9)
    assert "10 fakes, 15 reals" in row.note


def test_the_least_ece_counts_as_many_videos_as_there_are():
    # Given six real videos beside many fakes, then they carry half of the weight and most of the chance.
    rng = np.random.default_rng(1)
    p = rng.random(1206)
    few, many = np.repeat([0, 1], [6, 1200]), np.repeat([0, 1], [603, 603])
    assert _least_ece(p, few, rounds=40) > 2 * _least_ece(p, many, rounds=40)


def imported(root, name="mine"):
    """A bundle as `import-checkpoint` writes it."""
    options = {"widths": [4, 4, 8, 8], "units": [1, 1, 1]}
    net, crop = build_net("blend_resnet", **options), CropSpec(size_px=32, margin=1.3)
    return save_bundle(
        root, net, name=name, version="0", detector="blend", net="blend_resnet", net_options=options, crop=crop, temperature=1.0, card={}
    )


def test_rows_go_into_the_card_of_an_imported_checkpoint_too(tmp_path):
    imported(tmp_path / "mine")
    add_evaluation(tmp_path / "mine", [{"what": "AUC", "value": 0.5}])
    assert load_bundle(tmp_path / "mine").card["metrics"] == {"evaluation": [{"what": "AUC", "value": 0.5}]}


def test_protocol_e1_alone_is_a_report_without_pictures(tmp_path):
    metrics = {"unseen_auc_mean": 0.6, "unseen_auc_worst": 0.5, "unseen_tpr_at_fpr_1pc_worst": 0.1, "seen_auc_mean": 0.8}
    settings = {"net": "blend_resnet", "size_px": 96, "steps": 450, "seeds": 1, "looks": 8}
    document = {"recipe": "cross_generator", "metrics": {**metrics, "generators": 0, "clips": 9}, "settings": settings}
    (tmp_path / "outcome.json").write_text(json.dumps(document))
    out = tmp_path / "evaluation.json"
    result = CliRunner().invoke(cli.app, ["evaluate", "--left-out", str(tmp_path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert len(json.loads(out.read_text())["rows"]) == 4
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    "command", [("calibrate", "--bundles", str(SHIPPED_ROOT)), ("evaluate", "--default"), ("evaluate", "--default", "--beside", "BESIDE")]
)
def test_a_track_detector_judges_no_videos_that_it_may_have_learned_from(command, tmp_path):
    others = str(SHIPPED_ROOT / "temporal")
    asked = [others if part == "BESIDE" else part for part in command]
    if "--beside" in asked:  # the set itself has none
        asked[1:2] = ["--set-file", str(set_of(tmp_path, "blend"))]
    refused = CliRunner().invoke(cli.app, [*asked, "--videos", str(tmp_path)]).exception
    assert isinstance(refused, ConfigError)
    assert "with temporal, got no fold lines" in str(refused)
    assert "(--folds), or --unseen" in str(refused)


def set_of(folder, name):
    """The shipped calibration for one of the shipped bundles."""
    document = json.loads((SHIPPED_ROOT / "default.json").read_text())
    rows = [{**row, "path": str(SHIPPED_ROOT / row["path"])} for row in document["bundles"] if row["name"] == name]
    path = folder / "set.json"
    path.write_text(json.dumps({**document, "bundles": rows}))
    return path


def test_a_set_without_track_detectors_and_own_videos_need_no_folds(tmp_path, shipped):
    assert track_lines([b for b in shipped.bundles if b.name != "temporal"], folds_root=None, unseen=False) == "no_track_detector"
    assert track_lines(shipped.bundles, folds_root=None, unseen=True) == "unseen"
    for more in (("--names", "blend"), ("--unseen",)):
        refused = CliRunner().invoke(cli.app, ["calibrate", "--bundles", str(SHIPPED_ROOT), "--videos", str(tmp_path), *more]).exception
        assert isinstance(refused, DataError)
        assert "no MANIFEST.tsv there" in str(refused)  # it went on to the videos


@pytest.mark.parametrize(
    ("lines", "told"), [("cross_fitted", "cross-fitted: a fake was judged"), ("unseen", "learned from none"), (None, "")]
)
def test_the_card_says_of_track_detectors_what_the_report_says(lines, told, shipped, tmp_path):
    path = tmp_path / "report.json"
    write_report([Row("x", 1.0, "")], path, bundle_set=shipped, material="toy", videos=[], track_lines=lines)
    report = json.loads(path.read_text())
    assert report["track_lines"] == lines
    card = set_card(shipped, report)
    assert told in card
    assert ("`temporal`: " in card) == bool(told)


def test_the_report_tells_how_its_videos_were_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_scores", lambda *_args, **_options: [])
    told = []
    monkeypatch.setattr("training.evaluate.evaluate_videos", lambda *_args, taught: told.append(taught) or [])
    out = tmp_path / "report.json"
    for more, lines in ((("--unseen",), "unseen"), (("--folds", str(tmp_path)), "cross_fitted")):
        result = CliRunner().invoke(cli.app, ["evaluate", "--videos", str(tmp_path), "--out", str(out), *more])
        assert result.exit_code == 0, result.exception
        assert json.loads(out.read_text())["track_lines"] == lines
        assert "StyleGAN2" in told[-1]


def test_two_bundles_of_one_name_are_refused_before_anything_is_scored(tmp_path):
    for folder in ("one", "two", "three"):
        imported(tmp_path / folder)
    asked = ["calibrate", "--bundles", str(tmp_path), "--videos", str(tmp_path)]
    for more in (("--names", "one,two"), ("--names", "one", "--beside", str(tmp_path / "three"))):
        refused = CliRunner().invoke(cli.app, [*asked, *more]).exception
        assert isinstance(refused, ConfigError)
        assert "two bundles called mine" in str(refused)
        assert "--name NAME" in str(refused)


def test_an_exported_bundle_may_get_a_name_and_a_version(tmp_path):
    made = imported(tmp_path / "run" / "bundle")
    shipped = tmp_path / "bundles" / "mine_second"
    asked = ["export", str(tmp_path / "run"), str(shipped)]
    assert CliRunner().invoke(cli.app, [*asked, "--name", "mine_second", "--version", "4"]).exit_code == 0
    renamed = load_bundle(shipped)
    assert (renamed.name, renamed.version, renamed.weights) == ("mine_second", "4", made.weights)
    assert CliRunner().invoke(cli.app, asked).exit_code == 0
    assert load_bundle(shipped).sha256 == made.sha256
    assert isinstance(CliRunner().invoke(cli.app, [*asked, "--name", "a,b"]).exception, ConfigError)


def test_a_bundle_is_not_exported_over_itself(tmp_path):
    made = imported(tmp_path / "run" / "bundle")
    refused = CliRunner().invoke(cli.app, ["export", str(tmp_path / "run"), str(made.root)]).exception
    assert isinstance(refused, ConfigError)
    assert load_bundle(made.root).sha256 == made.sha256
