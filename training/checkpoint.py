"""Checkpoints: written whole or not at all, and refused when they belong to another run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from .errors import CheckpointError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside and rename: a kill leaves the old checkpoint whole."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)  # noqa: PTH105  Path.replace is the same call; named for what it guarantees


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state under `path`, or None without a file.

    Raises:
        CheckpointError: not readable, or of a run with another `key`.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as err:
        raise CheckpointError(f"{path}: not a readable checkpoint ({err}); delete it to start the run again") from err
    if state.get("key") != key:
        raise CheckpointError(f"{path}: belongs to a run with other data or settings; give another run folder or delete it")
    return state
