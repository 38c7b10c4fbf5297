"""A legacy checkpoint becomes a bundle; whatever in it is code is refused and never runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from detect_core.bundle import CropSpec, load_bundle, load_net
from detect_core.detectors import load_detector
from detect_core.nets import build_net
from training.cli import app
from training.errors import CheckpointError
from training.import_checkpoint import import_checkpoint, read_tensors

CROP = CropSpec(size_px=64, margin=1.3)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(3)
    return build_net("cnn5").eval()


def convert(path: Path, destination: Path):
    return import_checkpoint(path, destination, name="old", net="cnn5", net_options={}, detector="xception", crop=CROP, version="1")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"net": {"state_dict": {f"_orig_mod.{key}": value for key, value in state.items()}}},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_tensors_becomes_the_same_net(net, tmp_path, wrap, legacy):
    torch.save(wrap(net.state_dict()), tmp_path / "old.pth", _use_new_zipfile_serialization=not legacy)
    bundle = convert(tmp_path / "old.pth", tmp_path / "bundle")
    x_BCHW = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(load_net(load_bundle(tmp_path / "bundle"))(x_BCHW), net(x_BCHW))
    assert load_detector(bundle) is not None
    assert bundle.card["limits"] == ["not calibrated here", "not evaluated here"]


class Exploit:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_carries_code_is_refused_and_not_run(net, tmp_path, legacy):
    canary = tmp_path / "canary"
    torch.save({"state_dict": net.state_dict(), "extra": Exploit(canary)}, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="was not run"):
        convert(tmp_path / "evil.pth", tmp_path / "bundle")
    assert not canary.exists()
    assert not (tmp_path / "bundle").exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Exploit(canary)))
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "evil.pth")
    assert not canary.exists()


def test_a_whole_module_is_refused(net, tmp_path):
    torch.save(net, tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="state_dict"):
        read_tensors(tmp_path / "module.pth")


@pytest.mark.parametrize(
    "part", ["model/constants.pkl", "model/code/__torch__.py", "archive/archive_format", "m/serialized_exported_program.json"]
)
def test_programs_are_refused_whatever_they_hold(tmp_path, part):
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        archive.writestr(part, b"x")
    with pytest.raises(CheckpointError, match="program"):
        read_tensors(tmp_path / "program.pt")


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"<html>404</html>", b"PK\x05\x06" + bytes(18), b"\x80\x02]", bytes(range(256))]
)
def test_other_bytes_are_a_typed_error(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "x.pth")


def test_links_and_missing_files_are_refused(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "good.pth")
    (tmp_path / "link.pth").symlink_to(tmp_path / "good.pth")
    for name in ("link.pth", "missing.pth"):
        with pytest.raises(CheckpointError, match="plain file"):
            read_tensors(tmp_path / name)


def test_tensors_of_another_net_are_refused(net, tmp_path):
    state = dict(net.state_dict())
    name = next(iter(state))
    for wrong in (
        {**state, name: torch.zeros(1)},
        {key: value for key, value in state.items() if key != name},
        {**state, "more": torch.zeros(1)},
    ):
        torch.save(wrong, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match="1 tensors differ"):
            convert(tmp_path / "x.pth", tmp_path / "bundle")
    torch.save({**state, name: torch.full_like(state[name], float("nan"))}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="NaN"):
        convert(tmp_path / "x.pth", tmp_path / "bundle")


def test_the_command_converts(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "old.pth")
    arguments = ["import-checkpoint", str(tmp_path / "old.pth"), str(tmp_path / "b"), "--name", "old", "--net", "cnn5", "--size-px", "64"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert load_bundle(tmp_path / "b").name == "old"
    assert io.BytesIO((tmp_path / "b" / "bundle.json").read_bytes()).getbuffer().nbytes > 100
