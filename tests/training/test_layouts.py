"""Every published layout is read with the right polarity, and says who must stay together."""

import json

import pytest

from training.errors import DataError
from training.layout_notes import notes_on
from training.layouts import read_layout, recognise


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def by_file(root):
    layout = recognise(root)
    return layout, {item.file: item for item in read_layout(root, layout)[1]}


def test_split_folders_are_read_by_name_and_never_by_alphabet(tmp_path):
    touch(tmp_path, *[f"{split}/{label}/{split}{label}.jpg" for split in ("train", "valid", "test") for label in ("fake", "real")])
    layout, items = by_file(tmp_path)
    assert layout == "splits"
    assert {(i.file.split("/")[1], i.label) for i in items.values()} == {("fake", 1), ("real", 0)}
    assert {i.split for i in items.values()} == {"train", "valid", "test"}


def test_an_outer_folder_and_deeper_generators_are_seen(tmp_path):
    touch(tmp_path, "data/real/a.png", "data/fake/stylegan/b.png", "data/fake/c.png")
    layout, items = by_file(tmp_path)
    assert layout == "two_folders"
    assert {i.file: i.generator for i in items.values()} == {"real/a.png": "", "fake/stylegan/b.png": "stylegan", "fake/c.png": "unnamed"}


def test_masks_of_faceforensics_are_no_fakes(tmp_path):
    touch(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",
    )
    _, items = by_file(tmp_path)
    assert sorted(items) == ["manipulated_sequences/Deepfakes/c23/videos/000_003.mp4", "original_sequences/youtube/c23/videos/000.mp4"]


def test_faceforensics_ties_both_people_of_a_swap(tmp_path):
    touch(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "manipulated_sequences/NeuralTextures/c23/videos/003_000.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking__ABC.mp4",
    )
    (tmp_path / "splits").mkdir()
    for name, pairs in (("train", [["000", "003"]]), ("val", []), ("test", [])):
        (tmp_path / "splits" / f"{name}.json").write_text(json.dumps(pairs))
    layout, items = by_file(tmp_path)
    assert layout == "ffpp"
    swap = items["manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"]
    assert (swap.label, swap.generator, swap.identities, swap.split) == (1, "Deepfakes", ("ff:000", "ff:003"), "train")
    assert items["manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking__ABC.mp4"].identities == ("dfd:01", "dfd:02")
    assert items["original_sequences/youtube/c23/videos/000.mp4"].label == 0


def test_celebdf_and_dfdc_name_their_people_and_originals(tmp_path):
    touch(tmp_path / "c", "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id16_0000.mp4", "YouTube-real/00007.mp4")
    layout, items = by_file(tmp_path / "c")
    assert layout == "celebdf"
    assert items["Celeb-synthesis/id0_id16_0000.mp4"].identities == ("id0", "id16")
    assert items["YouTube-real/00007.mp4"].label == 0
    # Frames carry the name of their video on their folder.
    touch(
        tmp_path / "f",
        *[f"{n}.png" for n in ("Celeb-real/frames/id0_0000/000", "YouTube-real/00007/001", "Celeb-synthesis/id0_id1_0000/000")],
    )
    names = {item.file.split("/")[0]: item.identities for item in read_layout(tmp_path / "f", "celebdf")[1]}
    assert names == {"Celeb-real": ("id0",), "YouTube-real": ("youtube:00007",), "Celeb-synthesis": ("id0", "id1")}
    touch(tmp_path / "d", "part_0/a.mp4", "part_0/b.mp4")
    facts = {"a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"}, "b.mp4": {"label": "REAL", "split": "train"}}
    (tmp_path / "d" / "part_0" / "metadata.json").write_text(json.dumps(facts))
    layout, items = by_file(tmp_path / "d")
    assert layout == "dfdc"
    assert items["part_0/a.mp4"].identities == items["part_0/b.mp4"].identities == ("dfdc:b.mp4",)
    facts["gone.mp4"] = {"label": "REAL"}
    (tmp_path / "d" / "part_0" / "metadata.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"gone\.mp4, which is not there"):
        read_layout(tmp_path / "d", "dfdc")


def test_dfdc_says_that_actors_may_stand_in_several_splits(tmp_path):
    touch(tmp_path, "part_0/a.mp4", "part_0/b.mp4")
    facts = {"a.mp4": {"label": "FAKE", "original": "b.mp4"}, "b.mp4": {"label": "REAL"}}
    (tmp_path / "part_0" / "metadata.json").write_text(json.dumps(facts))
    root, items = read_layout(tmp_path, "dfdc")
    (note,) = notes_on(root, "dfdc", items)
    assert "one actor may stand in several splits" in note
    assert "sort whole dfdc_train_part_* folders" in note


def test_what_cannot_be_read_is_said_with_its_place(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no picture and no video"):
        recognise(tmp_path)
    touch(tmp_path, "stuff/a.jpg", "more/b.jpg")
    with pytest.raises(DataError, match="no known layout"):
        recognise(tmp_path)
    touch(tmp_path / "x", "real/a.jpg", "fake/note.txt")
    with pytest.raises(DataError, match="none of them fake"):
        read_layout(tmp_path / "x", "two_folders")
    touch(tmp_path / "y", "real/a.jpg", "fake/b.jpg", "maybe/c.jpg")
    with pytest.raises(DataError, match="cannot tell whether it holds real or fake"):
        read_layout(tmp_path / "y", "two_folders")
