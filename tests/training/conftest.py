"""Fixtures of the training tests; test files import `training_faces` from this folder."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from training_faces import make_pack

from training.material import Material


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Tiny nets gain nothing from more threads, and lose much where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_pack():
    return make_pack(24)


@pytest.fixture(scope="session")
def toy_material():
    from training.face_pack import concatenate

    packs = [
        make_pack(48, seed=1),
        make_pack(12, seed=2, kind="video"),
        make_pack(40, seed=3, split="valid"),
        make_pack(40, seed=4, split="test"),
    ]
    return Material(concatenate(packs), "toy faces")


@pytest.fixture(autouse=True)
def _fenced_randomness():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
