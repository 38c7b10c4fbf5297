"""Train the face swapper: two identities, one encoder, mixup-LSGAN with reconstruction, edge, eye and mask terms.

After the public description of the study; schedule in shares of all steps, so that short runs see every phase.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor, nn

from .checkpoint import load_checkpoint, save_checkpoint
from .device import bf16_where_fast, training_device
from .errors import DivergedError
from .face_pack import FacePack
from .geometry import chance, uniform, view, warp_elastic
from .loop import step_generator
from .recipe import OnLog
from .simulators.blends import match_colour
from .simulators.face_swap import Swapper, align_faces, eye_regions
from .simulators.face_swap_nets import Decoder, Discriminator, Encoder

_HINGES: Final = ((0.30, 0.5), (0.40, 0.2), (0.50, 0.4), (0.667, 0.0), (0.80, 0.1))
"""From this share of the steps on, the mask is pushed above this mean; 0 for no push."""
_RATES: Final = ((0.667, 0.3), (0.90, 0.1))
_CROSSED_FROM: Final = 0.80
"""From here on decoders meet codes of the other identity now and then, as they will when they swap."""


@dataclass(frozen=True, slots=True)
class FaceSwapConfig:
    """One face swapper."""

    size_px: int = 64
    base: int = 64
    lite: bool = False
    steps: int = 40_000
    batch: int = 8
    rate_g: float = 1e-4
    rate_d: float = 2e-4
    gan_weight: float = 0.1
    eye_weight: float = 30.0
    edge_weight: float = 0.1
    mask_weight: float = 1e-2
    tv_weight: float = 0.1
    cycle_weight: float = 0.0
    """10 in the study's option; twice the cost."""
    decay: float = 1e-4
    seed: int = 0
    bf16: bool = True
    checkpoint_every: int = 500
    log_every: int = 25


def train_face_swap(
    people: tuple[FacePack, FacePack], config: FaceSwapConfig, run_dir: Path, *, on_log: OnLog
) -> tuple[Swapper, dict[str, float]]:
    """Train on faces of identity A and of identity B; goes on from `run_dir/checkpoint.pt`.

    Raises:
        DivergedError: a loss is not finite.
        CheckpointError: the checkpoint is of another run.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = training_device()
    nets = {name: net.to(device) for name, net in _nets(config).items()}
    generator_side = [*nets["encoder"].parameters(), *nets["a"].parameters(), *nets["b"].parameters()]
    adam_g = torch.optim.Adam(generator_side, lr=config.rate_g, betas=(0.5, 0.999), weight_decay=config.decay)
    adam_d = torch.optim.Adam([*nets["judge_a"].parameters(), *nets["judge_b"].parameters()], lr=config.rate_d, betas=(0.5, 0.999))
    parts: dict[str, Any] = {**nets, "adam_g": adam_g, "adam_d": adam_d}
    key = json.dumps({**asdict(config), "people": [p.sha256() for p in people]}, sort_keys=True)
    state = load_checkpoint(run_dir / "checkpoint.pt", key)
    first, mean = 1, dict[str, float]()
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        first, mean = state["step"] + 1, state["mean"]
    eyes = eye_regions(config.size_px).to(device)
    for net in nets.values():
        net.train()
    for step in range(first, config.steps + 1):
        share = step / config.steps
        _set_rates(((adam_g, config.rate_g), (adam_d, config.rate_d)), _last(_RATES, share, 1.0))
        draws = step_generator(config.seed, step)
        losses = _step(nets, people, (adam_g, adam_d), config, share, eyes, draws)
        if not all(map(math.isfinite, losses.values())):
            raise DivergedError(f"face-swap losses at step {step} are {losses}; lower rate_g and rate_d or check the images")
        mean = {name: value if name not in mean else 0.98 * mean[name] + 0.02 * value for name, value in losses.items()}
        if step % config.log_every == 0 or step == config.steps:
            on_log({"step": step, **{k: round(v, 5) for k, v in mean.items()}})
        if step % config.checkpoint_every == 0 or step == config.steps:
            kept = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(run_dir / "checkpoint.pt", {"key": key, "step": step, "parts": kept, "mean": mean})
    for net in nets.values():
        net.cpu().eval()
    return Swapper(nets["encoder"], (nets["a"], nets["b"]), config.size_px), mean


def _set_rates(optimisers: Sequence[tuple[torch.optim.Optimizer, float]], factor: float) -> None:
    for optimiser, rate in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * factor


def draw_faces(pack: FacePack, count: int, config: FaceSwapConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Warped inputs and their targets (B, 3, S, S) in -1..1: the same faces, bent by a 5x5 grid and straight."""
    indices = torch.randint(len(pack), (count,), generator=generator)
    images, points = view(
        pack,
        indices,
        size_px=max(config.size_px, 96),
        margin=1.45 * uniform((count,), 0.93, 1.07, generator),
        shift=uniform((count, 2), -0.03, 0.03, generator),
        flip=chance(count, 0.5, generator),
        rotation=uniform((count,), -0.17, 0.17, generator),
    )
    target, _ = align_faces(images, points, config.size_px)
    if count > 1:
        other = target[torch.randperm(count, generator=generator)]
        strength = chance(count, 0.5, generator).float() * uniform((count,), 0.5, 1.0, generator)
        target = match_colour(target, other, torch.ones_like(target[:, :1]), strength)
    bent = warp_elastic(target, sigma=uniform((count,), 0.016, 0.024, generator), cells=5, generator=generator)
    return 2 * bent.clamp(0, 1) - 1, 2 * target.clamp(0, 1) - 1


