"""What an engineer gets wrong, through the command line: exit code 2 and one sentence with the file and what to do."""

import csv
import dataclasses
import re

import pytest
import torch
from test_material import rows, write_index
from training_faces import make_pack, torn_jpeg

from builders import flat_pictures, write_clip
from training import cli
from training.errors import DataError
from training.material import _told_faceless
from training.split_videos import read_video_manifest
from training.video_faces import read_videos

SPLITS = ("train", "valid", "test")


@pytest.fixture
def faces(tmp_path):
    """Both classes in every split, four people each."""
    root = tmp_path / "faces"
    root.mkdir()
    write_index(root, rows(*[(label, f"{label}{split}{i}", split) for split in SPLITS for label in ("real", "fake") for i in range(4)]))
    return root


@pytest.fixture
def asked(monkeypatch, capsys, tmp_path):
    """Run `veriframe-train` and give back what it said; it must refuse."""

    def ask(*arguments, refused=True):
        out = ("--out", str(tmp_path / "run")) if arguments[0] == "run" else ()
        monkeypatch.setattr("sys.argv", ["veriframe-train", *map(str, arguments), *out])
        monkeypatch.setenv("COLUMNS", "1000")
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == (2 if refused else 0)
        said = " ".join(capsys.readouterr().out.split())
        assert not refused or "error: " in said
        return re.sub(r"/ ", "/", said)

    return ask


def train(asked, folder, *more, recipe="autogan_cnn_raw", refused=True, plain=False):
    chosen = () if plain else ("--set", 'sources=["s"]')
    return asked("run", recipe, "--preset", "smoke", "--faces", folder, *chosen, *more, refused=refused)


def lines_of(folder):
    return (folder / "index.csv").read_text().splitlines(keepends=True)


def test_a_broken_picture(asked, faces):
    (faces / "3.png").write_bytes(b"torn")
    said = train(asked, faces)
    assert "3.png: not a readable picture" in said
    assert "restore the file or take its row out of index.csv" in said


def test_a_picture_that_is_cut_short(asked, faces):
    (faces / "3.png").write_bytes(torn_jpeg())
    said = train(asked, faces)
    assert "3.png: not a readable picture, or cut short" in said
    assert "restore the file or take its row out of index.csv" in said


def test_a_row_that_cannot_be_read(asked, faces):
    lines = lines_of(faces)
    (faces / "index.csv").write_text("".join([lines[0], lines[1].replace("28", "left")]))
    said = train(asked, faces)
    assert "index.csv: the row of '0.png' cannot be read" in said
    assert "build the index again" in said


def test_one_class_missing(asked, faces):
    with (faces / "index.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    with (faces / "index.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, table[0])
        writer.writeheader()
        writer.writerows(row for row in table if row["label"] == "real" or row["split"] != "valid")
    said = train(asked, faces)
    assert "'valid fake': 0" in said
    assert "--set sources=" in said


def test_leaking_splits(asked, faces):
    (faces / "index.csv").write_text("".join(lines_of(faces)).replace("realtest0", "realtrain0"))
    said = train(asked, faces)
    assert "index.csv: group realtrain0 stands in train and test" in said
    assert "keep a group together" in said


