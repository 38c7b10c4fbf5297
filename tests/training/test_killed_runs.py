"""A real process is killed in the middle of a run; the next one goes on to the same numbers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_faces import make_pack

from training.adversarial import AdversarialConfig, train_adversarial
from training.autogan_bank import AutoGanConfig, train_autogan
from training.errors import CheckpointError
from training.noise_gan import NoiseGanConfig, train_noise_gan

CHILD = """
import sys, threading
from pathlib import Path
import torch
from torch import nn
torch.set_num_threads(1)
from training.loop import Batch, LoopConfig, train_supervised

run_dir, stop_at = Path(sys.argv[1]), int(sys.argv[2])

def draw(step, generator):
    if step == stop_at:
        (run_dir / "reached").touch()
        threading.Event().wait()
    labels = torch.arange(8).remainder(2).float()
    return Batch(torch.randn(8, 3, 12, 12, generator=generator) + labels[:, None, None, None], labels)

torch.manual_seed(5)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3))).squeeze(1)

config = LoopConfig(steps=12, checkpoint_every=4, validate_every=6, log_every=3, bf16=False, learning_rate=1e-2)
net, _ = train_supervised(Net(), draw, config=config, run_dir=run_dir, identity="toy")
torch.save(net.state_dict(), run_dir / "weights.pt")
"""
DEADLINE_SECONDS = 180


def start(run_dir, stop_at):
    run_dir.mkdir(exist_ok=True)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(run_dir), str(stop_at)], env=environment)


def weights(run_dir):
    return torch.load(run_dir / "weights.pt", weights_only=True)


def test_sigkill_in_the_middle_changes_no_number(tmp_path):
    whole = start(tmp_path / "whole", -1)
    killed = start(tmp_path / "killed", 10)
    assert whole.wait(DEADLINE_SECONDS) == 0
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (tmp_path / "killed" / "reached").exists():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "weights.pt").exists()
    assert start(tmp_path / "killed", -1).wait(DEADLINE_SECONDS) == 0
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class StoppedError(Exception):
    """Stands for a kill at a logged row."""


def stop_at(key, value):
    def on_log(row):
        if row.get(key) == value:
            raise StoppedError

    return on_log


def test_a_noise_gan_goes_on_to_the_same_numbers(tmp_path):
    pack = make_pack(8)
    config = NoiseGanConfig(size_px=32, epochs=4, batch=4, grid_every=4, steps_per_epoch=1)
    whole, _, _ = train_noise_gan(pack, config, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train_noise_gan(pack, config, tmp_path / "stopped", on_log=stop_at("epoch", 3))
    again, _, _ = train_noise_gan(pack, config, tmp_path / "stopped")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    losses = [np.loadtxt(tmp_path / run / "losses.csv", delimiter=",", skiprows=1) for run in ("whole", "stopped")]
    assert np.array_equal(*losses)
    with pytest.raises(CheckpointError, match="other data or settings"):
        train_noise_gan(make_pack(8, seed=9), config, tmp_path / "stopped")


def test_an_autoencoder_goes_on_to_the_same_numbers_with_its_pool(tmp_path):
    config = AdversarialConfig(steps=6, batch=2, pool_size=3, checkpoint_every=2, log_every=1, bf16=False)

    def nets():
        torch.manual_seed(0)
        return nn.Conv2d(3, 3, 3, padding=1), nn.Sequential(nn.Conv2d(3, 1, 4, 2))

    def draw(batch, generator):
        return torch.rand(batch, 3, 16, 16, generator=generator) * 2 - 1

    whole, judge = nets()
    train_adversarial(whole, judge, draw, config=config)
    stopped, judge = nets()
    file = tmp_path / "c.pt"
    with pytest.raises(StoppedError):
        train_adversarial(stopped, judge, draw, config=config, checkpoint=file, on_log=stop_at("step", 5))
    again, judge = nets()
    train_adversarial(again, judge, draw, config=config, checkpoint=file)
    assert torch.equal(whole.weight, again.weight)
    with pytest.raises(CheckpointError, match="other data or settings"):
        train_adversarial(again, judge, draw, config=config, checkpoint=file, identity="other faces")


def test_a_finished_autoencoder_leaves_no_checkpoint_behind(tmp_path, toy_pack):
    config = AutoGanConfig(ngf=4, ndf=4, steps=1, batch=2)
    first, _ = train_autogan(toy_pack, config, tmp_path)
    second, _ = train_autogan(toy_pack, config, tmp_path)
    assert not list(tmp_path.glob("*.checkpoint.pt"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