def _step(
    nets: dict[str, nn.Module],
    people: tuple[FacePack, FacePack],
    adams: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    config: FaceSwapConfig,
    share: float,
    eyes: Tensor,
    generator: Generator,
) -> dict[str, float]:
    adam_g, adam_d = adams
    lam = _beta(generator)
    d_loss = torch.zeros((), device=eyes.device)
    for name, pack in zip("ab", people, strict=True):
        warped, target = (images.to(eyes.device) for images in draw_faces(pack, config.batch, config, generator))
        with torch.no_grad():
            _, rgb, composite, _, _ = _decoded(nets, name, warped, config)
        for fake in (composite, rgb):
            d_loss = d_loss + _judged(nets[f"judge_{name}"], lam * target + (1 - lam) * fake, warped, lam, config)
    _update(adam_d, d_loss)
    total, logged = torch.zeros((), device=eyes.device), dict.fromkeys(("l1", "gan", "mask"), 0.0)
    for i, name in enumerate("ab"):
        warped, target = (images.to(eyes.device) for images in draw_faces(people[i], config.batch, config, generator))
        alpha, rgb, composite, sides, code = _decoded(nets, name, warped, config)
        gan = sum((_judged(nets[f"judge_{name}"], fake, warped, 1.0, config) for fake in (composite, rgb)), torch.zeros_like(total))
        l1 = fn.l1_loss(rgb, target) + sum((fn.l1_loss(s, fn.interpolate(target, size=s.shape[-2:], mode="area")) for s in sides), 0.0)
        eye = fn.l1_loss(rgb * eyes, target * eyes) + sum((_slope(rgb, axis) - _slope(target, axis)).abs().mean() for axis in (2, 3))
        edge = sum(fn.l1_loss(_slope(rgb, axis), _slope(target, axis)) for axis in (2, 3))
        tv = sum(_slope(alpha, axis).abs().mean() for axis in (2, 3))
        part = config.gan_weight * gan + l1 + config.eye_weight * eye / 10 + config.edge_weight * edge + config.tv_weight * tv
        part = part + _mask_loss(alpha, share, config)
        if config.cycle_weight or share >= _CROSSED_FROM:
            part = part + _crossed(nets, "ba"[i], code, warped, config, share)
        total = total + part
        for key, value in (("l1", l1), ("gan", gan), ("mask", alpha.mean())):
            logged[key] += float(value.detach()) / 2
    _update(adam_g, total)
    return {"g": float(total.detach()), "d": float(d_loss.detach()), **logged}


def _decoded(
    nets: dict[str, nn.Module], name: str, warped: Tensor, config: FaceSwapConfig
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:
    """Mask, face, composite, side outputs and code of warped faces decoded as identity `name`."""
    with bf16_where_fast(warped.device, config.bf16):
        code = nets["encoder"](warped)
        rgb, alpha, sides = nets[name](code)
    rgb, alpha = rgb.float(), alpha.float()
    return alpha, rgb, alpha * rgb + (1 - alpha) * warped, [side.float() for side in sides], code


def _judged(judge: nn.Module, image: Tensor, warped: Tensor, target: float, config: FaceSwapConfig) -> Tensor:
    with bf16_where_fast(warped.device, config.bf16):
        score = judge(torch.cat([image, warped], 1))
    return fn.mse_loss(score.float(), torch.full_like(score, target, dtype=torch.float32))


def _mask_loss(alpha: Tensor, share: float, config: FaceSwapConfig) -> Tensor:
    """First a mask as small as possible, later pushed above a mean: it must neither vanish nor cover all."""
    hinge = _last(_HINGES, share, 0.0)
    return 0.1 * fn.relu(hinge - alpha).mean() if hinge else config.mask_weight * alpha.abs().mean()


def _crossed(nets: dict[str, nn.Module], name: str, code: Tensor, warped: Tensor, config: FaceSwapConfig, share: float) -> Tensor:
    """What the other decoder makes of these codes must pass its discriminator, and come back when cycled."""
    with bf16_where_fast(warped.device, config.bf16):
        rgb, alpha, _ = nets[name](code)
    rgb, alpha = rgb.float(), alpha.float()
    swapped = alpha * rgb + (1 - alpha) * warped
    loss = (
        config.gan_weight * _judged(nets[f"judge_{name}"], swapped, warped, 1.0, config) if share >= _CROSSED_FROM else warped.new_zeros(())
    )
    if config.cycle_weight:
        _, again, _, _, _ = _decoded(nets, "a" if name == "b" else "b", swapped, config)
        loss = loss + config.cycle_weight * fn.l1_loss(again, warped)
    return loss


def _nets(config: FaceSwapConfig) -> dict[str, nn.Module]:
    def decoder() -> nn.Module:
        return Decoder(config.size_px, config.base, lite=config.lite)

    nets: dict[str, nn.Module] = {"encoder": Encoder(config.size_px, config.base, lite=config.lite), "a": decoder(), "b": decoder()}
    return {**nets, "judge_a": Discriminator(config.size_px, config.base), "judge_b": Discriminator(config.size_px, config.base)}


def _beta(generator: Generator) -> float:
    """Beta(.2, .2) by Johnk's method from a torch generator: numpy's would be a second source of randomness."""
    while True:
        x, y = (torch.rand(2, generator=generator, dtype=torch.float64) ** 5).tolist()
        if 0 < x + y <= 1:
            return float(x / (x + y))


def _slope(images: Tensor, axis: int) -> Tensor:
    return torch.diff(images, dim=axis)


def _last(steps: tuple[tuple[float, float], ...], share: float, before: float) -> float:
    """The value of the last entry whose share is reached."""
    value = before
    for start, entry in steps:
        value = entry if share >= start else value
    return value


def _update(optimiser: torch.optim.Optimizer, loss: Any) -> None:
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()
