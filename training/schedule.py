"""Length, rates and strengths of one supervised run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from .errors import ConfigError
from .run_key import ADDED_LATER

Optimiser = Literal["adamw", "adam", "nadam", "sgd"]
"""`sgd` has momentum 0.9; weight decay is decoupled for `adamw` only."""
Rates = Literal["cosine", "constant", "linear_tail", "halving"]
"""`cosine` warms up and falls to zero by half a cosine; `linear_tail` is constant for three quarters of the steps and then falls
linearly to zero; `halving` halves every quarter. Only `cosine` warms up."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Schedule of one supervised run."""

    steps: int = 1000
    learning_rate: float = 2e-3
    """Peak."""
    optimiser: Optimiser = "adamw"
    warmup_share: float = 0.05
    weight_decay: float = 0.05
    mask_weight: float = 1.0
    pair_weight: float = 0.5
    """Weight of the ranking loss on pairs: what both halves share cancels in the difference of their logits."""
    ema: float = 0.995
    """Decay of the averaged weights per step; 0 gives the weights of the last step."""
    clip_norm: float = 5.0
    seed: int = 0
    bf16: bool = True
    log_every: int = 50
    validate_every: int = 500
    checkpoint_every: int = 250
    rates: Rates = field(default="cosine", metadata=ADDED_LATER)
    sam_rho: float = field(default=0.0, metadata=ADDED_LATER)
    """Radius of sharpness-aware minimisation around the optimiser's step; 0 for none. Doubles the cost of a step."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.ema < 1 or self.learning_rate <= 0:
            raise ConfigError(f"a run needs steps >= 1, 0 <= ema < 1 and a positive learning rate, got {self}")
        if self.sam_rho < 0:
            raise ConfigError(f"sam_rho is a radius, so at least 0 (0.05 is usual, 0 switches it off), got {self.sam_rho}")


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """The rate of a step, counted from one."""
    match config.rates:
        case "constant":
            factor = 1.0
        case "linear_tail":
            factor = min(1.0, 4 * (1 - (step - 1) / config.steps))
        case "halving":
            factor = 0.5 ** (4 * (step - 1) // config.steps)
        case "cosine":
            warmup = max(1, round(config.warmup_share * config.steps))
            if step <= warmup:
                return config.learning_rate * step / warmup
            factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))
    return config.learning_rate * factor
