"""Traps that make a detector look good for nothing: unequal pairs, statistics of the final tensors, polarity, shortcuts."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from detect_core.nets import build_net
from detect_core.structs import FAKE, REAL
from training.augment import AugmentConfig, augment_pairs
from training.errors import ConfigError
from training.loop import LoopConfig, step_generator, train_supervised
from training.metrics import auc
from training.pairs import PairConfig, PairSource
from training.simulators.base import Fakes
from training.simulators.blends import SelfBlend

SMALL = PairConfig(size_px=48, work_px=64)


class IdentityGenerator:
    """A "fake" that is its real: nothing may tell them apart."""

    family = "identity"

    def __call__(self, reals, _generator):
        return Fakes(reals.images, torch.zeros_like(reals.images[:, :1]), reals.images, {"family": self.family})


def source_of(pack, simulator, **augment):
    return PairSource(pack, [(simulator, 1.0)], config=SMALL, augment=AugmentConfig(**augment))


def test_augmentation_cannot_tell_the_halves_of_a_pair_apart(toy_pack):
    source = source_of(toy_pack, IdentityGenerator(), overlay=0.5, noise=0.5, second_codec=0.5, grey=0.2)
    for seed in range(6):
        real, fake, mask, families = source.draw(16, step_generator(seed, 0))
        assert torch.equal(real, fake)
        assert mask.max() == 0
        assert families == ["identity"] * 16


def test_augmentation_does_change_pictures():
    images = torch.rand(8, 3, 64, 64)
    out, _, _ = augment_pairs(images, images, images[:, :1], size_px=64, config=AugmentConfig(), generator=step_generator(0, 0))
    assert (out - images).abs().mean() > 0.01


@pytest.mark.parametrize("side", [16, 24, 35])
def test_small_pictures_are_overlaid_too(side):
    always = AugmentConfig(colour=0, resample=0, soft_or_sharp=0, noise=0, overlay=1, codec=0, second_codec=0, grey=0)
    images = torch.rand(60, 3, side, side)
    out, _, _ = augment_pairs(images, images, images[:, :1], size_px=side, config=always, generator=step_generator(0, 0))
    assert out.shape == images.shape
    assert (out - images).abs().amax((1, 2, 3)).min() > 0


def test_identity_generator_trains_to_a_coin(toy_pack, tmp_path):
    source = source_of(toy_pack, IdentityGenerator())
    torch.manual_seed(0)
    net = build_net("blend_resnet", widths=(8, 16, 16, 16), units=(1, 1, 1))
    net, _ = train_supervised(
        net,
        lambda _step, generator: source.batch(12, generator),
        config=LoopConfig(steps=25, validate_every=1000, bf16=False),
        run_dir=tmp_path,
        identity="identity",
    )
    real, fake, _, _ = source.draw(24, step_generator(7, 7))
    with torch.inference_mode():
        scores = torch.cat([net(2 * real - 1), net(2 * fake - 1)])
    assert auc(scores.numpy(), [REAL] * 24 + [FAKE] * 24) == pytest.approx(0.5, abs=0.02)


def test_final_tensors_of_both_classes_have_the_same_statistics(toy_pack):
    source = source_of(toy_pack, SelfBlend())
    batches = [source.batch(16, step_generator(1, i)) for i in range(6)]
    fake = torch.cat([b.images[b.labels == FAKE] for b in batches])
    real = torch.cat([b.images[b.labels == REAL] for b in batches])
    for statistic in (lambda x: x.mean((1, 2, 3)), lambda x: x.std((1, 2, 3)), lambda x: x.amax((1, 2, 3)), lambda x: x.amin((1, 2, 3))):
        assert ks_2samp(statistic(fake).numpy(), statistic(real).numpy()).statistic < 0.2
    pixels = np.random.default_rng(0).integers(0, fake.numel(), 20_000)
    assert ks_2samp(fake.flatten().numpy()[pixels], real.flatten().numpy()[pixels]).statistic < 0.1
    assert (fake == -1).float().mean() < 0.05
    assert fake.min() >= -1
    assert fake.max() <= 1


def test_fakes_carry_the_fake_label_and_a_mask(toy_pack):
    batch = source_of(toy_pack, SelfBlend()).batch(8, step_generator(0, 0))
    assert batch.labels.tolist() == [FAKE] * 8 + [REAL] * 8
    assert batch.masks[:8].amax((1, 2, 3)).min() > 0.1
    assert batch.masks[8:].max() == 0


def test_a_pair_source_wants_reals_and_simulators(toy_pack):
    import dataclasses

    fakes = dataclasses.replace(toy_pack, rows=tuple(dataclasses.replace(row, label=FAKE) for row in toy_pack.rows))
    with pytest.raises(ConfigError, match="real faces only"):
        source_of(fakes, SelfBlend())
    with pytest.raises(ConfigError, match="at least one simulator"):
        PairSource(toy_pack, [], config=SMALL, augment=AugmentConfig())
