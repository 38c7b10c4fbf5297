"""The supervised loop: seeded, resumable to the same numbers, with weight averaging, on the GPU when there is one.

Every step draws from a generator that is seeded by (run seed, step): a run that was killed and started again sees
exactly the batches that it would have seen.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor, nn

from .checkpoint import load_checkpoint, save_checkpoint
from .device import bf16_where_fast, drawing_on, training_device, training_format
from .errors import ConfigError, DivergedError
from .optimisers import at_worst_neighbour, new_optimiser
from .run_key import described
from .schedule import LoopConfig, learning_rate_at

__all__ = ["Batch", "EarlyStop", "LoopConfig", "LoopResult", "learning_rate_at", "step_generator", "train_supervised"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one step learns from."""

    images: Tensor
    """float32 (B, 3, S, S), normalised as the bundle will say."""
    labels: Tensor
    """float32 (B,), 1 = fake."""
    masks: Tensor | None = None
    """(B, 1, S, S) in 0..1 for nets with a mask head."""
    paired: bool = False
    """The first half are fakes and the second half their reals, in the same order."""


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Ends a run whose validation no longer improves, with the weights that were best."""

    metric: str
    """Measured on validation material only, lower is better; its name starts with `valid_`, so that no test figure slips in."""
    patience: int
    """Validations without improvement."""

    def __post_init__(self) -> None:
        if not self.metric.startswith("valid_") or self.patience < 1:
            raise ConfigError(f"early stop needs a metric named valid_... and patience >= 1, got {self.metric!r} and {self.patience}")


@dataclass(frozen=True, slots=True)
class LoopResult:
    """How a run ended."""

    steps: int
    loss: float
    """Running mean of the training loss."""
    validation: dict[str, float]
    seconds: float


def step_generator(seed: int, step: int, device: torch.device | None = None) -> Generator:
    """The one source of randomness of a step; devices give other numbers."""
    return torch.Generator(device or "cpu").manual_seed((seed * 1_000_003 + step) % (2**63))


def train_supervised(
    net: nn.Module,
    draw: Callable[[int, Generator], Batch],
    *,
    config: LoopConfig,
    run_dir: Path,
    identity: str,
    validate: Callable[[nn.Module], dict[str, float]] = lambda _net: {},
    on_log: Callable[[dict[str, Any]], None] = lambda _row: None,
    early_stop: EarlyStop | None = None,
) -> tuple[nn.Module, LoopResult]:
    """Train `net`; resumes from `run_dir/checkpoint.pt` when one of the same `identity` is there.

    Args:
        net: maps images to logits; `forward_with_mask` is used when the batches carry masks.
        draw: batch for (step, generator), made on the device of the generator; must depend on nothing else.
        config: schedule.
        run_dir: gets `log.jsonl` and `checkpoint.pt`.
        identity: names data and settings; a checkpoint of another identity is refused.
        validate: metrics of the averaged net.
        on_log: called with every logged row.
        early_stop: when to end before the last step; validations count.

    Returns:
        The averaged net (with an early stop the best one) on the CPU in eval mode, and the result.

    Raises:
        DivergedError: the loss is not finite.
        CheckpointError: the checkpoint is of another run or unreadable.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = training_device()
    net = net.to(memory_format=training_format(device)).to(device)
    averaged = copy.deepcopy(net).requires_grad_(False)
    optimiser = new_optimiser(net, config)
    key = identity + json.dumps(described(config), sort_keys=True) + (json.dumps(asdict(early_stop)) if early_stop else "")
    state = load_checkpoint(run_dir / "checkpoint.pt", key)
    first, mean_loss, validation, spent = 1, math.nan, {}, 0.0
    best = _Best(early_stop)
    if state is not None:
        net.load_state_dict(state["net"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        first, mean_loss, validation, spent = state["step"] + 1, state["mean_loss"], state["validation"], state["seconds"]
        best.load(state.get("best"))
    started = time.monotonic() - spent
    batches = _prefetched(draw, range(first, config.steps + 1) if not best.is_over else range(0), config.seed, device)
    for step, batch in batches:
        net.train()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, config)
        value = _backward(net, batch, config, device, step, optimiser)
        nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm)
        optimiser.step()
        _average(averaged, net, min(config.ema, step / (step + 10)))
        mean_loss = value if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * value
        row: dict[str, Any] = {}
        if step % config.validate_every == 0 or step == config.steps:
            validation = validate(_Hosted(averaged.eval(), device) if device.type != "cpu" else averaged.eval())
            best.see(validation, averaged)
            row = dict(validation)
        last = step == config.steps or best.is_over
        if row or step % config.log_every == 0:
            row = {"step": step, "loss": round(mean_loss, 5), "seconds": round(time.monotonic() - started, 1), **row}
            with (run_dir / "log.jsonl").open("a") as handle:
                handle.write(json.dumps(row) + "\n")
            on_log(row)
        if step % config.checkpoint_every == 0 or last:
            save_checkpoint(
                run_dir / "checkpoint.pt",
                {
                    "key": key,
                    "step": step,
                    "net": net.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "mean_loss": mean_loss,
                    "validation": validation,
                    "seconds": time.monotonic() - started,
                    "best": best.state(),
                },
            )
            first = step + 1
        if last:
            break
    if best.weights is not None:
        averaged.load_state_dict(best.weights)
        validation = best.validation
    return averaged.cpu().eval(), LoopResult(first - 1, mean_loss, validation, time.monotonic() - started)


