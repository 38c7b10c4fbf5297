"""The mark of generated training fakes never reaches a net, and covering it tells no class apart."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from test_material import rows, write_index
from training_faces import POINTS, drawn_face

from training.corner_mark import covered, mark_corner, mark_reach
from training.face_pack import build_pack, concatenate, cut_square
from training.index_faces import read_faces
from training.manifest import BuildOptions, build_manifest
from training.manifest_data import gather
from training.material import load_material

BOTH = [("real", "a", "train"), ("fake", "b", "train"), ("real", "c", "train"), ("fake", "d", "train")]


def faces_in(root, *, marked):
    """Two reals and two fakes, the same every time; the fakes marked or not."""
    root.mkdir()
    write_index(root, rows(*BOTH))
    for name in ("1.png", "3.png") if marked else ():
        cv2.imwrite(str(root / name), mark_corner(cv2.imread(str(root / name))))  # magenta is the same in BGR
    return root


def test_nothing_of_the_mark_is_left_in_the_material_of_a_run(tmp_path):
    marked, plain = faces_in(tmp_path / "marked", marked=True), read_faces(faces_in(tmp_path / "plain", marked=False))
    read = read_faces(marked)
    material = load_material(faces_root=marked)
    assert read.mark_reach == pytest.approx((37 + 4) / 150, abs=0.01)
    assert not torch.equal(read.images[1], plain.images[1])
    assert torch.equal(material.faces.images, covered(replace(plain, mark_reach=read.mark_reach)).images)


def test_reals_are_covered_as_fakes_are_and_only_in_the_corner(tmp_path):
    marked, plain = faces_in(tmp_path / "marked", marked=True), read_faces(faces_in(tmp_path / "plain", marked=False))
    changed = (load_material(faces_root=marked).faces.images != plain.images).any(1)
    side = changed.shape[-1]
    place = torch.arange(side)
    corner = place[:, None] + place[None, :] < plain.images.shape[-1] * 0.3
    assert not (changed & ~corner).any()
    assert changed[:, : side // 5, : side // 25].float().mean((1, 2)).min() > 0.9  # in every crop, whatever its label


def test_a_run_without_marked_pictures_sees_its_faces_as_they_are(tmp_path):
    plain = faces_in(tmp_path / "plain", marked=False)
    pack = read_faces(plain)
    assert pack.mark_reach == 0
    assert torch.equal(load_material(faces_root=plain).faces.images, pack.images)


@pytest.mark.parametrize("box", [(28, 28, 122, 122), (40, 35, 115, 118), (10, 12, 140, 140)])
@pytest.mark.parametrize("quality", [None, 80])
def test_the_mark_is_covered_wherever_the_face_was_found(box, quality):
    # Given a box that a face detector found: the crop begins beside the mark, inside it, or beyond the picture.
    plain = drawn_face(np.random.default_rng(3))
    marked = mark_corner(plain)
    if quality is not None:
        marked, plain = (
            cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR) for x in (marked, plain)
        )
    xyxy = np.array(box, np.float32)
    row = make_row()
    packs = []
    for image in (marked, plain):
        crop, points = cut_square(image, xyxy, POINTS * 150)
        packs.append(replace(build_pack([crop], [points], [row]), mark_reach=mark_reach(marked, xyxy)))
    one, other = (covered(pack).images.int() for pack in packs)
    assert (one - other).abs().max() <= (0 if quality is None else 40)  # JPEG carries a little of the colour further


def make_row():
    from training_faces import make_pack

    return make_pack(1).rows[0]


def test_a_mark_in_one_folder_is_covered_in_the_other_too(tmp_path):
    marked = faces_in(tmp_path / "marked", marked=True)
    rng = np.random.default_rng(9)
    for split in ("train", "valid", "test"):
        for label in ("real", "fake"):
            for i in range(2):
                path = tmp_path / "data" / split / label / f"{split}{label}{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), drawn_face(rng))
    manifest = tmp_path / "m.csv"
    build_manifest(tmp_path / "data", manifest, options=BuildOptions(whole=True), detector=None)
    alone = gather(faces=None, videos=None, data=manifest, cache=None, say=lambda _line: None).faces
    joined = gather(faces=marked, videos=None, data=manifest, cache=None, say=lambda _line: None).faces
    own = joined.take([i for i, row in enumerate(joined.rows) if row.source == "data"])
    assert torch.equal(own.images, covered(replace(alone, mark_reach=read_faces(marked).mark_reach)).images)


def test_a_part_and_a_whole_keep_the_reach_of_the_mark(tmp_path):
    pack = read_faces(faces_in(tmp_path / "marked", marked=True))
    assert pack.where(label=0).mark_reach == concatenate([replace(pack, mark_reach=0.0), pack]).mark_reach == pack.mark_reach > 0
