"""Fixtures for every test: a fenced random state, the outside material, services that may be missing on a laptop."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

REPOSITORY = Path(__file__).resolve().parent.parent

# readline tells child processes the terminal's size, and so the processes that run test files: messages must not wrap by it
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def fenced_randomness() -> Iterator[None]:
    """A test may seed what it likes; the next one does not notice."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the legacy state is what leaks
    yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)  # noqa: NPY002


@pytest.fixture(autouse=True)
def fenced_logs() -> Iterator[None]:
    """A test may run a command whole; the level that it logs at is not that of the next one."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real material that is not part of the repository; tests that need it skip without it."""
    folder = Path(os.environ.get("VERIFRAME_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no real material: set VERIFRAME_SHARED to its folder")
    return folder
