"""How a net is run: in which precision and by which engine, behind one interface. A faster way must first prove itself.

Every candidate scores a fixed probe beside the plain fp32 net; one whose scores stray is not used. Whether bf16 is
worth trying is read off the processor, not timed: the same machine always takes the same way, so a verdict can be
repeated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from ..errors import OptionError
from .packed import pack

Precision = Literal["fp32", "bf16"]
PrecisionWish = Literal["auto", "fp32", "bf16"]
"""`auto`: bf16 where the device multiplies it faster than fp32, else fp32."""
Engine = Literal["packed", "eager", "inductor"]

SCORE_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-5, "bf16": 1e-2}
"""How far a score may lie from the plain fp32 net's."""
_DTYPES: Final[dict[Precision, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, eq=False)
class NetRuntime:
    """A net made ready."""

    engine: Engine
    precision: Precision
    run: Callable[[Tensor], Tensor]
    """(B, 3, S, S) normalised fp32 input, channels last, to (B,) fp32 logits."""


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def without_tf32(device: torch.device) -> None:
    """Make the process compute fp32 in fp32 on a CUDA device: torch lets cuDNN's convolutions round to the ten bits of TF32 unless it is told.

    Scores are calibrated in fp32, and what is computed again in fp32 next to a threshold must be it.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def choose_runtime(net: nn.Module, probe_BCHW: Tensor, *, wish: PrecisionWish, temperature: float, compiled: bool = False) -> NetRuntime:
    """The fastest way to run `net` whose scores stay within `SCORE_TOLERANCE` of plain fp32.

    Args:
        net: in eval mode, fp32, channels last, on its device.
        probe_BCHW: normalised crops on the same device.
        wish: precision asked for.
        temperature: logits are divided by it before they become scores.
        compiled: try TorchInductor first; costs tens of seconds at the first batch and needs a C++ compiler.

    Raises:
        OptionError: the precision is unknown.
    """
    if wish not in ("auto", "fp32", "bf16"):
        raise OptionError(f"precision must be auto, fp32 or bf16, got {wish!r}")
    plain = NetRuntime("eager", "fp32", net)
    with torch.inference_mode():
        reference = torch.sigmoid(plain.run(probe_BCHW).float() / temperature)
        for candidate in _candidates(net, probe_BCHW, wish=wish, compiled=compiled):
            try:
                scores = torch.sigmoid(candidate.run(probe_BCHW) / temperature)
            except (RuntimeError, TypeError):  # an operation without a kernel in this precision, or no compiler
                continue
            if scores.shape == reference.shape and bool((scores - reference).abs().max() <= SCORE_TOLERANCE[candidate.precision]):
                return candidate
    return plain


def _candidates(net: nn.Module, probe_BCHW: Tensor, *, wish: PrecisionWish, compiled: bool) -> Iterator[NetRuntime]:
    device = probe_BCHW.device
    wanted: list[Precision] = ["fp32"]
    if wish == "bf16" or (wish == "auto" and has_fast_bf16(device)):
        wanted.insert(0, "bf16")
    for precision in wanted:
        if compiled:
            yield NetRuntime("inductor", precision, _autocast(torch.compile(net, dynamic=True), device, precision))
        packed = _packed(net, probe_BCHW, _DTYPES[precision]) if device.type == "cpu" else None
        if packed is not None:
            yield NetRuntime("packed", precision, _cast(packed, _DTYPES[precision]))
        if precision == "bf16":
            yield NetRuntime("eager", precision, _autocast(net, device, precision))


def _packed(net: nn.Module, probe_BCHW: Tensor, dtype: torch.dtype) -> nn.Module | None:
    try:
        return pack(copy.deepcopy(net), probe_BCHW, dtype=dtype)
    except RuntimeError:  # processors without AVX-512 lay out no bf16 weights
        return None


def _cast(net: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda x_BCHW: net(x_BCHW.to(dtype)).float()


def _autocast(net: Callable[[Tensor], Tensor], device: torch.device, precision: Precision) -> Callable[[Tensor], Tensor]:
    def run(x_BCHW: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return net(x_BCHW).float()

    return run
