"""Where nets are trained and their batches made: on the GPU when there is one."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from detect_core.detectors.runtime import has_fast_bf16


def training_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def drawing_on(device: torch.device) -> AbstractContextManager[object]:
    """New tensors made inside lie on `device`, and random ones want a generator that lies there too."""
    return nullcontext() if device.type == "cpu" else device


def bf16_where_fast(device: torch.device, wanted: bool) -> AbstractContextManager[object]:
    """Autocast to bfloat16 if it is wanted and the device multiplies it in hardware: emulated it takes twelve times as long as fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and has_fast_bf16(device))


def training_format(device: torch.device) -> torch.memory_format:
    """The memory layout to train in: channels last, but not on a CPU without AVX-512.

    There the backward pass of narrow 3x3 convolutions (8 channels) in channels-last fp32 writes outside its memory or never
    returns (torch 2.14.1 on AVX2).
    """
    is_safe = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.channels_last if is_safe else torch.contiguous_format


class Placed:
    """A frozen net with a copy on every device that it was wanted on: a batch and a validation must not move it under each other."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._copies: dict[torch.device, nn.Module] = {}

    def on(self, device: torch.device) -> nn.Module:
        """The net there."""
        if device.type == "cpu":
            return self._net
        if device not in self._copies:
            self._copies[device] = copy.deepcopy(self._net).to(device)
        return self._copies[device]
