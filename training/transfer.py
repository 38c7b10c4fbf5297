"""Transfer learning: start from weights that the user has, train the head alone or everything."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import CheckpointError, ConfigError

_HEADS: Final = ("head.", "hidden.", "backbone.fc.", "backbone.classifier.", "fc.", "classifier.", "last_linear.")
"""Names under which nets keep what comes after their features; of the user's file these are not taken."""


def start_from(net: nn.Module, file: str) -> str:
    """Load the weights of everything but the head and return the file's SHA-256.

    Args:
        net: any net; its names may carry a `backbone.` in front that the file lacks (timm and torchvision files).
        file: `.safetensors`, or `.pth`/`.pt`/`.bin` with nothing but tensors.

    Raises:
        CheckpointError: the file is missing or unreadable, or a weight is missing or has another shape.
    """
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"tried to start from the weights {file}: no such file; give a file of this net, or leave init_weights empty")
    try:
        given: dict[str, Tensor] = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except Exception as err:
        raise CheckpointError(f"{file}: not readable as plain weights ({err}); save it again as safetensors") from err
    mine = net.state_dict()
    taken = {name: _found(given, name, file) for name in mine if not _in_head(name)}
    for name, value in taken.items():
        if value.shape != mine[name].shape:
            raise CheckpointError(
                f"{file}: {name} is {tuple(value.shape)}, the net wants {tuple(mine[name].shape)}; the file is of another net"
            )
    net.load_state_dict({**mine, **taken})
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def freeze(net: nn.Module, *, all_but_head: bool) -> nn.Module:
    """Let only the head learn, or everything.

    Frozen batch norms keep their statistics too: a net that has a `frozen` switch is told to stay in eval mode there.
    """
    trained = 0
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not all_but_head or _in_head(name))
        trained += parameter.numel() if parameter.requires_grad else 0
    if not trained:
        raise ConfigError(f"{type(net).__name__} has no head that could be trained alone; use trained=all")
    switched: Any = net
    if hasattr(net, "frozen"):
        switched.frozen = all_but_head
    elif all_but_head and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        raise ConfigError(f"{type(net).__name__} has batch norms that would go on learning while frozen; use trained=all")
    return net


def _in_head(name: str) -> bool:
    return name.startswith(_HEADS)


def _found(given: dict[str, Tensor], name: str, file: str) -> Tensor:
    for candidate in (name, name.removeprefix("backbone."), f"module.{name}"):
        if candidate in given:
            return given[candidate]
    raise CheckpointError(f"{file}: has no weight {name!r} ({len(given)} others); the file is of another net")