def test_an_empty_folder_an_empty_index_and_no_data(asked, faces, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty: no index.csv there; give the folder that holds it" in train(asked, tmp_path / "empty")
    assert "empty: no MANIFEST.tsv there; give the folder" in asked("run", "blend", "--videos", tmp_path / "empty")
    assert "empty: holds no picture and no video; give the folder" in asked("run", "blend", "--data", tmp_path / "empty")
    (faces / "index.csv").write_text(lines_of(faces)[0])
    assert "index.csv: names no face that this run can use (0 rows); give a folder with faces" in train(asked, faces)
    assert "name a folder of face crops (--faces) or of videos (--videos)" in asked("run", "blend")


def test_a_loss_that_is_not_finite(asked, faces):
    said = train(asked, faces, "--set", "learning_rate=1e30", "--set", "steps=30", "--set", "bf16=false")
    assert re.search(r"run: loss at step \d+ is nan", said)
    assert "lower the learning rate" in said
    assert "log.jsonl" in said


def test_memory_that_runs_out(asked, faces, monkeypatch):
    def full(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("training.study_data.StudyData.batch", full)
    said = train(asked, faces)
    assert "ran out of memory" in said
    assert "lower batch or pairs and size_px (--set batch=...)" in said
    assert "run keeps what was saved" in said


def test_a_wrong_checkpoint_less_data_and_other_settings(asked, faces, tmp_path):
    train(asked, faces, refused=False)
    assert "belongs to a run with other data or settings; give another run folder or delete it" in train(
        asked, faces, "--set", "margin=1.4"
    )
    checkpoint = tmp_path / "run" / "net" / "checkpoint.pt"
    checkpoint.write_bytes(b"torn")
    said = train(asked, faces)
    assert "checkpoint.pt: not a readable checkpoint" in said
    assert "delete it to start the run again" in said
    checkpoint.unlink()
    (faces / "index.csv").write_text("".join(lines_of(faces)[:-1]))
    said = train(asked, faces)
    assert "config.json: this run was begun on other material (24 face crops" in said
    assert "give the same data again, or another run folder (--out)" in said


def test_weights_that_are_not_there_or_of_another_net(asked, faces, tmp_path):
    assert "none.pt: no such file" in train(asked, faces, "--set", f"init_weights={tmp_path / 'none.pt'}")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    assert "other.pt: has no weight 'features.0.weight'" in train(asked, faces, "--set", f"init_weights={tmp_path / 'other.pt'}")


def test_fewer_faces_than_a_batch_wants(asked, faces):
    said = train(asked, faces, recipe="blend", plain=True)
    assert "a batch of 12 pairs needs as many real faces, split 'train' has 4" in said
    assert "lower the batch (--set pairs=...) or give more faces" in said


def test_videos_that_cannot_be_read_and_a_list_that_lacks_columns(asked, tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    listed = root / "MANIFEST.tsv"
    listed.write_text("file\tlabel\nx.mp4\treal\n")
    assert "MANIFEST.tsv: columns source, generator, identity are missing" in asked("run", "blend", "--videos", root)
    listed.write_text("file\tlabel\tsource\tgenerator\tidentity\n")
    assert "MANIFEST.tsv: names no video; add a row for each" in asked("run", "blend", "--videos", root)
    listed.write_text("file\tlabel\tsource\tgenerator\tidentity\nx.mp4\treal\ts\t\tp\n")
    (root / "x.mp4").write_bytes(b"not a video")
    said = asked("run", "blend", "--videos", root, "--cache", tmp_path / "cache")
    assert "x.mp4: cannot be used for training" in said
    assert "repair it or take its row out of the manifest" in said


def test_videos_without_a_face_are_named_and_told(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    write_clip(root / "wall.mp4", flat_pictures((90, 120, 60), 30))
    (root / "MANIFEST.tsv").write_text("file\tlabel\tsource\tgenerator\tidentity\nwall.mp4\treal\ts\t\tp\n")

    class Blind:
        name = "blind"

        def find(self, images, *, min_face_px):
            assert min_face_px > 0
            return [[] for _ in images]

        def refine(self, items):
            return [[None] * len(boxes) for _, boxes in items]

    rows_of = read_video_manifest(root)
    with pytest.raises(DataError, match=r"videos: none of its 1 videos shows a face that can be followed; give videos of people"):
        read_videos(root, rows_of, detector=Blind())
    said = []
    pack = make_pack(2, kind="video")
    assert _told_faceless(root, pack, said.append) == " (1 videos without a face)"
    assert "first" in said[0]
    assert "wall.mp4; take their rows out" in said[0]
    seen = dataclasses.replace(pack, rows=tuple(dataclasses.replace(row, file="wall.mp4@0.1") for row in pack.rows))
    assert _told_faceless(root, seen, said.append) == ""
