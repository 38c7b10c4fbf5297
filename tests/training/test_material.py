"""Reading data: crops where the index says, splits by person, leaks refused, errors that name the file."""

import csv
import dataclasses

import cv2
import numpy as np
import pytest
from training_faces import POINTS, drawn_face, make_pack

from training.errors import DataError, LeakError
from training.face_pack import PACK_SIDE_PX, FaceRow, concatenate, cut_square
from training.index_faces import read_faces
from training.material import _load_pack, _save_pack, check_splits, load_material
from training.split_videos import VideoRow, assign_splits, person, read_video_manifest

COLUMNS = ["file", "source", "label", "generator", "group", "split", "face_px_original", "x1", "y1", "x2", "y2"]
COLUMNS += [f"{p}_{a}" for p in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right") for a in "xy"]


def write_index(root, rows):
    rng = np.random.default_rng(0)
    with (root / "index.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        for row in rows:
            cv2.imwrite(str(root / row["file"]), drawn_face(rng))
            points = {
                f"{p}_{a}": POINTS[i][j] * 150
                for i, p in enumerate(("left_eye", "right_eye", "nose", "mouth_left", "mouth_right"))
                for j, a in enumerate("xy")
            }
            writer.writerow(
                {"source": "s", "generator": "", "face_px_original": 94, "x1": 28, "y1": 28, "x2": 122, "y2": 122, **points, **row}
            )


def rows(*specs):
    return [{"file": f"{i}.png", "label": label, "group": group, "split": split} for i, (label, group, split) in enumerate(specs)]


def test_polarity_and_split_come_from_the_index(tmp_path):
    write_index(tmp_path, rows(("real", "a", "train"), ("fake", "b", "test")))
    pack = read_faces(tmp_path)
    assert [(row.label, row.split) for row in pack.rows] == [(0, "train"), (1, "test")]
    assert pack.images.shape == (2, 3, PACK_SIDE_PX, PACK_SIDE_PX)
    assert len(read_faces(tmp_path, keep=lambda row: row.label == 1)) == 1


def test_a_group_in_two_splits_is_refused(tmp_path):
    write_index(tmp_path, rows(("real", "a", "train"), ("real", "a", "test")))
    with pytest.raises(LeakError, match="group a"):
        read_faces(tmp_path)


def test_broken_data_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no index\.csv"):
        read_faces(tmp_path)
    write_index(tmp_path, rows(("real", "a", "train"), ("real", "b", "train")))
    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"1\.png"):
        read_faces(tmp_path)
    with pytest.raises(DataError, match="label must be"):
        FaceRow("x", "s", 2, "", "g", "train", "still", 50.0)
    with pytest.raises(DataError, match="no data was given"):
        load_material()


def test_leaks_across_packs_are_found():
    train, test = make_pack(2), make_pack(2, split="test")
    check_splits(concatenate([train, test]).rows)
    stolen = dataclasses.replace(test.rows[0], group=train.rows[0].group)
    with pytest.raises(LeakError, match="keep it in one"):
        check_splits([*train.rows, stolen])


def test_square_crops_repeat_the_border_and_carry_the_points():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :, 0] = 200
    box = np.array([40, 5, 70, 35], np.float32)
    crop, points = cut_square(image, box, np.array([[55, 20]] * 5, np.float32), margin=1.0, side_px=60)
    assert crop.shape == (60, 60, 3)
    assert (crop[:, :, 0] == 200).all()
    assert np.allclose(points, 0.5)
    with pytest.raises(DataError, match="outside"):
        cut_square(image, np.array([500, 500, 530, 530], np.float32), np.zeros((5, 2), np.float32))


def test_people_are_never_split_and_fakes_are_never_trained_on():
    made = [VideoRow(f"{i}.mp4", 0, f"s{i % 9}", "", f"p{i % 40}") for i in range(200)]
    made += [VideoRow("f.mp4", 1, "maker", "g", "p1"), VideoRow("h.mp4", 0, "held", "", "p2")]
    out = assign_splits(made, held_out_sources=frozenset({"held"}))
    by_group = {}
    for row in out:
        by_group.setdefault(row.group, set()).add(row.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert by_group["p1"] == by_group["p2"] == {"test"}
    shares = [sum(row.split == split for row in out) / len(out) for split in ("train", "valid", "test")]
    assert 0.5 < shares[0] < 0.9
    assert min(shares) > 0


def test_people_have_one_name_across_sources():
    assert person("sadtalker", "sadtalker:AOC") == person("edtalk", "AOC")
    assert person("styletalk", "manA2") == person("styletalk", "manA")
    assert person("lia", "man") != person("xportrait", "man")
    assert person("liveportrait", "liveportrait:d0") == "liveportrait:d0"


def test_a_manifest_with_a_missing_file_is_refused(tmp_path):
    (tmp_path / "MANIFEST.tsv").write_text("file\tlabel\tsource\tgenerator\tidentity\nx.mp4\treal\ts\t\tp\n")
    with pytest.raises(DataError, match=r"x\.mp4 is not there"):
        read_video_manifest(tmp_path)
    (tmp_path / "x.mp4").write_bytes(b"1")
    assert read_video_manifest(tmp_path)[0].group == "p"


def test_a_cached_pack_is_the_pack(tmp_path):
    pack = make_pack(3, kind="video")
    _save_pack(pack, tmp_path / "p.safetensors")
    assert _load_pack(tmp_path / "p.safetensors").sha256() == pack.sha256()
