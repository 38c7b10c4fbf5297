"""Train a DCGAN from noise on any faces (Radford et al. 2016), with the figures that eyes alone do not give."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from detect_core.nets.dcgan import Discriminator32, Discriminator64, Generator32, Generator64

from .checkpoint import load_checkpoint, save_checkpoint
from .device import training_device
from .errors import DivergedError
from .face_pack import FacePack
from .geometry import random_views
from .loop import step_generator
from .recipe import OnLog

NZ = 100
_GRID = 8
_CHECKPOINT_EPOCHS = 2
_LOGGED: Final = ("d_loss", "g_loss", "d_real", "d_fake", "g_gradient", "d_gradient")
"""Means over an epoch; the gradient norms are of each net's own loss."""


@dataclass(frozen=True, slots=True)
class NoiseGanConfig:
    """One DCGAN run; an epoch is one pass over the reals."""

    size_px: Literal[32, 64] = 32
    epochs: int = 800
    batch: int = 32
    learning_rate: float = 2e-4
    upsampler: Literal["nearest", "transposed"] = "nearest"
    """Of the 32 px generator."""
    leaky: bool = False
    grid_every: int = 50
    width: int = 64
    """Channels of the first layer at 64 px."""
    steps_per_epoch: int = 0
    """0 for the whole data."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class NoiseGanResult:
    """How a run ended."""

    d_loss: float
    g_loss: float
    d_real: float
    """Mean D(x)."""
    d_fake: float
    """Mean D(G(z))."""
    collapse_score: float
    """Mean pairwise distance of samples over that of reals; near 0 means that all samples are one picture."""
    kernel_distance: float
    """Squared maximum mean discrepancy of pooled pixels between samples and reals."""
    gan_dead: bool
    loss_std: float
    """Standard deviation of the generator loss over epochs: "varies drastically" as a number."""


def train_noise_gan(
    pack: FacePack, config: NoiseGanConfig, run_dir: Path, *, on_log: OnLog = lambda _row: None
) -> tuple[nn.Module, nn.Module, NoiseGanResult]:
    """Train generator and discriminator; writes `losses.csv`, grids and weights into `run_dir`, and goes on from there.

    Raises:
        DivergedError: a loss is not finite.
        CheckpointError: the folder holds a run with other settings or data.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = training_device()
    net, judge = (part.to(device) for part in _nets(config))
    adam = {"betas": (0.5, 0.999), "lr": config.learning_rate}
    adam_g, adam_d = torch.optim.Adam(net.parameters(), **adam), torch.optim.Adam(judge.parameters(), **adam)  # type: ignore[arg-type]
    fixed = torch.randn(_GRID * _GRID, NZ, generator=torch.Generator().manual_seed(config.seed))
    save_grid(net, fixed, run_dir / "grid_0000.png")
    steps = config.steps_per_epoch or max(1, len(pack) // config.batch)
    rows: list[tuple[float, ...]] = []
    parts: dict[str, Any] = {"net": net, "judge": judge, "adam_g": adam_g, "adam_d": adam_d}
    key = json.dumps({**asdict(config), "data": pack.sha256()}, sort_keys=True)
    state = load_checkpoint(run_dir / "checkpoint.pt", key)
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        rows = [(*row, *[math.nan] * (len(_LOGGED) + 1 - len(row))) for row in state["rows"]]  # older runs kept no gradient norms
    started = time.monotonic()
    for epoch in range(len(rows) + 1, config.epochs + 1):
        sums = np.zeros(len(_LOGGED))
        torch.manual_seed(config.seed * 1_000_003 + epoch)  # dropout draws from the global generator
        for step in range(steps):
            generator = step_generator(config.seed, epoch * 100_000 + step)
            sums += _step(net, judge, adam_g, adam_d, _draw(pack, config, generator).to(device), generator).cpu().double().numpy()
        means = sums / steps
        if not np.isfinite(means).all():
            raise DivergedError(f"DCGAN losses in epoch {epoch} are {means.tolist()}; lower the learning rate")
        rows.append((epoch, *means.tolist()))
        if epoch % _CHECKPOINT_EPOCHS == 0 or epoch == config.epochs:
            kept = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(run_dir / "checkpoint.pt", {"key": key, "parts": kept, "rows": [list(row) for row in rows]})
        on_log(
            {
                "epoch": epoch,
                **{n: round(float(v), 4) for n, v in zip(_LOGGED, means, strict=True)},
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        if epoch % config.grid_every == 0 or epoch == config.epochs:
            save_grid(net, fixed, run_dir / f"grid_{epoch:04d}.png")
    text = "\n".join(",".join(f"{value:.6g}" for value in row) for row in rows)
    (run_dir / "losses.csv").write_text(f"epoch,{','.join(_LOGGED)}\n{text}\n")
    draw_series(rows, run_dir / "losses.png", columns=(1, 2), ylabel="loss")
    draw_series(rows, run_dir / "gradients.png", columns=(6, 5), ylabel="gradient norm")
    net, judge = net.cpu(), judge.cpu()
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, run_dir / "generator.safetensors")
    return net.eval(), judge.eval(), _judged(net, pack, config, rows, run_dir)


def sample(net: nn.Module, count: int, *, seed: int) -> Tensor:
    """Images (count, 3, S, S) in 0..1 from noise."""
    net.eval()
    with torch.inference_mode():
        noise = torch.randn(count, NZ, generator=torch.Generator().manual_seed(seed))
        return torch.cat([(net(part) + 1) / 2 for part in torch.split(noise, 64)])


def save_grid(net: nn.Module, noise: Tensor, path: Path) -> None:
    """8 x 8 samples of one fixed noise, so that epochs can be compared."""
    net.eval()
    with torch.inference_mode():
        images = ((net(noise.to(next(net.parameters()).device)) + 1) / 2).clamp(0, 1).cpu()
    net.train()
    rows = [torch.cat(list(images[i * _GRID : (i + 1) * _GRID]), 2) for i in range(_GRID)]
    pixels = (torch.cat(rows, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def draw_series(rows: list[tuple[float, ...]], path: Path, *, columns: tuple[int, int], ylabel: str) -> None:
    """Two columns over the epochs: the discriminator's and the generator's. Norms span decades, losses do not."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    table = np.array(rows)
    figure, axes = plt.subplots(figsize=(6, 3.5))
    for column, name in zip(columns, ("discriminator", "generator"), strict=True):
        axes.plot(table[:, 0], table[:, column], label=name)
    axes.set(xlabel="epoch", ylabel=ylabel)
    if "norm" in ylabel and np.nanmin(table[:, columns], initial=np.inf) > 0:
        axes.set_yscale("log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def collapse_score(samples: Tensor, reals: Tensor) -> float:
    """Mean pairwise distance of samples over that of reals."""

    def spread(images: Tensor) -> float:
        return float(torch.pdist(images.flatten(1)).mean())

    return spread(samples) / max(spread(reals), 1e-6)


def kernel_distance(samples: Tensor, reals: Tensor) -> float:
    """Unbiased squared MMD with a Gaussian kernel of median width, on 8x8 pooled pixels."""
    x, y = (torch.nn.functional.adaptive_avg_pool2d(t, 8).flatten(1).double() for t in (samples, reals))
    distances = torch.cdist(torch.cat([x, y]), torch.cat([x, y])) ** 2
    kernel = torch.exp(-distances / distances.median().clamp_min(1e-9))
    n, m = len(x), len(y)
    xx = (kernel[:n, :n].sum() - n) / (n * (n - 1))
    yy = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(xx + yy - 2 * kernel[:n, n:].mean())


def _nets(config: NoiseGanConfig) -> tuple[nn.Module, nn.Module]:
    if config.size_px == 32:
        return Generator32(NZ, config.upsampler, config.leaky), Discriminator32()
    return Generator64(NZ, config.width), Discriminator64(config.width)


def _draw(pack: FacePack, config: NoiseGanConfig, generator: Generator) -> Tensor:
    indices = torch.randint(len(pack), (config.batch,), generator=generator)
    images, _ = random_views(pack, indices, size_px=config.size_px, generator=generator, margins=(1.2, 1.3), max_rotation=0.0)
    return 2 * images - 1


def _step(
    net: nn.Module, judge: nn.Module, adam_g: torch.optim.Optimizer, adam_d: torch.optim.Optimizer, real: Tensor, generator: Generator
) -> Tensor:
    """One update of each on the device of `real`; returns the `_LOGGED` figures of the step."""
    batch = len(real)
    ones, zeros = real.new_ones(batch), real.new_zeros(batch)
    fake = net(torch.randn(batch, NZ, generator=generator).to(real.device))
    on_real, on_fake = judge(real), judge(fake.detach())
    d_loss = bce(on_real, ones) + bce(on_fake, zeros)
    adam_d.zero_grad(set_to_none=True)
    torch.autograd.backward(d_loss)
    d_gradient = gradient_norm(judge)
    adam_d.step()
    g_loss = bce(judge(fake), ones)
    adam_g.zero_grad(set_to_none=True)
    torch.autograd.backward(g_loss)
    g_gradient = gradient_norm(net)
    adam_g.step()
    return torch.stack([d_loss, g_loss, torch.sigmoid(on_real).mean(), torch.sigmoid(on_fake).mean(), g_gradient, d_gradient]).detach()


def gradient_norm(net: nn.Module) -> Tensor:
    """2-norm of all gradients that `net` holds."""
    norms = [torch.linalg.vector_norm(p.grad) for p in net.parameters() if p.grad is not None]
    length: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return length


def _judged(net: nn.Module, pack: FacePack, config: NoiseGanConfig, rows: list[tuple[float, ...]], run_dir: Path) -> NoiseGanResult:
    count = min(64, len(pack))
    samples = sample(net, count, seed=config.seed + 1)
    reals = (_draw(pack.take(range(count)), NoiseGanConfig(size_px=config.size_px, batch=count), step_generator(1, 1)) + 1) / 2
    table = np.array(rows)
    _, d_loss, g_loss, d_real, d_fake, _, _ = rows[-1]
    result = NoiseGanResult(
        d_loss=d_loss,
        g_loss=g_loss,
        d_real=d_real,
        d_fake=d_fake,
        collapse_score=collapse_score(samples, reals),
        kernel_distance=kernel_distance(samples, reals),
        gan_dead=bool((table[:, 1] < 0.02).mean() > 0.2),
        loss_std=float(table[:, 2].std()) if len(rows) > 1 else math.nan,
    )
    (run_dir / "result.json").write_text(json.dumps({name: getattr(result, name) for name in result.__slots__}, indent=2) + "\n")
    return result
