"""Every simulator keeps the contract: outside the mask nothing changes, inside something does, draws repeat."""

from pathlib import Path

import pytest
import torch

import training.recipes
from detect_core.nets.autogan import AutoGan
from training.errors import DataError
from training.geometry import align_to, random_views, view
from training.simulators.base import Fakes, Reals
from training.simulators.blends import CrossBlend, DecoderBlend, MouthResynthesis, SelfBlend, WarpBlend, match_colour, nearest_layout
from training.simulators.classical_swap import ClassicalSwap
from training.simulators.masks import SHAPES, draw_masks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def reals_of(pack, count=6, side=96):
    images, landmarks = random_views(pack, torch.arange(count), size_px=side, generator=generator(1))
    return Reals(images, landmarks)


def autoencoder():
    torch.manual_seed(0)
    return AutoGan(1, 4)


SIMULATORS = {
    "self_blend": SelfBlend,
    "cross_blend": CrossBlend,
    "warp_blend": WarpBlend,
    "mouth": MouthResynthesis,
    "decoder_blend": lambda: DecoderBlend([autoencoder()], whole_share=0.5),
}


EVERY = {**SIMULATORS, "classical_swap": ClassicalSwap}


@pytest.mark.parametrize("family", sorted(EVERY))
def test_a_fake_differs_from_its_real_only_where_the_mask_says_so(toy_pack, family):
    simulator = EVERY[family]()
    fakes = simulator(reals_of(toy_pack), generator(3))
    assert simulator.family == family
    assert fakes.recipe["family"] == family
    difference = (fakes.images - fakes.reals).abs().amax(1, keepdim=True)
    assert (difference * (fakes.masks < 1e-4)).max() < 1e-3
    assert difference.flatten(1).amax(1).min() > 0.01
    assert fakes.images.min() >= 0
    assert fakes.images.max() <= 1
    assert fakes.masks.min() >= 0
    assert fakes.masks.max() <= 1


@pytest.mark.parametrize("family", sorted(EVERY))
@pytest.mark.parametrize("side", [16, 32, 44])
def test_small_pictures_are_faked_too(toy_pack, family, side):
    fakes = EVERY[family]()(reals_of(toy_pack, side=side), generator(3))
    assert fakes.images.shape == (6, 3, side, side)


def test_no_recipe_trains_on_the_classical_swap():
    for recipe in Path(training.recipes.__file__).parent.glob("*.py"):
        assert "classical_swap" not in recipe.read_text().lower()
        assert "ClassicalSwap" not in recipe.read_text()
        assert "ClassicalSwap" not in recipe.read_text()


@pytest.mark.parametrize("family", sorted(SIMULATORS))
def test_equal_generators_make_equal_fakes(toy_pack, family):
    simulator = SIMULATORS[family]()
    reals = reals_of(toy_pack)
    first, second, other = (simulator(reals, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_lie_on_the_face_and_reach_one(toy_pack, shape):
    reals = reals_of(toy_pack, count=8)
    masks = draw_masks(reals.landmarks, 96, generator(), shape=shape)
    assert masks.shape == (8, 1, 96, 96)
    assert masks.amax((1, 2, 3)).min() > 0.85
    assert masks.mean() < 0.5
    corners = torch.stack([masks[:, 0, 0, 0], masks[:, 0, 0, -1], masks[:, 0, -1, 0], masks[:, 0, -1, -1]])
    assert corners.max() < 0.05


def test_mouth_masks_cover_the_mouth_and_not_the_eyes(toy_pack):
    images, landmarks = view(toy_pack, torch.arange(8), size_px=96, margin=1.3)
    masks = draw_masks(landmarks, 96, generator(), shape="mouth")
    for mask, points in zip(masks, landmarks, strict=True):
        mouth, eyes = points[3:].mean(0), points[:2].mean(0)
        at = [(p * 96).long().clamp(0, 95) for p in (mouth, eyes)]
        assert mask[0, at[0][1], at[0][0]] > 0.5
        assert mask[0, at[1][1], at[1][0]] < 0.1
    assert images.shape == (8, 3, 96, 96)


def test_alignment_brings_the_points_together():
    target = torch.rand(3, 5, 2) * 0.4 + 0.3
    angle, zoom = 0.3, 1.4
    rotation = torch.tensor(
        [
            [torch.cos(torch.tensor(angle)), -torch.sin(torch.tensor(angle))],
            [torch.sin(torch.tensor(angle)), torch.cos(torch.tensor(angle))],
        ]
    )
    source = (target - 0.5) @ rotation.T * zoom + 0.55
    theta = align_to(source, target)
    mapped = torch.einsum("bij,bpj->bpi", theta[:, :, :2], 2 * target - 1) + theta[:, None, :, 2]
    assert torch.allclose((mapped + 1) / 2, source, atol=1e-4)


def test_a_donor_is_never_oneself():
    landmarks = torch.rand(7, 5, 2)
    donors = nearest_layout(landmarks, generator())
    assert (donors != torch.arange(7)).all()


def test_colour_match_moves_mean_and_spread():
    inner, outer = torch.rand(2, 3, 32, 32) * 0.3, torch.rand(2, 3, 32, 32) * 0.5 + 0.3
    out = match_colour(inner, outer, torch.ones(2, 1, 32, 32), torch.ones(2))
    assert torch.allclose(out.mean((2, 3)), outer.mean((2, 3)), atol=0.02)


def test_views_carry_their_landmarks(toy_pack):
    # Given the same face mirrored, then the left eye of one is the right eye of the other.
    plain, points = view(toy_pack, torch.arange(4), size_px=80, margin=1.3)
    mirrored, flipped = view(toy_pack, torch.arange(4), size_px=80, margin=1.3, flip=torch.ones(4, dtype=torch.bool))
    assert torch.allclose(plain.flip(3), mirrored, atol=2e-2)
    assert torch.allclose(flipped[:, 0, 0], 1 - points[:, 1, 0], atol=1e-4)
    assert torch.allclose(flipped[:, 0, 1], points[:, 1, 1], atol=1e-4)


def test_batches_of_wrong_shape_are_refused():
    with pytest.raises(DataError, match="landmarks"):
        Reals(torch.zeros(2, 3, 8, 8), torch.zeros(3, 5, 2))
    with pytest.raises(DataError, match="masks"):
        Fakes(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 8, 8), {})
