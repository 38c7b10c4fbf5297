"""The loop: resumes to the same numbers after a kill, refuses foreign checkpoints, stops on NaN."""

import json

import pytest
import torch
from torch import nn

from training.errors import CheckpointError, ConfigError, DivergedError
from training.loop import Batch, LoopConfig, learning_rate_at, train_supervised

CONFIG = LoopConfig(steps=12, checkpoint_every=4, validate_every=6, log_every=3, bf16=False, learning_rate=1e-2)


class Toy(nn.Module):
    """Dropout and batch norm, so that every kind of state must survive."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3))).squeeze(1)


def new_net():
    torch.manual_seed(5)
    return Toy()


def draw(step, generator):
    labels = torch.arange(8).remainder(2).float()
    return Batch(torch.randn(8, 3, 12, 12, generator=generator) + labels[:, None, None, None], labels)


class KilledError(Exception):
    """Stands for a SIGKILL between two steps."""


def train(run_dir, *, draw=draw, config=CONFIG, identity="toy"):
    return train_supervised(new_net(), draw, config=config, run_dir=run_dir, identity=identity)


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path):
    whole, _ = train(tmp_path / "whole")

    def dying(step, generator):
        if step == 10:
            raise KilledError
        return draw(step, generator)

    with pytest.raises(KilledError):
        train(tmp_path / "killed", draw=dying)
    assert torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["step"] == 8
    resumed, result = train(tmp_path / "killed")
    assert result.steps == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_separable_data_is_learned(tmp_path):
    config = LoopConfig(steps=150, learning_rate=2e-2, bf16=False, ema=0.9, validate_every=1000)
    _, result = train(tmp_path, config=config)
    assert result.loss < 0.2


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError, match="other data or settings"):
        train(tmp_path, identity="other data")
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def poisoned(step, generator):
        batch = draw(step, generator)
        return Batch(batch.images * (float("nan") if step == 3 else 1.0), batch.labels)

    with pytest.raises(DivergedError, match="step 3"):
        train(tmp_path, draw=poisoned)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_log_tells_steps_loss_and_validation(tmp_path):
    train_supervised(
        new_net(), draw, config=CONFIG, run_dir=tmp_path, identity="toy", validate=lambda net: {"training_mode": float(net.training)}
    )
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert rows[-1]["training_mode"] == 0.0
    assert all(row["loss"] > 0 for row in rows)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = LoopConfig(steps=100, warmup_share=0.1, learning_rate=1.0)
    rates = [learning_rate_at(step, config) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(0.0, abs=1e-6)


def test_nonsense_schedules_are_refused():
    with pytest.raises(ConfigError):
        LoopConfig(steps=0)
    with pytest.raises(ConfigError):
        LoopConfig(ema=1.0)
