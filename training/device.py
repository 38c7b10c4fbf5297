"""Where nets are trained: on the GPU when there is one. Batches are drawn on the CPU, so that a seed gives the same pictures everywhere."""

from __future__ import annotations

import torch


def training_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
