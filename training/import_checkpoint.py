"""Turn a legacy PyTorch checkpoint into a bundle: tensors are read, code never runs.

`torch.load(weights_only=True)` on torch >= 2.6 (below, CVE-2025-32434 runs code all the same). TorchScript and `torch.export`
archives are programs, so they are refused whatever they hold. What comes out is safetensors with a card, as training writes it.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console
from torch import nn

from detect_core.bundle import Bundle, CropSpec, save_bundle
from detect_core.nets import build_net

from .errors import CheckpointError, ConfigError

commands = typer.Typer()
MAX_BYTES: Final = 4 * 1024**3
"""Of the file, and of what a compressed archive unpacks to."""
_LEAST_TORCH: Final = (2, 6)
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net", "ema")
_PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.")
_PROGRAM_PARTS: Final = ("constants.pkl", "archive_format", "serialized_exported_program.json")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint, without wrapper keys and prefixes.

    Raises:
        CheckpointError: it is missing, too large, a program, holds anything but tensors, or this torch is too old to look.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _LEAST_TORCH:
        raise CheckpointError(f"torch {torch.__version__} may run code from a checkpoint (CVE-2025-32434): use 2.6 or newer")
    if not path.is_file() or path.is_symlink():
        raise CheckpointError(f"tried to read {path.name}: there is no such plain file")
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path.name} holds {path.stat().st_size} bytes, the limit is {MAX_BYTES}")
    if zipfile.is_zipfile(path):
        _refuse_programs(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the format, which is why we are here
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise CheckpointError(
            f"{path.name} is no checkpoint of tensors alone ({reason:.200}); it was not run. Save its state_dict() where it was trained"
        ) from err
    return _unwrapped(loaded, name=path.name)


def _refuse_programs(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise CheckpointError(f"{path.name} unpacks to more than {MAX_BYTES} bytes")
    names = [entry.filename for entry in entries]
    if any(name.endswith(_PROGRAM_PARTS) or "/code/" in name for name in names):
        raise CheckpointError(
            f"{path.name} is a TorchScript or torch.export program, not weights: save its state_dict() where it was trained"
        )


def _unwrapped(loaded: Any, *, name: str) -> dict[str, torch.Tensor]:
    state = loaded
    while isinstance(state, Mapping) and not _is_state(state):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not _is_state(state):
        raise CheckpointError(f"{name} holds {type(loaded).__name__}, expected named tensors or one of {', '.join(_WRAPPERS)} with them")
    tensors = {str(key): value for key, value in state.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _is_state(state: Mapping[Any, Any]) -> bool:
    return bool(state) and all(isinstance(value, torch.Tensor) for value in state.values())


def fill(net: nn.Module, tensors: Mapping[str, torch.Tensor], *, name: str) -> None:
    """Put the tensors into the net: the same names and shapes, all of them, finite.

    Raises:
        CheckpointError: with the first tensor that does not fit.
    """
    expected = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    got = {key: tuple(value.shape) for key, value in tensors.items()}
    wrong = sorted(key for key in expected.keys() | got.keys() if expected.get(key) != got.get(key))
    if wrong:
        raise CheckpointError(
            f"{name}: {len(wrong)} tensors differ from the net (first: {wrong[0]}: got {got.get(wrong[0])}, expected {expected.get(wrong[0])}); "
            "name the net and the options that it was trained with"
        )
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(f"{name}: {len(broken)} tensors hold NaN or infinity (first: {broken[0]})")
    net.load_state_dict(dict(tensors))


def import_checkpoint(
    path: Path, destination: Path, *, name: str, net: str, net_options: Mapping[str, Any], detector: str, crop: CropSpec, version: str
) -> Bundle:
    """Read a checkpoint and write it as a bundle without calibration: temperature 1, no measured figures.

    Raises:
        CheckpointError: it cannot be read or does not fit the net.
        BundleMismatchError: there is no such net.
    """
    module = build_net(net, **net_options)
    fill(module, read_tensors(path), name=path.name)
    card = {"origin": {"kind": "imported checkpoint", "file": path.name}, "limits": ["not calibrated here", "not evaluated here"]}
    return save_bundle(
        destination,
        module.eval(),
        name=name,
        version=version,
        detector=detector,
        net=net,
        net_options=net_options,
        crop=crop,
        temperature=1.0,
        card=card,
    )


@commands.command("import-checkpoint")
def import_command(
    checkpoint: Annotated[Path, typer.Argument(help="A .pt or .pth file with a state_dict")],
    destination: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    name: Annotated[str, typer.Option(help="Detector name in verdicts and metrics.")],
    net: Annotated[str, typer.Option(help="Net that the weights belong to.")],
    size_px: Annotated[int, typer.Option(help="Side of the crops that the net was trained on.")],
    options: Annotated[str, typer.Option(help="Options of the net as JSON.")] = "{}",
    detector: Annotated[
        str, typer.Option(help="Adapter that scores with the net; all of one net over one crop are the same.")
    ] = "xception",
    margin: Annotated[float, typer.Option(help="Side of the crop over the longer side of the face box.")] = 1.3,
    mean: Annotated[str, typer.Option(help="Subtracted from RGB in [0, 1]: r,g,b.")] = "0.5,0.5,0.5",
    std: Annotated[str, typer.Option(help="Divides after the mean: r,g,b.")] = "0.5,0.5,0.5",
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "0",
) -> None:
    """Convert a legacy checkpoint into a bundle; nothing in it is run. Calibrate it before it judges anybody."""
    import json

    try:
        chosen: dict[str, Any] = dict(json.loads(options))
        crop = CropSpec(size_px=size_px, margin=margin, mean=_triple(mean), std=_triple(std))
    except (ValueError, TypeError) as err:
        raise ConfigError(f"options are a JSON object, mean and std three numbers with commas ({err})") from err
    bundle = import_checkpoint(
        checkpoint, destination, name=name, net=net, net_options=chosen, detector=detector, crop=crop, version=version
    )
    Console(markup=False, emoji=False).print(
        f"{bundle.name} {bundle.version} {bundle.sha256[:12]} written to {destination}; next: veriframe-train calibrate"
    )


def _triple(text: str) -> tuple[float, float, float]:
    first, second, third = (float(part) for part in text.split(","))
    return first, second, third
