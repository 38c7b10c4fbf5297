"""Manifests: nobody stands on two sides, nothing vanishes silently."""

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from test_material import write_index
from training_faces import POINTS, drawn_face, make_pack, torn_jpeg
from typer.testing import CliRunner

from builders import astronaut_pictures, flat_pictures, write_clip
from detect_core.faces.detect import FoundFace
from training import cli, manifest_data
from training.errors import DataError, LeakError
from training.face_pack import build_pack, concatenate
from training.manifest import BuildOptions, build_manifest, read_summary
from training.manifest_data import gather, manifest_of, read_manifest
from training.material import Material
from training.near_duplicates import cross_split_pairs, near_pairs, perceptual_hash


class MiddleFace:
    """A face detector that finds one face in the middle of every picture that is not flat."""

    name = "middle"

    def find(self, images, *, min_face_px):
        assert min_face_px > 0
        return [[self._face(image)] if image.std() > 5 else [] for image in images]

    def refine(self, items):
        return [[None] * len(boxes) for _, boxes in items]

    @staticmethod
    def _face(image):
        side = image.shape[0]
        return FoundFace(np.array([0.19, 0.19, 0.81, 0.81], np.float32) * side, POINTS * side, 0.99)


def draw(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), drawn_face(rng))


def two_folders(root, count=20, *, seed=0):
    rng = np.random.default_rng(seed)
    for label in ("real", "fake"):
        for i in range(count):
            draw(root / label / f"{label}{i}.png", rng)
    return root


def build(root, out, detector=None, **options):
    return build_manifest(root, out, options=BuildOptions(**options), detector=detector or MiddleFace())


def test_files_outside_the_given_splits_are_placed_by_people_and_counted(tmp_path):
    rng = np.random.default_rng(0)
    pairs = {"train": [["000", "001"], ["002", "003"]], "val": [["004", "005"]], "test": [["006", "007"]]}
    for one, other in (pair for some in pairs.values() for pair in some):
        draw(tmp_path / "set" / "original_sequences" / "youtube" / "c23" / "frames" / one / "0.png", rng)
        draw(tmp_path / "set" / "manipulated_sequences" / "Deepfakes" / "c23" / "frames" / f"{one}_{other}" / "0.png", rng)
    draw(tmp_path / "set" / "original_sequences" / "actors" / "c23" / "frames" / "01__walking" / "0.png", rng)
    (tmp_path / "set" / "splits").mkdir()
    for name, some in pairs.items():
        (tmp_path / "set" / "splits" / f"{name}.json").write_text(json.dumps(some))
    said = []
    summary = build_manifest(tmp_path / "set", tmp_path / "m.csv", options=BuildOptions(), detector=MiddleFace(), say=said.append)
    assert summary["rows"] == 9
    assert summary["counts"]["test fake"] == summary["counts"]["valid fake"] == 1
    assert summary["notes"] == ["1 files lie outside the splits that the data set gives and were placed beside them"]
    assert summary["notes"][0] in said
    checked = CliRunner().invoke(cli.app, ["manifest", "check", str(tmp_path / "m.csv")], env={"COLUMNS": "200"})
    assert summary["notes"][0] in checked.output


def test_hashes_see_recompression_as_the_same_and_other_faces_as_others():
    rng = np.random.default_rng(0)
    faces = [drawn_face(rng) for _ in range(30)]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(faces[3], cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 60])
    again = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    smaller = cv2.resize(faces[5], (97, 97), interpolation=cv2.INTER_AREA)
    hashes = [perceptual_hash(image) for image in (*faces, again, smaller)]
    assert near_pairs(hashes) == [(3, 30), (5, 31)]
    assert perceptual_hash(np.full((20, 20, 3), 90, np.uint8)) == 0


def test_pair_search_equals_brute_force():
    rng = np.random.default_rng(1)
    hashes = [int(v) for v in rng.integers(0, 2**63, 60)]
    hashes += [
        h ^ int(sum(1 << int(b) for b in rng.choice(64, size=n, replace=False)))
        for h, n in zip(hashes, rng.integers(0, 8, 60), strict=True)
    ]
    brute = [(i, j) for i in range(120) for j in range(i + 1, 120) if (hashes[i] ^ hashes[j]).bit_count() <= 4]
    assert near_pairs(hashes) == brute
    assert len(brute) > 20


