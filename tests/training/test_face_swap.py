"""The face swapper makes marked, labelled training data of training people, and there is no other way to use it."""

import csv
import json
import math

import cv2
import numpy as np
import pytest
import torch
import typer
from training_faces import POINTS, make_pack

from training import cli
from training.corner_mark import is_marked, mark_corner
from training.errors import CheckpointError, DataError
from training.face_swap_loop import FaceSwapConfig, train_face_swap
from training.geometry import view
from training.index_faces import read_faces
from training.material import Material
from training.recipe import Context, run_recipe
from training.recipes import get_recipe
from training.recipes.face_swap_gan import two_identities
from training.simulators.base import Fakes, Reals
from training.simulators.face_swap import CANONICAL, FaceSwap, Swapper, align_faces, eye_regions, usable
from training.simulators.face_swap_nets import Decoder, Discriminator, Encoder, SelfAttention
from training.swap_identity import identity_distances
from training.training_fakes import write_training_fakes

TINY = FaceSwapConfig(base=8, lite=True, steps=2, batch=1, checkpoint_every=1, log_every=1)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("size_px", "base", "lite", "encoder", "decoder", "discriminator"),
    [
        (64, 64, False, 59_138_178, 6_304_502, 748_609),
        (64, 32, True, 10_067_778, 415_902, 748_609),
        (128, 64, False, 68_577_410, 6_494_393, 1_879_938),
        (128, 32, True, 19_047_746, 436_833, 1_879_938),
        (64, 16, True, 2_519_458, 104_978, 748_609),
    ],
)
def test_the_layouts_have_the_published_sizes(size_px, base, lite, encoder, decoder, discriminator):
    with torch.device("meta"):
        assert count(Encoder(size_px, base, lite=lite)) == encoder
        assert count(Decoder(size_px, base, lite=lite)) == decoder
        assert count(Discriminator(size_px, 64)) == discriminator


@pytest.mark.parametrize("lite", [True, False])
def test_a_face_and_a_mask_come_out_at_the_size_that_went_in(lite):
    with torch.no_grad():
        face, alpha, smaller = Decoder(128, 8, lite=lite)(Encoder(128, 8, lite=lite)(torch.rand(1, 3, 128, 128)))
        judged = Discriminator(128, 8)(torch.rand(1, 6, 128, 128))
    assert face.shape == (1, 3, 128, 128)
    assert alpha.shape == (1, 1, 128, 128)
    assert [s.shape[-1] for s in smaller] == [64]
    assert 0 <= float(alpha.min()) <= float(alpha.max()) <= 1
    assert judged.shape == (1, 1, 8, 8)


def test_attention_starts_as_the_identity_and_equals_its_formula():
    torch.manual_seed(0)
    attention, x = SelfAttention(16), torch.randn(2, 16, 6, 6)
    assert torch.equal(attention(x), x)
    with torch.no_grad():
        attention.scale.fill_(1.0)
        q, k, v = (layer(x).flatten(2) for layer in (attention.query, attention.key, attention.value))
        expected = (v @ torch.softmax(q.transpose(1, 2) @ k, -1).transpose(1, 2)).reshape(x.shape)
        assert torch.allclose(attention(x) - x, expected, atol=1e-5)


def test_aligned_faces_have_their_points_in_place(toy_pack):
    points = torch.from_numpy(POINTS).expand(2, 5, 2)
    images = torch.zeros(2, 3, 100, 100)
    for x, y in POINTS[:2]:
        images[:, :, int(y * 100) - 2 : int(y * 100) + 3, int(x * 100) - 2 : int(x * 100) + 3] = 1
    aligned, _ = align_faces(images, points, 64)
    for x, y in CANONICAL[:2]:
        assert aligned[0, 0, int(y * 64) - 3 : int(y * 64) + 4, int(x * 64) - 3 : int(x * 64) + 4].max() > 0.5
    assert aligned.mean() < 0.1


