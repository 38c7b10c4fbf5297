"""The DCGAN run: repeatable from its seed, and its scores mean what they say."""

import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from training_faces import make_pack

from training.face_pack import concatenate
from training.noise_gan import NoiseGanConfig, collapse_score, gradient_norm, kernel_distance, train_noise_gan
from training.recipes.dcgan import judged_held_out

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


@pytest.mark.parametrize("size_px", [32, 64])
def test_gradient_norms_of_both_nets_are_logged_and_drawn_with_the_grids(size_px, toy_pack, tmp_path):
    logged = []
    config = replace(TINY, size_px=size_px, epochs=5, grid_every=2)
    train_noise_gan(toy_pack, config, tmp_path, on_log=logged.append)
    table = np.loadtxt(tmp_path / "losses.csv", delimiter=",", skiprows=1)
    assert (tmp_path / "losses.csv").read_text().splitlines()[0] == "epoch,d_loss,g_loss,d_real,d_fake,g_gradient,d_gradient"
    assert table.shape == (5, 7)
    assert (table[:, 5:] > 0).all()
    assert [row["g_gradient"] for row in logged] == pytest.approx(table[:, 5].tolist(), abs=1e-3)
    assert (tmp_path / "gradients.png").stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.glob("grid_*.png")) == [f"grid_{n:04d}.png" for n in (0, 2, 4, 5)]
    grid = cv2.imread(str(tmp_path / "grid_0004.png"))
    assert grid.shape == (8 * size_px, 8 * size_px, 3)


def test_a_gradient_norm_is_the_length_of_all_gradients_together():
    net = torch.nn.Linear(2, 1)
    net.weight.grad, net.bias.grad = torch.tensor([[2.0, 3.0]]), torch.tensor([6.0])
    assert float(gradient_norm(net)) == 7.0


def test_a_run_from_before_gradient_norms_goes_on(toy_pack, tmp_path):
    config = replace(TINY, epochs=4)
    whole, _, _ = train_noise_gan(toy_pack, config, tmp_path / "whole")

    def stop(row):
        if row["epoch"] == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_noise_gan(toy_pack, config, tmp_path / "old", on_log=stop)
    path = tmp_path / "old" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["rows"] = [row[:5] for row in state["rows"]]
    torch.save(state, path)
    again, _, _ = train_noise_gan(toy_pack, config, tmp_path / "old")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    table = np.loadtxt(tmp_path / "old" / "losses.csv", delimiter=",", skiprows=1)
    assert np.isnan(table[:2, 5:]).all()
    assert np.isfinite(table[2:]).all()


def test_the_discriminator_is_measured_as_a_detector(toy_pack):
    class Brightness(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x.mean((1, 2, 3)) + 0 * self.unused

    class Black(Brightness):
        def forward(self, z):
            return torch.full((len(z), 3, 32, 32), -1.0)

    held_out = make_pack(6, split="test")
    assert judged_held_out(held_out, TINY, Black(), Brightness()) == {"discriminator_auc_samples": 1.0}
    both = concatenate([held_out, make_pack(6, split="test", label=1, first_group=40)])
    assert set(judged_held_out(both, TINY, Black(), Brightness())) == {"discriminator_auc_samples", "discriminator_auc_labelled_fakes"}
    assert judged_held_out(toy_pack, TINY, Black(), Brightness()) == {}


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