class _Best:
    """The best validated weights so far; without an early stop it keeps nothing."""

    def __init__(self, rule: EarlyStop | None) -> None:
        self._rule = rule
        self._value = math.inf
        self._bad = 0
        self.weights: dict[str, Tensor] | None = None
        self.validation: dict[str, float] = {}

    @property
    def is_over(self) -> bool:
        return self._rule is not None and self._bad >= self._rule.patience

    def see(self, validation: dict[str, float], net: nn.Module) -> None:
        if self._rule is None:
            return
        if self._rule.metric not in validation:
            raise ConfigError(f"early stop on {self._rule.metric}: validation gave {', '.join(validation) or 'nothing'}")
        value = validation[self._rule.metric]
        self._bad += 1
        if value < self._value:
            self._value, self._bad, self.validation = value, 0, dict(validation)
            self.weights = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    def state(self) -> dict[str, Any] | None:
        if self._rule is None:
            return None
        return {"value": self._value, "bad": self._bad, "weights": self.weights, "validation": self.validation}

    def load(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self._value, self._bad, self.weights, self.validation = state["value"], state["bad"], state["weights"], state["validation"]


class _Hosted(nn.Module):
    """A net on another device that takes and gives tensors of the CPU."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self._device = device
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images.to(self._device))
        return out.cpu()


def _prefetched(draw: Callable[[int, Generator], Batch], steps: range, seed: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """Make the next batch on `device`, in a thread while the net learns from this one; the numbers do not depend on the thread."""

    def made(step: int) -> Batch:
        with drawing_on(device):
            return draw(step, step_generator(seed, step, device))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch") as pool:
        waiting: Future[Batch] | None = None
        for step in steps:
            batch = waiting.result() if waiting is not None else made(step)
            waiting = pool.submit(made, step + 1) if step + 1 in steps else None
            yield step, batch


def _backward(net: nn.Module, batch: Batch, config: LoopConfig, device: torch.device, step: int, optimiser: torch.optim.Optimizer) -> float:
    """Leave the gradients of one step in `net`, and return its loss."""
    torch.manual_seed(config.seed * 1_000_003 + step)  # dropout draws from the global generator
    loss = _loss(net, batch, config, device)
    value = loss.item()
    if not math.isfinite(value):
        rate = learning_rate_at(step, config)
        raise DivergedError(f"loss at step {step} is {value}; lower the learning rate (now {rate:.2g}) or check the images")
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    if config.sam_rho:
        with at_worst_neighbour(net, config.sam_rho):
            torch.manual_seed(config.seed * 1_000_003 + step)  # both gradients are of one function: the same units drop out
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(_loss(net, batch, config, device))
    return value


def _loss(net: nn.Module, batch: Batch, config: LoopConfig, device: torch.device) -> Tensor:
    images = batch.images.to(device, memory_format=training_format(device))
    labels = batch.labels.to(device)
    with bf16_where_fast(device, config.bf16):
        if batch.masks is None:
            logits, mask_logits = net(images), None
        else:
            logits, mask_logits = net.forward_with_mask(images)  # type: ignore[operator]
    loss = fn.binary_cross_entropy_with_logits(logits.float(), labels)
    if batch.paired and config.pair_weight > 0:
        fake, real = logits.float().chunk(2)
        loss = loss + config.pair_weight * fn.softplus(real - fake).mean()
    if mask_logits is not None and batch.masks is not None:
        target = fn.interpolate(batch.masks.to(device), size=mask_logits.shape[-2:], mode="area").squeeze(1)
        loss = loss + config.mask_weight * fn.binary_cross_entropy_with_logits(mask_logits.float(), target)
    return loss


def _average(averaged: nn.Module, net: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
