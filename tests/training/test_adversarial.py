"""The adversarial loop: learns to reproduce, notices a dead game, keeps its pool, stops on NaN."""

import json

import pytest
import torch

from detect_core.nets.autogan import AutoGan, PatchDiscriminator
from training.adversarial import AdversarialConfig, ImagePool, train_adversarial
from training.autogan_bank import AutoGanConfig, train_autogan
from training.errors import CheckpointError, DivergedError


def draw(batch, generator):
    return torch.rand(batch, 3, 1, 1, generator=generator).expand(-1, -1, 32, 32) * 2 - 1


def test_it_learns_to_reproduce_and_logs(tmp_path):
    torch.manual_seed(0)
    config = AdversarialConfig(steps=60, batch=4, learning_rate=5e-4, l1_weight=20.0, bf16=False, log_every=10)
    result = train_adversarial(AutoGan(1, 4), PatchDiscriminator(4), draw, config=config, log_path=tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[0]["l1"] > result.l1
    assert "result" in rows[-1]


def test_a_discriminator_that_has_won_is_reported():
    class Oracle(torch.nn.Module):
        """Knows flat pictures from others without learning."""

        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return (x.std((2, 3)).mean(1) < 1e-4).float() + 0 * self.unused

    torch.manual_seed(0)
    config = AdversarialConfig(steps=10, batch=4, bf16=False, learning_rate=1e-6)
    assert train_adversarial(AutoGan(1, 4), Oracle(), draw, config=config).gan_dead


def test_the_pool_returns_old_images_at_capacity():
    pool = ImagePool(4, torch.Generator().manual_seed(0))
    first = torch.zeros(4, 3, 2, 2)
    assert torch.equal(pool.exchange(first), first)
    later = torch.cat([pool.exchange(torch.ones(4, 3, 2, 2)) for _ in range(5)])
    assert (later == 0).any()
    assert (later == 1).any()
    assert torch.equal(ImagePool(0, torch.Generator()).exchange(first), first)


def test_nan_stops_the_run():
    def poisoned(batch, generator):
        return draw(batch, generator) * float("nan")

    with pytest.raises(DivergedError, match="step 1"):
        train_adversarial(AutoGan(1, 4), PatchDiscriminator(4), poisoned, config=AdversarialConfig(steps=3, batch=2, bf16=False))


def test_a_trained_autoencoder_is_loaded_again_and_a_foreign_one_refused(toy_pack, tmp_path):
    config = AutoGanConfig(ngf=4, ndf=4, steps=2, batch=4, size_px=32)
    first, _ = train_autogan(toy_pack, config, tmp_path)
    again, _ = train_autogan(toy_pack, config, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(CheckpointError, match="was trained with"):
        train_autogan(toy_pack, AutoGanConfig(ngf=4, ndf=4, steps=3, batch=4, size_px=32), tmp_path)
    assert not first.training
