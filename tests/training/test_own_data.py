"""Own data and own bundles: what is linked, renamed, corrected, huge or odd is read, or named before hours are spent."""

import json
import math
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from test_material import rows, write_index
from training_faces import POINTS, drawn_face, make_pack
from typer.testing import CliRunner

from detect_core.bundle import SHIPPED_ROOT, CropSpec, load_bundle, save_bundle
from detect_core.calibration import load_bundle_set
from detect_core.errors import DetectCoreError
from detect_core.nets import build_net
from detect_core.structs import FaceBox
from training import cli, manifest_data
from training.bundle_card import add_evaluation
from training.errors import ConfigError, DataError
from training.index_faces import both_labels_in_test
from training.layouts import walked
from training.manifest_data import manifest_of
from training.material import _load_pack, _save_pack
from training.metrics import bootstrap_auc, interval_said
from training.pictures import read_picture
from training.recipes.synthesis import labelled_faces
from training.scorers import Scorers, load_scorers
from training.split_videos import read_video_manifest
from training.start_weights import new_net
from training.still_clips import score_still_clips
from training.study_data import ClassifySettings, StudyData

TINY = {"widths": [4, 4, 8, 8], "units": [1, 1, 1]}


def tiny_bundle(root, *, margin=1.3, name="mine"):
    net = build_net("blend_resnet", **TINY)
    spec = CropSpec(size_px=32, margin=margin)
    return save_bundle(
        root, net, name=name, version="0", detector="blend", net="blend_resnet", net_options=TINY, crop=spec, temperature=1.0, card={}
    )


# --- bundles


def test_a_bundle_that_looks_further_than_the_material_is_cut_is_refused_before_anything_is_scored(tmp_path):
    load_scorers([tiny_bundle(tmp_path / "fits", margin=1.6)])
    with pytest.raises(ConfigError, match=r"margin 1\.65; material is cut to 1\.6"):
        load_scorers([tiny_bundle(tmp_path / "wide", margin=1.65)])
    with pytest.raises(ConfigError, match=r"give 1 to 1\.6"):
        ClassifySettings(margin=9.0)


class Line:
    """A detector of tracks that says which one it is."""

    def __init__(self, bundle, value):
        self.bundle, self._value = bundle, value

    def track_logits(self, images, _points):
        return [self._value] * len(images)


def test_a_video_that_no_fold_left_out_is_not_judged_over_time():
    bundle = load_bundle(SHIPPED_ROOT / "temporal")
    scorers = Scorers((), (Line(bundle, 9.0),), {"known.mp4": Line(bundle, 1.0)})
    boxes = [FaceBox(0, 0.0, np.array([0, 0, 9, 9], np.float32), POINTS * 9, 1.0)]
    found = {file: scorers.logits({"temporal": [None]}, boxes, file=file) for file in ("known.mp4", "added_later.mp4", None)}
    assert found == {"known.mp4": {"temporal": [1.0]}, "added_later.mp4": {}, None: {"temporal": [9.0]}}


def test_rows_of_a_bundle_whose_name_ends_like_another_stay_its_own(tmp_path):
    tiny_bundle(tmp_path / "b", name="blend")
    said = [{"what": f"AUC: {name}: fakes", "value": 0.5} for name in ("blend", "my_blend")] + [{"what": "AUC: all", "value": 0.5}]
    add_evaluation(tmp_path / "b", said, beside=["my_blend"])
    kept = load_bundle(tmp_path / "b").card["metrics"]["evaluation"]
    assert [row["what"] for row in kept] == ["AUC: blend: fakes", "AUC: all"]


def test_the_card_of_an_own_set_lies_beside_it(tmp_path, monkeypatch):
    shutil.copytree(SHIPPED_ROOT, tmp_path / "set")
    loaded = load_bundle_set(tmp_path / "set" / "default.json")
    report = {"bundle_set": loaded.label, "rows": [], "material": "none", "videos": {}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "set" / "CARD.md").unlink()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["card", "--report", "report.json", "--set-file", "set/default.json"])
    assert result.exit_code == 0, result.output
    assert loaded.label in (tmp_path / "set" / "CARD.md").read_text()


@pytest.mark.parametrize(("options", "said"), [("notjson", "JSON object"), ("[1]", "JSON object"), ('{"colour": 3}', "colour")])
def test_net_options_that_fit_no_net_are_named(options, said):
    with pytest.raises(DetectCoreError, match=said):
        new_net("blend_resnet", options, "", "")


def test_a_bundle_of_other_options_is_no_start(tmp_path):
    tiny_bundle(tmp_path / "b")
    with pytest.raises(ConfigError, match="has other options"):
        new_net("blend_resnet", "{}", str(tmp_path / "b"), "")


# --- folders


def test_linked_folders_are_read_and_a_loop_ends(tmp_path):
    (tmp_path / "disk" / "ana").mkdir(parents=True)
    (tmp_path / "disk" / "ana" / "0.png").write_bytes(b"")
    root = tmp_path / "set"
    root.mkdir()
    (root / "ana").symlink_to(tmp_path / "disk" / "ana")
    (root / "round").symlink_to(root)
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert [str(path.relative_to(root)) for path in walked(root)] == ["ana/0.png", "gone.png"]


