"""The DCGAN run: repeatable from its seed, and its scores mean what they say."""

import hashlib

import torch

from training.noise_gan import NoiseGanConfig, collapse_score, kernel_distance, train_noise_gan

TINY = NoiseGanConfig(size_px=32, epochs=1, steps_per_epoch=1, batch=4, grid_every=1, width=4)


def test_same_seed_same_first_grid_and_other_seed_another(toy_pack, tmp_path):
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = NoiseGanConfig(**{**{f: getattr(TINY, f) for f in TINY.__slots__}, "seed": seed})
        train_noise_gan(toy_pack, config, tmp_path / name)
        hashes.append(hashlib.sha256((tmp_path / name / "grid_0000.png").read_bytes()).hexdigest())
    assert hashes[0] == hashes[1] != hashes[2]
    assert (tmp_path / "a" / "losses.csv").read_text().startswith("epoch,d_loss")
    assert (tmp_path / "a" / "losses.png").stat().st_size > 1000


def test_a_collapsed_generator_scores_near_zero():
    reals = torch.rand(20, 3, 16, 16)
    one = reals[:1] + 0.01 * torch.rand(20, 3, 16, 16)
    assert collapse_score(one, reals) < 0.05
    assert 0.9 < collapse_score(torch.rand(20, 3, 16, 16), reals) < 1.1


def test_kernel_distance_is_near_zero_for_the_same_source_and_grows_apart():
    generator = torch.Generator().manual_seed(0)
    same = kernel_distance(torch.rand(60, 3, 16, 16, generator=generator), torch.rand(60, 3, 16, 16, generator=generator))
    apart = kernel_distance(torch.rand(60, 3, 16, 16, generator=generator), torch.rand(60, 3, 16, 16, generator=generator) + 0.3)
    assert abs(same) < 0.05
    assert apart > 0.3
