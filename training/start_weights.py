"""Start a run from the weights of a bundle instead of from scratch."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from detect_core.bundle import load_bundle, load_net

from .errors import ConfigError


def continued(net: nn.Module, bundle: Path, name: str) -> nn.Module:
    """The net with the weights of a bundle.

    Raises:
        ConfigError: the bundle holds another net.
    """
    loaded = load_bundle(bundle)
    if loaded.net != name:
        raise ConfigError(f"tried to continue from {bundle}: it holds {loaded.net}, wanted {name}; give a bundle of the same net")
    net.load_state_dict(load_net(loaded).state_dict())
    return net.requires_grad_(True)


def named(init: str) -> str:
    """What a card says of the start: name and hash of the bundle, never a path."""
    if not init:
        return ""
    bundle = load_bundle(Path(init))
    return f"{bundle.name}@{bundle.sha256[:12]}"