def test_folders_that_are_linked_with_each_other_are_each_read_once_on_a_way_down(tmp_path):
    for label, other in (("real", "fake"), ("fake", "real")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(b"")
        (tmp_path / label / "pair").symlink_to(tmp_path / other)
    found = [path.relative_to(tmp_path).as_posix() for path in walked(tmp_path)]
    assert found == ["fake/0.png", "fake/pair/0.png", "real/0.png", "real/pair/0.png"]


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_used(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("real", "fake"):
        for number in range(12):
            path = tmp_path / "set" / label / f"p{number}" / "0.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), drawn_face(rng))
    (tmp_path / "set" / "fake" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    asked = ["manifest", "build", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv"), "--whole"]
    result = CliRunner().invoke(cli.app, asked)
    assert isinstance(result.exception, DataError)
    assert "lost.png" in str(result.exception)


def test_a_name_that_no_table_can_hold_is_refused_while_listing(tmp_path):
    (tmp_path / "x\udce9.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="not valid UTF-8"):
        walked(tmp_path)


def test_corrected_labels_make_another_manifest(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(manifest_data, "build_manifest", lambda _data, out, **_: built.append(out) or {"rows": 0, "counts": {}})
    monkeypatch.setattr(manifest_data, "new_detector", lambda: None)
    data = tmp_path / "dfdc"
    data.mkdir()
    for label in ("REAL", "FAKE"):
        (data / "metadata.json").write_text(json.dumps({"a.mp4": {"label": label}}))
        manifest_of(data, tmp_path / "cache", lambda _line: None)
    assert len(set(built)) == 2


def test_a_picture_of_more_pixels_than_can_be_read_is_unreadable(tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    (tmp_path / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    assert read_picture(tmp_path / "huge.png") is None


def test_names_with_tabs_survive_the_cache(tmp_path):
    pack = make_pack(2)
    odd = pack.rows[0].__class__(*("a\tb.mp4@1" if name == "file" else getattr(pack.rows[0], name) for name in pack.rows[0].__slots__))
    pack = pack.__class__(pack.images, pack.landmarks, (odd, pack.rows[1]))
    _save_pack(pack, tmp_path / "pack.safetensors")
    loaded = _load_pack(tmp_path / "pack.safetensors")
    assert loaded.rows == pack.rows
    assert torch.equal(loaded.images, pack.images)


def test_a_clip_of_nobody_in_particular_is_tied_to_nobody_else(tmp_path):
    lines = ["file\tlabel\tsource\tgenerator\tidentity"]
    for number in range(2):
        (tmp_path / f"{number}.mp4").write_bytes(b"x")
        lines.append(f"{number}.mp4\treal\town\t\t")
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(lines) + "\n")
    assert [row.group for row in read_video_manifest(tmp_path)] == ["0.mp4", "1.mp4"]


# --- measuring


def test_own_portraits_are_measured_where_both_labels_are_there(tmp_path):
    write_index(tmp_path, rows(("real", "a", "train"), ("real", "b", "test"), ("fake", "c", "test")))
    assert both_labels_in_test(tmp_path) == ("s",)
    write_index(tmp_path, rows(("real", "a", "train"), ("real", "b", "test")))
    assert both_labels_in_test(tmp_path) == ()
    assert score_still_clips(tmp_path, Scorers(())) == []


def test_one_person_in_each_class_has_no_interval():
    low, high = bootstrap_auc([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], ["a", "a", "b", "b"])
    assert math.isnan(low)
    assert math.isnan(high)
    assert interval_said(low, high, by=" by person") == "no interval, there is one group in each class"
    assert interval_said(0.5, 0.75) == "95 % interval 0.50-0.75"
    assert interval_said(0.5, 0.75, by=" by person") == "95 % interval 0.50-0.75 by person"


# --- settings


def test_a_source_to_hold_out_that_has_no_fake_is_refused():
    faces = make_pack(4, label=1)
    with pytest.raises(ConfigError, match=r"fakes of Source0.*source0, source1"):
        labelled_faces(faces, "train", ("Source0",))


def test_a_source_of_one_class_beside_others_is_refused_and_fakes_are_named():
    packs = [make_pack(6, split=split, label=label, first_group=10 * label) for split in ("train", "valid", "test") for label in (0, 1)]
    faces = packs[0].__class__(
        torch.cat([p.images for p in packs]), torch.cat([p.landmarks for p in packs]), tuple(row for p in packs for row in p.rows)
    )
    assert StudyData(faces, None, settings=ClassifySettings()).families == ["toy"]
    lone = faces.take([i for i, row in enumerate(faces.rows) if row.source == "source0" or not row.label])
    with pytest.raises(ConfigError, match="learn from source1"):
        StudyData(lone, None, settings=ClassifySettings(sources=("source0", "source1")))