def test_empty_eye_regions_are_an_error_and_never_zeros():
    assert float(eye_regions(64).sum()) > 50
    with pytest.raises(DataError, match="eye regions are empty"):
        eye_regions(64, CANONICAL + 5)


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    people = (make_pack(2, seed=1), make_pack(2, seed=2, first_group=50))
    whole, _ = train_face_swap(people, TINY, tmp_path / "whole", on_log=lambda _row: None)

    class KilledError(Exception):
        pass

    def die(row):
        if row["step"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train_face_swap(people, TINY, tmp_path / "killed", on_log=die)
    again, _ = train_face_swap(people, TINY, tmp_path / "killed", on_log=lambda _row: None)
    for one, other in zip((whole.encoder, *whole.decoders), (again.encoder, *again.decoders), strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="other data or settings"):
        train_face_swap(people[::-1], TINY, tmp_path / "killed", on_log=lambda _row: None)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One smoke run of the recipe; untrained masks lie near a half, so that its fakes pass the checks."""
    folder = tmp_path_factory.mktemp("swap")
    recipe = get_recipe("face_swap_gan")
    outcome = run_recipe(recipe, Context(recipe.settings("smoke"), Material(make_pack(24, seed=5), "toy"), folder))
    return folder / "training_fakes", outcome


def test_every_fake_is_marked_labelled_and_of_a_training_person(written):
    folder, outcome = written
    with (folder / "index.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == outcome.metrics["accepted"] > 0
    assert {row["label"] for row in rows} == {"fake"}
    assert {row["split"] for row in rows} == {"train"}
    assert {row["generator"] for row in rows} == {"face_swap_gan"}
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert files == sorted(row["file"] for row in rows)
    for file in files:
        assert is_marked(cv2.cvtColor(cv2.imread(str(folder / file)), cv2.COLOR_BGR2RGB))
    assert "for training a detector" in (folder / "NOTICE.txt").read_text()
    assert json.loads((folder / "made_by.json").read_text())["count"] == len(rows)
    pack = read_faces(folder)
    assert all(row.label == 1 for row in pack.rows)
    assert pack.mark_reach > 0  # so that a run covers the marks


def test_names_and_order_say_nothing_about_where_a_fake_came_from(written):
    folder, _ = written
    names = [path.stem for path in sorted((folder / "fake").glob("*.png"))]
    assert all(len(name) == 20 and set(name) <= set("0123456789abcdef") for name in names)


def test_a_mark_survives_jpeg_and_its_absence_is_seen():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert not is_marked(image)
    _, data = cv2.imencode(".jpg", mark_corner(image), [cv2.IMWRITE_JPEG_QUALITY, 75])
    assert is_marked(cv2.imdecode(data, cv2.IMREAD_COLOR))


def fakes_of(pack, size=48):
    images = torch.rand(len(pack), 3, size, size)
    return Fakes(images, torch.ones(len(pack), 1, size, size), images, {"alpha": [0.5] * len(pack)})


def test_only_training_people_are_written_and_only_into_a_folder_of_their_own(tmp_path):
    train, test = make_pack(2), make_pack(2, split="test")
    points = torch.rand(2, 5, 2)

    def write(pack, folder):
        return write_training_fakes(folder, [(fakes_of(pack), pack.rows, points)], generator_name="g", salt="s", settings={})

    with pytest.raises(DataError, match="training split only"):
        write(test, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="folder of their own"):
        write(train, tmp_path / "b")
    with pytest.raises(DataError, match="nothing to write"):
        write_training_fakes(tmp_path / "c", [], generator_name="g", salt="s", settings={})
    assert write(train, tmp_path / "d").count == 2


def test_collapsed_masks_and_unchanged_faces_are_dropped():
    images = torch.rand(3, 3, 32, 32)
    changed = (images + 0.2).clamp(0, 1)
    fakes = Fakes(changed, torch.ones(3, 1, 32, 32), images, {"alpha": [0.01, 0.5, 0.99]})
    assert usable(fakes).tolist() == [False, True, False]
    assert not usable(Fakes(images, torch.ones(3, 1, 32, 32), images, {"alpha": [0.5] * 3})).any()


def test_random_weights_make_no_fakes():
    swapper = Swapper(Encoder(64, 8, lite=True), (Decoder(64, 8, lite=True), Decoder(64, 8, lite=True)), 64)
    with pytest.raises(DataError, match="needs trained weights"):
        FaceSwap(swapper, trained=False)


def test_outside_its_mask_a_fake_is_its_real(toy_pack):
    torch.manual_seed(0)
    swapper = Swapper(Encoder(64, 8, lite=True), (Decoder(64, 8, lite=True), Decoder(64, 8, lite=True)), 64)
    images, points = toy_pack.images[:4].float() / 255, toy_pack.landmarks[:4]
    fakes = FaceSwap(swapper, trained=True)(Reals(images, points), torch.Generator().manual_seed(1))
    difference = (fakes.images - fakes.reals).abs().amax(1, keepdim=True)
    assert float((difference * (fakes.masks < 1e-4)).max()) < 1e-3
    assert float(difference.max()) > 0.02


def test_identities_are_two_training_people_or_two_sets_that_share_nobody(toy_pack):
    a, b = two_identities(toy_pack)
    assert not {row.group for row in a.rows} & {row.group for row in b.rows}
    assert len(a) + len(b) == len(toy_pack)
    with pytest.raises(DataError, match="training split"):
        two_identities(make_pack(4, split="valid"))
    with pytest.raises(DataError, match="two people"):
        two_identities(toy_pack.take([0, 0]))


def test_no_command_takes_swapper_weights_or_writes_a_video():
    # Given every command of the command line, then none can be pointed at a picture or a video to be swapped.
    commands = typer.main.get_command(cli.app).commands
    for name, command in commands.items():
        options = {parameter.name for parameter in command.params}
        assert not options & {"swapper", "swap", "weights", "video", "image", "target"}, name
    settings = set(type(get_recipe("face_swap_gan").settings("smoke")).__dataclass_fields__)
    assert not {name for name in settings if "path" in name or "file" in name or "init" in name or "video" in name}


def test_the_identity_distance_tells_a_swap_that_carries_the_person_from_one_that_does_not(toy_pack):
    half = len(toy_pack) // 2
    people = (toy_pack.take(range(half)), toy_pack.take(range(half, len(toy_pack))))
    dark, light = torch.zeros(2, 3, 32, 32), torch.ones(2, 3, 32, 32)

    def embed(images):
        """Brightness as an angle: a person is how bright the faces are."""
        angle = images.mean((1, 2, 3)) * math.pi / 2
        return torch.stack([angle.cos(), angle.sin()], 1)

    own = embed(view(people[1], torch.arange(half), size_px=160, margin=1.3)[0]).mean(0)
    target = (torch.atan2(own[1], own[0]) * 2 / math.pi).expand(2, 3, 32, 32)
    mask = torch.ones(2, 1, 32, 32)
    carried = identity_distances(embed, people, [Fakes(target, mask, dark, {"to": 1})])
    not_carried = identity_distances(embed, people, [Fakes(light, mask, dark, {"to": 1})])

    assert carried["identity_distance_swapped"] == pytest.approx(0, abs=1e-3)
    assert not_carried["identity_distance_swapped"] > 0.05
    assert carried["identity_distance_before"] == not_carried["identity_distance_before"] > 0.05


def test_the_recipe_measures_identity_with_weights_that_the_user_brings_and_refuses_others_before_it_trains(tmp_path):
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    brought, recipe = tmp_path / "recogniser.pt", get_recipe("face_swap_gan")
    torch.save({**InceptionResnetV1(pretrained=None).state_dict(), "logits.weight": torch.zeros(3, 512)}, brought)
    material = Material(make_pack(24, seed=5), "toy")
    outcome = run_recipe(recipe, Context(recipe.settings("smoke", [f"recogniser={brought}"]), material, tmp_path / "run"))

    assert {"identity_distance_swapped", "identity_distance_before", "identity_distance_people"} <= outcome.metrics.keys()
    torch.save({"conv.weight": torch.zeros(1)}, brought)
    with pytest.raises(CheckpointError, match=r"recogniser\.pt"):
        run_recipe(recipe, Context(recipe.settings("smoke", [f"recogniser={brought}"]), material, tmp_path / "refused"))
    assert not (tmp_path / "refused" / "checkpoint.pt").exists()