@pytest.fixture
def twice():
    """A pack whose first face stands in the test split too, re-encoded."""
    rng = np.random.default_rng(3)
    face = drawn_face(rng)
    pack = make_pack(6, seed=5)
    again = cv2.imdecode(cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    crops = [cv2.resize(image, (224, 224)) for image in (face, again)]
    rows = [dataclasses.replace(pack.rows[0], split=split, file=f"{split}.png", group=split) for split in ("train", "test")]
    return concatenate([build_pack(crops, [POINTS, POINTS], rows), pack])


def test_the_same_face_in_two_splits_is_told_refused_or_dropped(twice):
    said = []
    assert cross_split_pairs(twice) == [(0, 1)]
    kept = Material(twice, "8 faces").settled("warn", said.append)
    assert kept.faces.sha256() == twice.sha256()  # a warning changes no run
    assert kept.description == "8 faces, 1 nearly equal pairs across splits"
    assert "1 pairs of nearly equal faces stand in two splits, first train.png (train) and test.png (test)" in said[0]
    with pytest.raises(LeakError, match=r"train\.png .*--near-duplicates drop"):
        Material(twice, "8 faces").settled("refuse", said.append)
    less = Material(twice, "8 faces").settled("drop", said.append)
    assert [row.file for row in less.faces.rows] == [row.file for row in twice.rows[1:]]
    assert less.description == "8 faces, 1 left out as nearly equal to held-out ones"
    assert less.settled("refuse", said.append) is less


def test_flat_faces_and_faces_of_one_split_are_no_leak(twice):
    flat = dataclasses.replace(twice, images=torch.full_like(twice.images, 90))
    assert cross_split_pairs(flat) == []
    one_side = dataclasses.replace(twice, rows=tuple(dataclasses.replace(row, split="train") for row in twice.rows))
    assert cross_split_pairs(one_side) == []


def test_the_run_command_refuses_on_demand(tmp_path, twice, monkeypatch):
    monkeypatch.setattr(manifest_data, "gather", lambda **_: Material(twice, "8 faces"))
    result = CliRunner().invoke(cli.app, ["run", "cnn5", "--preset", "smoke", "--out", str(tmp_path / "r"), "--near-duplicates", "refuse"])
    assert isinstance(result.exception, LeakError)
    assert not (tmp_path / "r").exists()


def test_a_folder_becomes_faces_with_labels_splits_and_points(tmp_path):
    root = two_folders(tmp_path / "set")
    summary = build(root, tmp_path / "m.csv")
    assert summary["rows"] == 40
    pack = read_manifest(tmp_path / "m.csv")
    assert len(pack) == 40
    assert all((row.label == 1) == row.file.startswith("fake/") for row in pack.rows)
    assert {row.split for row in pack.rows} == {"train", "valid", "test"}
    assert 0.2 < float(pack.landmarks[:, 0, 0].mean()) < 0.5 < float(pack.landmarks[:, 1, 0].mean()) < 0.8


def test_whole_pictures_are_packed_as_they_are(tmp_path):
    root = two_folders(tmp_path / "set")
    build(root, tmp_path / "m.csv", whole=True)
    pack = read_manifest(tmp_path / "m.csv")
    image = cv2.cvtColor(cv2.imread(str(root / pack.rows[0].file)), cv2.COLOR_BGR2RGB)
    packed = pack.images[0].permute(1, 2, 0).numpy()
    expected = cv2.resize(image, packed.shape[:2])
    assert np.abs(packed.astype(int) - expected.astype(int)).mean() < 3


def test_any_folder_of_pictures_is_taken_as_real_when_that_is_said(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        draw(tmp_path / "dogs" / f"{i % 3}" / f"{i}.png", rng)
    with pytest.raises(DataError, match="--layout pictures"):
        build(tmp_path / "dogs", tmp_path / "m.csv", whole=True)
    summary = build(tmp_path / "dogs", tmp_path / "m.csv", whole=True, layout="pictures")
    assert summary["rows"] == 24
    assert set(summary["counts"]) == {"train real", "valid real", "test real"}
    pack = read_manifest(tmp_path / "m.csv")
    assert {row.label for row in pack.rows} == {0}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture and no video"):
        build(tmp_path / "empty", tmp_path / "m.csv", whole=True, layout="pictures")


def test_a_class_that_cannot_be_used_is_missed_in_every_other_layout(tmp_path):
    root = two_folders(tmp_path / "set")
    for path in (root / "fake").iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(DataError, match="no train fake"):
        build(root, tmp_path / "m.csv", whole=True, drop_unusable=True)


def test_near_duplicates_end_up_on_one_side(tmp_path):
    root = two_folders(tmp_path / "set")
    for i in range(8):
        image = cv2.imread(str(root / "real" / f"real{i}.png"))
        cv2.imwrite(str(root / "fake" / f"copy{i}.png"), cv2.GaussianBlur(image, (3, 3), 0))
    summary = build(root, tmp_path / "m.csv")
    assert summary["near_duplicates"] >= 8
    split_of = {row.file: row.split for row in read_manifest(tmp_path / "m.csv").rows}
    assert all(split_of[f"real/real{i}.png"] == split_of[f"fake/copy{i}.png"] for i in range(8))


def test_folders_of_the_real_side_are_people_unless_said_otherwise(tmp_path):
    root = two_folders(tmp_path / "set")
    summary = build(root, tmp_path / "m.csv")
    assert "split by file" in summary["notes"][0]
    for i, path in enumerate(sorted((root / "real").iterdir())):
        (root / "real" / f"p{i % 10}").mkdir(exist_ok=True)
        path.rename(root / "real" / f"p{i % 10}" / path.name)
    summary = build(root, tmp_path / "m.csv")
    assert "real files lie in 10 folders, each is taken as one person" in summary["notes"][0]
    sides = {}
    for row in read_manifest(tmp_path / "m.csv").rows:
        if not row.label:
            sides.setdefault(row.file.split("/")[1], set()).add(row.split)
    assert len(sides) == 10
    assert all(len(splits) == 1 for splits in sides.values())
    summary = build(root, tmp_path / "m.csv", by_file=True)
    assert "split by file" in summary["notes"][0]


def test_the_check_looks_at_the_pairs_itself(tmp_path):
    root = two_folders(tmp_path / "set")
    cv2.imwrite(str(root / "fake" / "copy.png"), cv2.GaussianBlur(cv2.imread(str(root / "real" / "real0.png")), (3, 3), 0))
    out = tmp_path / "m.csv"
    build(root, out)
    said = CliRunner().invoke(cli.app, ["manifest", "check", str(out)], env={"COLUMNS": "200"}).output
    assert "1 near-duplicate pairs, all on one side" in said
    # Given a manifest of an earlier version, which left such a pair on two sides.
    with out.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    copy = next(row for row in rows if row["file"].endswith("copy.png"))
    copy["split"] = "test" if copy["split"] == "train" else "train"
    with out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    sealed = json.loads(out.with_suffix(".summary.json").read_text())
    sealed["sha256"] = hashlib.sha256(out.read_bytes()).hexdigest()
    out.with_suffix(".summary.json").write_text(json.dumps(sealed))
    said = CliRunner().invoke(cli.app, ["manifest", "check", str(out)], env={"COLUMNS": "200"}).output
    assert "1 of them across splits" in said


def test_broken_and_faceless_files_stop_the_build_or_are_recorded(tmp_path):
    root = two_folders(tmp_path / "set")
    (root / "real" / "torn.png").write_bytes(b"\x89PNG torn")
    cv2.imwrite(str(root / "fake" / "flat.png"), np.full((80, 80, 3), 99, np.uint8))
    with pytest.raises(DataError, match=r"2 of 42 files cannot be used \(.*flat\.png: no face was found"):
        build(root, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()
    summary = build(root, tmp_path / "m.csv", drop_unusable=True)
    assert summary["rows"] == 40
    assert {(left["file"], left["why"]) for left in summary["left_out"]} == {
        ("fake/flat.png", "no face was found"),
        ("real/torn.png", "not a readable picture, or cut short"),
    }


def test_a_picture_that_is_cut_short_is_left_out_and_never_read_as_half_grey(tmp_path):
    root = two_folders(tmp_path / "set")
    (root / "fake" / "torn.jpg").write_bytes(torn_jpeg())
    summary = build(root, tmp_path / "m.csv", drop_unusable=True)
    assert [left["file"] for left in summary["left_out"]] == ["fake/torn.jpg"]
    assert cv2.imread(str(root / "fake" / "torn.jpg")) is not None  # what reading it by name would have given


def test_files_that_are_not_read_are_counted(tmp_path):
    root = tmp_path / "set"
    for seed, split in enumerate(("train", "valid", "test", "dev")):
        two_folders(root / split, 1, seed=seed)
    for name in ("train/real/a.tiff", "train/real/b.tiff", "test/fake/c.wmv", "README", ".hidden"):
        (root / name).write_bytes(b"x")
    summary = build(root, tmp_path / "m.csv")
    assert "not read, pictures and videos where layout splits has none: 2 in dev/" in summary["notes"]
    assert "not read, no known picture or video: 2 .tiff, 1 without a suffix, 1 .wmv" in summary["notes"]


def test_a_manifest_that_lost_rows_or_whose_files_changed_is_refused(tmp_path):
    root = two_folders(tmp_path / "set")
    out = tmp_path / "m.csv"
    build(root, out)
    whole = out.read_bytes()
    out.write_bytes(b"\n".join(whole.splitlines()[:-3]) + b"\n")
    with pytest.raises(DataError, match="40 rows then, 37 now"):
        read_summary(out)
    out.write_bytes(whole)
    victim = root / "real" / "real3.png"
    kept = victim.read_bytes()
    victim.write_bytes(kept + b" ")
    with pytest.raises(DataError, match=r"real3\.png: was changed"):
        read_manifest(out)
    victim.unlink()
    with pytest.raises(DataError, match=r"real3\.png: is in the manifest and not on disk"):
        read_manifest(out)
    shutil.rmtree(root)
    with pytest.raises(DataError, match="which is not there"):
        read_manifest(out)
    with pytest.raises(DataError, match="both must be there"):
        read_summary(tmp_path / "none.csv")


def test_data_may_be_a_manifest_or_a_folder_and_is_built_once(tmp_path, monkeypatch):
    root = two_folders(tmp_path / "set")
    monkeypatch.setattr("training.manifest_data.new_detector", MiddleFace)
    said = []
    first = manifest_of(root, tmp_path / "cache", said.append)
    number = len(said)
    assert manifest_of(root, tmp_path / "cache", said.append) == first
    assert len(said) == number
    material = gather(faces=None, videos=None, data=root, cache=tmp_path / "cache", say=said.append)
    assert len(material.faces) == 40
    # When a picture gives way to another of the same size, then the manifest in the cache is no longer that of the folder.
    victim = root / "real" / "real0.png"
    pixels = victim.read_bytes()
    draw(victim, np.random.default_rng(77))
    other = victim.read_bytes()
    size = max(len(pixels), len(other))
    victim.write_bytes(pixels.ljust(size))
    before = manifest_of(root, tmp_path / "cache", said.append)
    victim.write_bytes(other.ljust(size))
    os.utime(victim, ns=(0, victim.stat().st_mtime_ns + 1_000_000_000))
    assert manifest_of(root, tmp_path / "cache", said.append) != before
    assert len(gather(faces=None, videos=None, data=root, cache=tmp_path / "cache", say=said.append).faces) == 40
    with pytest.raises(DataError, match=rf"real0\.png: was changed .* build the manifest {re.escape(str(before))} again"):
        read_manifest(before)
    with pytest.raises(DataError, match="no such file or folder"):
        manifest_of(tmp_path / "none", tmp_path / "cache", said.append)


def joined(data, faces):
    """Rows of a folder of faces beside a data set."""
    return gather(faces=faces, videos=None, data=data, cache=data.parent / "cache", say=lambda _line: None).faces.rows


def split_of_files(data):
    return {row.file: row.split for row in gather(faces=None, videos=None, data=data, cache=data.parent / "cache", say=print).faces.rows}


def index_in_other_splits(folder, split_of):
    """Faces under the same names, each a group of its own, none of them in the split of its namesake."""
    for label in ("real", "fake"):
        (folder / label).mkdir(parents=True, exist_ok=True)
    other = {"train": "test", "valid": "train", "test": "train"}
    write_index(folder, [{"file": f, "label": f[:4], "group": f, "split": other[split]} for f, split in split_of.items()])


def test_files_of_one_name_in_two_data_sets_are_two(tmp_path, monkeypatch):
    monkeypatch.setattr("training.manifest_data.new_detector", MiddleFace)
    own = two_folders(tmp_path / "own", seed=1)
    split_of = split_of_files(own)
    index_in_other_splits(tmp_path / "crops", split_of)
    rows = joined(own, tmp_path / "crops")
    assert {row.file for row in rows} == {name for file in split_of for name in (file, f"own:{file}")}
    assert len({row.group for row in rows}) == len(rows) == 80


def test_a_folder_that_is_given_twice_and_a_person_in_two_data_sets_still_leak(tmp_path, monkeypatch):
    monkeypatch.setattr("training.manifest_data.new_detector", MiddleFace)
    own = two_folders(tmp_path / "own", seed=1)
    index_in_other_splits(own, split_of_files(own))
    with pytest.raises(LeakError, match="fake0"):
        joined(own, own)
    rng = np.random.default_rng(2)
    for i in range(12):
        draw(tmp_path / "people" / "real" / f"p{i}" / "0.png", rng)
        draw(tmp_path / "people" / "fake" / f"{i}.png", rng)
    held_out = next(file for file, split in split_of_files(tmp_path / "people").items() if split == "test" and file.startswith("real"))
    person = f"person:{held_out.split('/')[1]}"
    (tmp_path / "crops").mkdir()
    write_index(tmp_path / "crops", [{"file": "a.png", "label": "real", "group": person, "split": "train"}])
    with pytest.raises(LeakError, match=f"group '{person}'"):
        joined(tmp_path / "people", tmp_path / "crops")


def test_the_command_builds_checks_and_feeds_a_run(tmp_path, monkeypatch):
    root = two_folders(tmp_path / "set")
    monkeypatch.setattr("training.manifest_data.new_detector", MiddleFace)
    runner = CliRunner()
    out = tmp_path / "m.csv"
    built = runner.invoke(cli.app, ["manifest", "build", str(root), "--out", str(out)])
    assert built.exit_code == 0, built.output
    checked = runner.invoke(cli.app, ["manifest", "check", str(out)])
    assert checked.exit_code == 0, checked.output
    assert "train real" in checked.output
    ran = runner.invoke(
        cli.app,
        [
            "run",
            "autogan_cnn_raw",
            "--preset",
            "smoke",
            "--data",
            str(out),
            "--out",
            str(tmp_path / "run"),
            "--threads",
            "1",
            "--tensorboard",
        ],
    )
    assert ran.exit_code == 0, ran.output
    assert "test_auc" in ran.output
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_video_folders_go_through_the_decoder_and_face_detector_of_screening(tmp_path):
    # Given one clip with a face per split and class, and one that shows nobody.
    for i, split in enumerate(("train", "valid", "test")):
        for label in ("real", "fake"):
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            pictures = astronaut_pictures(10, size=(240, 180), zoom=1.0 + 0.1 * i + 0.05 * (label == "fake"))
            write_clip(folder / f"{split}.mp4", pictures)
    detector = manifest_data.new_detector()
    summary = build(tmp_path / "set", tmp_path / "m.csv", detector, num_frames=4)
    assert summary["counts"] == {f"{s} {k}": 1 for s in ("train", "valid", "test") for k in ("real", "fake")}
    pack = read_manifest(tmp_path / "m.csv", cache_dir=tmp_path / "cache", detector=detector)
    assert {row.kind for row in pack.rows} == {"video"}
    assert {(row.split, row.label) for row in pack.rows} == {(s, k) for s in ("train", "valid", "test") for k in (0, 1)}
    assert len(pack) >= 6 * 3
    assert read_manifest(tmp_path / "m.csv", cache_dir=tmp_path / "cache").sha256() == pack.sha256()
    # When a clip is another one than that whose crops are kept, then they are not taken for it.
    victim = tmp_path / "set" / "train" / "real" / "train.mp4"
    kept = victim.read_bytes()
    victim.write_bytes(kept + b" ")
    with pytest.raises(DataError, match=r"train\.mp4: was changed"):
        read_manifest(tmp_path / "m.csv", cache_dir=tmp_path / "cache")
    victim.write_bytes(kept)
    # When a clip shows nobody or is torn, then the build says which.
    write_clip(tmp_path / "set" / "train" / "real" / "empty.mp4", flat_pictures((90, 90, 90), 10))
    (tmp_path / "set" / "test" / "fake" / "torn.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42")
    with pytest.raises(DataError, match=r"2 of 8 files .*torn\.mp4"):
        build(tmp_path / "set", tmp_path / "n.csv", detector)
    summary = build(tmp_path / "set", tmp_path / "n.csv", detector, drop_unusable=True)
    assert [left["file"] for left in summary["left_out"]] == ["test/fake/torn.mp4", "train/real/empty.mp4"]


def test_a_video_whose_face_comes_late_is_looked_at_as_the_run_will(tmp_path):
    # Given faces in the second half only: of four frames two show one, which is too few to follow, of sixteen eight do.
    rng = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for label in ("real", "fake"):
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            pictures = [drawn_face(rng, 160)] * 20
            write_clip(folder / f"{split}.mp4", [np.full_like(pictures[0], 90)] * 20 + pictures)
    summary = build(tmp_path / "set", tmp_path / "m.csv")
    assert summary["rows"] == 6
    pack = read_manifest(tmp_path / "m.csv", detector=MiddleFace())
    assert len(pack) == 6 * 8
