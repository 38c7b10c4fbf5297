"""Optimisers of the supervised loop, and the look around a step that sharpness-aware minimisation takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .schedule import LoopConfig


def new_optimiser(net: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """For what is trained of `net`."""
    groups = _parameter_groups(net, config.weight_decay)
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "nadam": torch.optim.NAdam,
    }
    return kinds[config.optimiser](groups, lr=config.learning_rate)


@contextmanager
def at_worst_neighbour(net: nn.Module, rho: float) -> Iterator[None]:
    """Inside, the weights stand `rho` up their gradient; a gradient taken there is the one to step with from where they stood.

    Sharpness-aware minimisation after Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving
    Generalization", equation 2 with the 2-norm: w + rho * g / |g|. On the way out the weights are what they were, bit for bit.
    Running means of batch norms stand still inside: they describe the net as it is, not its neighbour.

    Args:
        net: has gradients from one backward pass.
        rho: radius over all trained weights together.
    """
    trained = [p for p in net.parameters() if p.requires_grad and p.grad is not None]
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    kept = [p.detach().clone() for p in trained]
    with torch.no_grad():
        length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in trained if p.grad is not None]))
        scale = rho / length.clamp_min(1e-12)
        for p in trained:
            if p.grad is not None:
                p.add_(p.grad * scale)
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            for p, before in zip(trained, kept, strict=True):
                p.copy_(before)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """No decay on biases and norm weights."""
    trained = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
