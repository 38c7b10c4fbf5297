"""Defects of the studies that no flag brings back: pictures that decoders cannot reach, mixed-up pairs, a net that never learned."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn
from training_faces import make_pack

from detect_core.nets.autogan import AutoGan, PatchDiscriminator
from training.adversarial import AdversarialConfig, train_adversarial
from training.face_pack import concatenate
from training.material import Material
from training.noise_gan import NoiseGanConfig, train_noise_gan
from training.recipe import Context, run_recipe
from training.recipes import get_recipe
from training.study_data import ClassifySettings, StudyData


class Softened(nn.Module):
    """Stands for an autoencoder: what comes out is what went in, a little softer."""

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


@pytest.fixture(scope="module")
def separable():
    """Fakes are darker than reals."""
    packs = []
    for i, split in enumerate(("train", "valid", "test")):
        for label in (0, 1):
            pack = make_pack(12, seed=30 + 2 * i + label, split=split, label=label, first_group=60)
            packs.append(dataclasses.replace(pack, images=pack.images // 3) if label else pack)
    return concatenate(packs)


@pytest.mark.parametrize("shade", [-1.0, 1.0])
def test_black_and_white_can_be_reconstructed(shade):
    # The study fed its decoder a range of -2..2 and let it answer with -1..1: contrast alone then told the classes apart.
    torch.manual_seed(0)
    config = AdversarialConfig(steps=60, batch=2, learning_rate=2e-2, l1_weight=50.0, bf16=False)
    net = AutoGan(1, 4)
    train_adversarial(net, PatchDiscriminator(4), lambda batch, _generator: torch.full((batch, 3, 32, 32), shade), config=config)
    with torch.inference_mode():
        assert (net(torch.full((1, 3, 32, 32), shade)) - shade).abs().mean().item() < 0.02


def test_a_reconstruction_stands_beside_its_own_picture(separable):
    settings = ClassifySettings(size_px=48, fakes="reconstruction", value_range="unit", augment=0.0, batch=16)
    data = StudyData(concatenate([separable.where(label=0)]), Softened(), settings=settings)
    batch = data.batch(torch.Generator().manual_seed(0)).images
    listed = torch.cat(list(data.images("test")))
    for fakes, reals in (batch.chunk(2), listed.chunk(2)):
        distance = (fakes[:, None] - reals[None]).abs().mean((2, 3, 4))
        away = distance + torch.eye(len(fakes)) * 9
        own = distance.diagonal()
        # the same face may be drawn twice, so as near as the nearest other and never farther
        assert bool((own <= away.min(1).values + 1e-6).all())
        assert own.mean() < 0.5 * away.mean()


def outcome_of(name, pack, folder, **changes):
    recipe = get_recipe(name)
    settings = dataclasses.replace(recipe.presets["smoke"], sources=("source0", "source1"), bf16=False, **changes)
    run_recipe(recipe, Context(settings, Material(pack, "toy"), folder))
    return json.loads((folder / "outcome.json").read_text())["metrics"]


def test_a_run_that_never_learned_is_flagged_and_one_that_learned_is_not(separable, tmp_path):
    stuck = outcome_of("cnn_baseline_fixed", separable, tmp_path / "stuck", learning_rate=1e-12, size_px=32)
    assert stuck["diverged"] is True
    fixed = outcome_of("cnn_baseline_fixed", separable, tmp_path / "fixed", learning_rate=5e-3, steps=30, augment=0.0, size_px=32)
    assert fixed["diverged"] is False
    assert fixed["valid_log_loss"] < math.log(2) - 0.1


def test_a_short_noise_run_has_not_collapsed(tmp_path, toy_pack):
    config = NoiseGanConfig(size_px=32, epochs=1, steps_per_epoch=12, batch=4, learning_rate=1e-3, grid_every=1)
    _, _, result = train_noise_gan(toy_pack, config, tmp_path)
    assert math.isfinite(result.kernel_distance)
    assert result.collapse_score > 0.2
