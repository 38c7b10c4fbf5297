"""Detector bundles: a folder with `bundle.json` (the card) and safetensors shards, verified before use.

Nothing is downloaded, nothing is unpickled, and a bundle whose bytes differ from its card is refused: a detector
never scores with weights that nobody vouched for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import nn

from .errors import BundleIntegrityError, BundleMismatchError, BundleNotFoundError
from .nets import build_net

SCHEMA: Final = "bundle/1"
MAX_SHARD_BYTES: Final = 16 * 1024 * 1024
"""Largest weight file: what a git host and a review tool still handle well."""
SHIPPED_ROOT: Final = Path(__file__).parent / "bundles"

Resample = Literal["area", "bilinear", "native"]


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How a face crop is cut and normalised for one net."""

    size_px: int
    """Side of the square that the net gets."""
    margin: float
    """Side of the cut square over the longer side of the face box, for example 1.3."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Divides after the mean is subtracted."""
    resample: Resample = "area"
    """`area` averages when shrinking; `native` cuts a patch around the face centre without any resampling."""

    def __post_init__(self) -> None:
        if not 16 <= self.size_px <= 1024:
            raise BundleMismatchError(f"crop size_px must be in [16, 1024], got {self.size_px}")
        if not 1.0 <= self.margin <= 3.0:
            raise BundleMismatchError(f"crop margin must be in [1, 3], got {self.margin}")
        if min(self.std) <= 0:
            raise BundleMismatchError(f"crop std must be positive, got {self.std}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified card. The weights are read by `load_net`."""

    name: str
    """Detector name in verdicts and metrics, for example `blend`."""
    version: str
    detector: str
    """Key in the detector registry: which adapter scores with this net."""
    net: str
    """Key in `detect_core.nets`."""
    net_options: Mapping[str, Any]
    crop: CropSpec
    temperature: float
    """Logits are divided by this."""
    weights: tuple[Mapping[str, Any], ...]
    """`{file, sha256, bytes}` per shard."""
    sha256: str
    """Hash over the shard hashes and everything in the card that changes a score."""
    root: Path
    card: Mapping[str, Any] = field(repr=False)
    """The whole JSON: metrics with intervals, data, limits."""


def scoring_hash(document: Mapping[str, Any]) -> str:
    """Hash of what decides a score: net, options, crop spec, temperature and weights, not metrics or prose."""
    parts = {key: document[key] for key in ("name", "version", "detector", "net", "net_options", "crop", "temperature", "weights")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_bundle(root: Path | str) -> Bundle:
    """Read and verify the card of one bundle folder, hashing every shard.

    Raises:
        BundleNotFoundError: the folder, its card or a shard is missing.
        BundleIntegrityError: the card is malformed, or a shard's size or sha256 differs from the card.
    """
    root = Path(root)
    card_path = root / "bundle.json"
    if not card_path.is_file():
        raise BundleNotFoundError(f"tried to load a bundle from {root}: no bundle.json there; give a folder that training exported")
    try:
        document = json.loads(card_path.read_text())
        if document["schema"] != SCHEMA:
            raise BundleIntegrityError(f"{card_path}: schema {document['schema']!r}, expected {SCHEMA!r}; export it again")
        crop = document["crop"]
        bundle = Bundle(
            name=str(document["name"]),
            version=str(document["version"]),
            detector=str(document["detector"]),
            net=str(document["net"]),
            net_options=dict(document["net_options"]),
            crop=CropSpec(
                size_px=int(crop["size_px"]),
                margin=float(crop["margin"]),
                mean=_triple(crop["mean"]),
                std=_triple(crop["std"]),
                resample=crop["resample"],
            ),
            temperature=float(document["temperature"]),
            weights=tuple(document["weights"]),
            sha256=scoring_hash(document),
            root=root,
            card=document,
        )
    except (KeyError, TypeError, ValueError) as err:
        raise BundleIntegrityError(f"{card_path}: not a readable bundle card ({err!r}); export the bundle again") from err
    for shard in bundle.weights:
        _verify_shard(root, shard)
    return bundle


def load_net(bundle: Bundle) -> nn.Module:
    """Build the bundle's net and fill it, in `eval()` mode, fp32, on the CPU.

    Raises:
        BundleMismatchError: the weights' names or shapes are not the net's.
        BundleIntegrityError: a shard changed since the card was verified.
    """
    state: dict[str, torch.Tensor] = {}
    for shard in bundle.weights:
        state.update(safetensors_load(_verify_shard(bundle.root, shard)))
    net = build_net(bundle.net, **bundle.net_options)
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    got = {name: tuple(value.shape) for name, value in state.items()}
    if got != expected:
        wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
        raise BundleMismatchError(
            f"bundle {bundle.name}: {len(wrong)} tensors differ from net {bundle.net!r} (first: {wrong[0]}: "
            f"got {got.get(wrong[0])}, expected {expected.get(wrong[0])}); use the bundle with the version that made it"
        )
    net.load_state_dict({name: value.to(torch.float32) if value.is_floating_point() else value for name, value in state.items()})
    return net.eval().requires_grad_(False)


def save_bundle(
    root: Path | str,
    net_module: nn.Module,
    *,
    name: str,
    version: str,
    detector: str,
    net: str,
    net_options: Mapping[str, Any],
    crop: CropSpec,
    temperature: float,
    card: Mapping[str, Any],
    half: bool = False,
) -> Bundle:
    """Write weights and card into `root`, verify what was written and return it.

    Args:
        root: folder of the bundle, made when missing; its old shards are removed.
        net_module: the trained net; its `state_dict` is stored.
        name: detector name in verdicts and metrics.
        version: version of this bundle.
        detector: key in the detector registry.
        net: key in `detect_core.nets`; `build_net(net, **net_options)` must have the same tensors.
        net_options: keyword arguments of the net.
        crop: how crops are cut and normalised.
        temperature: logits are divided by this.
        card: free part of the card: metrics, data, recipe, limits.
        half: store floating tensors as float16.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob("*.safetensors"):
        old.unlink()
    weights = []
    for index, shard in enumerate(_shards(net_module.state_dict(), half=half), start=1):
        payload = safetensors_save(shard)
        file = f"model-{index:05d}.safetensors"
        (root / file).write_bytes(payload)
        weights.append({"file": file, "sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload)})
    document = {
        "schema": SCHEMA,
        "name": name,
        "version": version,
        "detector": detector,
        "net": net,
        "net_options": dict(net_options),
        "crop": {
            "size_px": crop.size_px,
            "margin": crop.margin,
            "mean": list(crop.mean),
            "std": list(crop.std),
            "resample": crop.resample,
        },
        "temperature": temperature,
        "weights": weights,
        **card,
    }
    (root / "bundle.json").write_text(json.dumps(document, indent=2) + "\n")
    bundle = load_bundle(root)
    load_net(bundle)
    return bundle


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _verify_shard(root: Path, shard: Mapping[str, Any]) -> bytes:
    """The shard's bytes, after name, size and hash were checked: what is loaded is what was hashed."""
    file = str(shard["file"])
    path = root / file
    if path.name != file or path.suffix != ".safetensors":
        raise BundleIntegrityError(f"{root}: weight file {file!r} is not a plain *.safetensors name; export the bundle again")
    if not path.is_file() or path.is_symlink():
        raise BundleNotFoundError(f"{root}: weight file {file} is missing or a link; restore the bundle folder")
    size = path.stat().st_size
    if size != int(shard["bytes"]) or size > MAX_SHARD_BYTES:
        raise BundleIntegrityError(
            f"{path}: {size} bytes, the card says {shard['bytes']}, the limit is {MAX_SHARD_BYTES}; restore the bundle folder"
        )
    payload = path.read_bytes()
    digest = hashlib.sha256(payload).hexdigest()
    if digest != shard["sha256"]:
        raise BundleIntegrityError(
            f"{path}: sha256 {digest[:12]}..., the card says {str(shard['sha256'])[:12]}...; restore the bundle folder"
        )
    return payload


def _shards(state: Mapping[str, torch.Tensor], *, half: bool) -> list[dict[str, torch.Tensor]]:
    """Split tensors into groups below the shard limit, in order, leaving room for the safetensors header."""
    room = MAX_SHARD_BYTES - 256 * 1024
    groups: list[dict[str, torch.Tensor]] = [{}]
    used = 0
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        if half and tensor.is_floating_point():
            tensor = tensor.to(torch.float16)
        num_bytes = tensor.numel() * tensor.element_size()
        if num_bytes > room:
            raise BundleMismatchError(
                f"tensor {name} holds {num_bytes} bytes, one shard holds at most {room}; use half=True or a smaller net"
            )
        if used + num_bytes > room:
            groups.append({})
            used = 0
        groups[-1][name] = tensor
        used += num_bytes
    return groups
