"""A run that starts from weights instead of random numbers: a bundle of the same net, or a published checkpoint of its trunk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from detect_core.bundle import load_bundle, load_net
from detect_core.nets import build_net

from .errors import ConfigError
from .import_checkpoint import read_tensors

TRUNKS: Final = {"efficientnet_lite0": ("early.", "late.")}
"""Nets whose trunk can start from published weights, with the names of its parts."""


def new_net(name: str, options: str, init: str, terms: str) -> tuple[nn.Module, dict[str, Any]]:
    """The net that settings describe, and its keyword arguments.

    Args:
        name: of the net.
        options: JSON of its keyword arguments.
        init: see `started`.
        terms: see `started`.

    Raises:
        ConfigError: the options are no JSON object or fit no such net, or what it is to start from is another net.
        CheckpointError: a checkpoint cannot be read as tensors alone.
    """
    try:
        made = json.loads(options)
        net = build_net(name, **made)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"tried to build {name} with net_options={options}: {err}; give a JSON object of its keyword arguments") from err
    return started(net, init, name, terms=terms), made


def started(net: nn.Module, init: str, name: str, *, terms: str = "") -> nn.Module:
    """The net with the weights that `init` names; as it is when that is empty.

    Args:
        net: freshly built.
        init: folder of a bundle of the same net, or a `.pth` checkpoint whose tensors begin with the net's trunk.
        name: of the net.
        terms: whose published weights a checkpoint holds and under which licence.

    Raises:
        ConfigError: the bundle or checkpoint holds another net, or a checkpoint comes without terms.
        CheckpointError: the checkpoint cannot be read as tensors alone.
    """
    if not init:
        return net
    path = Path(init)
    if not path.is_file():
        return continued(net, path, name)
    if not terms:
        raise ConfigError(
            f"{path.name} holds weights of others: say whose they are, what they learned from and under which licence "
            "(--set init_terms=...); the card repeats it"
        )
    return with_trunk(net, path, name)


def continued(net: nn.Module, bundle: Path, name: str) -> nn.Module:
    """The net with the weights of a bundle.

    Raises:
        ConfigError: the bundle holds another net.
    """
    loaded = load_bundle(bundle)
    if loaded.net != name:
        raise ConfigError(f"tried to continue from {bundle}: it holds {loaded.net}, wanted {name}; give a bundle of the same net")
    try:
        net.load_state_dict(load_net(loaded).state_dict())
    except RuntimeError as err:
        raise ConfigError(
            f"tried to continue from {bundle}: its {name} has other options ({dict(loaded.net_options)}); give the same"
        ) from err
    return net.requires_grad_(True)


def with_trunk(net: nn.Module, checkpoint: Path, name: str) -> nn.Module:
    """The net with the trunk of a published checkpoint: same order and shapes, whatever its tensors are called.

    What follows the trunk in the checkpoint (its classifier) is left out, and what the net has besides stays random.

    Raises:
        ConfigError: the net has no such trunk, or a tensor has another shape.
        CheckpointError: the checkpoint cannot be read as tensors alone.
    """
    if name not in TRUNKS:
        raise ConfigError(
            f"tried to start {name} from {checkpoint.name}: only {', '.join(sorted(TRUNKS))} can; give the folder of a bundle"
        )
    own = [key for key in net.state_dict() if key.startswith(TRUNKS[name]) and _is_learned(key)]
    given = [(key, value) for key, value in read_tensors(checkpoint).items() if _is_learned(key)]
    if len(given) < len(own):
        raise ConfigError(f"{checkpoint.name} holds {len(given)} tensors, the trunk of {name} has {len(own)}; give weights of that net")
    state: dict[str, Tensor] = net.state_dict()
    for key, (theirs, value) in zip(own, given, strict=False):
        if state[key].shape != value.shape or key.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise ConfigError(
                f"{checkpoint.name}: {theirs} is {tuple(value.shape)}, expected {key} {tuple(state[key].shape)} there; give weights of {name}"
            )
        state[key] = value.to(torch.float32)
    net.load_state_dict(state)
    return net.requires_grad_(True)


def named(init: str) -> str:
    """What a card says of the start: name and hash of the bundle or checkpoint, never a path."""
    if not init:
        return ""
    path = Path(init)
    if path.is_file():
        with path.open("rb") as handle:
            return f"{path.name}@{hashlib.file_digest(handle, 'sha256').hexdigest()[:12]}"
    bundle = load_bundle(path)
    return f"{bundle.name}@{bundle.sha256[:12]}"


def terms_of(init: str, terms: str) -> str:
    """What the card says of published weights: the terms given, or those that the bundle to start from was made under."""
    if terms or not init or Path(init).is_file():
        return terms
    return str(load_bundle(Path(init)).card.get("recipe", {}).get("settings", {}).get("init_terms", ""))


def _is_learned(key: str) -> bool:
    return not key.endswith("num_batches_tracked")
