"""The adversarial loop: train a reconstructing generator against a patch discriminator (LSGAN + L1).

Losses after Zhang, Karaman, Chang 2019; the discriminator learns four times slower than the generator because with
equal rates it wins completely within an epoch and the adversarial term dies.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor, nn

from .checkpoint import load_checkpoint, save_checkpoint
from .device import bf16_where_fast, training_device, training_format
from .errors import DivergedError


@dataclass(frozen=True, slots=True)
class AdversarialConfig:
    """Schedule of one adversarial run."""

    steps: int = 1200
    batch: int = 16
    learning_rate: float = 2e-4
    """Of the generator."""
    discriminator_slowdown: float = 4.0
    l1_weight: float = 0.5
    pool_size: int = 50
    """Past fakes that the discriminator sees again; 0 switches the pool off."""
    betas: tuple[float, float] = (0.5, 0.999)
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 250
    dead_below: float = 0.02
    """A mean discriminator loss under this means that the generator gets no signal any more."""
    dead_share: float = 0.2
    bf16: bool = True


@dataclass(frozen=True, slots=True)
class AdversarialResult:
    """What one run came to."""

    l1: float
    """Running mean of L1(G(x), x) at the end, on the -1..1 range."""
    d_loss: float
    g_loss: float
    gan_dead: bool
    """The discriminator won for more than `dead_share` of all steps."""
    steps: int
    seconds: float


class ImagePool:
    """Replay buffer of generated images (Shrivastava et al. 2017)."""

    def __init__(self, size: int, generator: Generator) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self._generator = generator

    def exchange(self, fakes: Tensor) -> Tensor:
        """Below capacity store and return; after that return a stored image with probability 1/2."""
        if self.size == 0:
            return fakes
        out = []
        for image in fakes:
            if len(self.images) < self.size:
                self.images.append(image.clone())
                out.append(image)
            elif torch.rand(1, generator=self._generator).item() < 0.5:
                slot = int(torch.randint(self.size, (1,), generator=self._generator).item())
                out.append(self.images[slot])
                self.images[slot] = image.clone()
            else:
                out.append(image)
        return torch.stack(out)


def train_adversarial(
    net: nn.Module,
    discriminator: nn.Module,
    draw: Callable[[int, Generator], Tensor],
    *,
    config: AdversarialConfig,
    log_path: Path | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    on_log: Callable[[dict[str, Any]], None] = lambda _row: None,
) -> AdversarialResult:
    """Train `net` to reproduce what `draw` gives; both nets end on the CPU.

    Args:
        net: generator, images in -1..1 to images in -1..1.
        discriminator: images to maps of realness.
        draw: batch of real images (B, 3, S, S) in -1..1 for a batch size and a generator.
        config: schedule.
        log_path: JSONL of running means.
        checkpoint: file to go on from after a kill, to the same numbers; None keeps nothing.
        identity: names the data; a checkpoint of other data or settings is refused.
        on_log: called with every logged row.

    Raises:
        DivergedError: a loss is not finite.
        CheckpointError: the checkpoint is of another run.
    """
    device = training_device()
    net.to(device)
    discriminator.to(device)
    generator = torch.Generator().manual_seed(config.seed)
    pool = ImagePool(config.pool_size, generator)
    adam_g = torch.optim.Adam(net.parameters(), lr=config.learning_rate, betas=config.betas)
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=config.learning_rate / config.discriminator_slowdown, betas=config.betas)
    parts: dict[str, Any] = {"net": net, "discriminator": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    mean: dict[str, float] = {}
    dead_steps, first = 0, 1
    key = json.dumps(asdict(config), sort_keys=True) + identity
    state = load_checkpoint(checkpoint, key) if checkpoint is not None else None
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        mean, dead_steps, first = state["mean"], state["dead_steps"], state["step"] + 1
        generator.set_state(state["generator"])
        pool.images = [image.to(device) for image in state["pool"]]
    started = time.monotonic()
    net.train()
    discriminator.train()
    for step in range(first, config.steps + 1):
        real = draw(config.batch, generator).to(device).contiguous(memory_format=training_format(device))
        with bf16_where_fast(device, config.bf16):
            fake = net(real)
            judged = discriminator(fake)
        gan = fn.mse_loss(judged.float(), torch.ones_like(judged, dtype=torch.float32))
        l1 = fn.l1_loss(fake.float(), real)
        adam_g.zero_grad(set_to_none=True)
        torch.autograd.backward(gan + config.l1_weight * l1)
        adam_g.step()
        with bf16_where_fast(device, config.bf16):
            on_real = discriminator(real).float()
            on_fake = discriminator(pool.exchange(fake.detach().float())).float()
        d_loss = (fn.mse_loss(on_real, torch.ones_like(on_real)) + fn.mse_loss(on_fake, torch.zeros_like(on_fake))) / 2
        adam_d.zero_grad(set_to_none=True)
        torch.autograd.backward(d_loss)
        adam_d.step()
        losses = {"g": gan.item(), "l1": l1.item(), "d": d_loss.item()}
        if not all(map(math.isfinite, losses.values())):
            raise DivergedError(f"adversarial losses at step {step} are {losses}; lower the learning rate or check the images")
        for name, value in losses.items():
            mean[name] = value if name not in mean else 0.98 * mean[name] + 0.02 * value
        dead_steps += mean["d"] < config.dead_below
        if checkpoint is not None and step % config.checkpoint_every == 0 and step < config.steps:
            kept = {name: part.state_dict() for name, part in parts.items()}
            facts = {"step": step, "mean": mean, "dead_steps": dead_steps, "generator": generator.get_state(), "pool": pool.images}
            save_checkpoint(checkpoint, {"key": key, "parts": kept, **facts})
        if step % config.log_every == 0 or step == config.steps:
            row = {"step": step, **{k: round(v, 5) for k, v in mean.items()}, "seconds": round(time.monotonic() - started, 1)}
            on_log(row)
            if log_path is not None:
                with log_path.open("a") as handle:
                    handle.write(json.dumps(row) + "\n")
    net.cpu().eval()
    discriminator.cpu()
    result = AdversarialResult(
        l1=mean["l1"],
        d_loss=mean["d"],
        g_loss=mean["g"],
        gan_dead=dead_steps > config.dead_share * config.steps,
        steps=config.steps,
        seconds=time.monotonic() - started,
    )
    if log_path is not None:
        with log_path.open("a") as handle:
            handle.write(json.dumps({"result": asdict(result)}) + "\n")
    return result
