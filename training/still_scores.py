"""Frame-level evaluation on stills: real against fake of the same source, and self-made fakes of held-out faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detect_core.detectors import Detector

from .augment import AugmentConfig
from .face_pack import FacePack
from .geometry import view
from .loop import step_generator
from .metrics import auc, bootstrap_auc
from .pairs import PairConfig, PairSource
from .simulators.base import Simulator

PAIR_BATCHES = 4
PAIRS = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """One AUC with what it was measured on."""

    what: str
    auc: float
    interval: tuple[float, float]
    num_real: int
    num_fake: int


def logits_of(images: Tensor, detectors: Sequence[Detector]) -> dict[str, NDArray[np.float32]]:
    """Logits per detector of wide-enough square images (N, 3, S, S) in 0..1, resized to each bundle's side."""
    out = {}
    for detector in detectors:
        size = detector.bundle.crop.size_px
        resized = images if images.shape[-1] == size else torch.nn.functional.interpolate(images, size=(size, size), mode="area")
        crops = (resized * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        out[detector.bundle.name] = np.concatenate([detector.logits(list(crops[i : i + 64])) for i in range(0, len(crops), 64)])
    return out


def by_source(pack: FacePack, detectors: Mapping[str, Detector], sources: Sequence[str]) -> list[Measured]:
    """AUC per detector of each source's test fakes against the same source's test reals."""
    out = []
    for source in sources:
        chosen = pack.where(source=source, split="test")
        labels = [row.label for row in chosen.rows]
        if len(set(labels)) < 2:
            continue
        groups = [row.group for row in chosen.rows]
        for name, detector in detectors.items():
            spec = detector.bundle.crop
            cut = torch.cat(
                [
                    view(chosen, torch.arange(i, min(i + 256, len(chosen))), size_px=spec.size_px, margin=spec.margin)[0]
                    for i in range(0, len(chosen), 256)
                ]
            )
            scores = logits_of(cut, [detector])[name]
            out.append(_measured(f"{name}: {source} fakes against its reals (stills)", scores, labels, groups))
    return out


def on_pairs(pack: FacePack, simulators: Sequence[Simulator], detectors: Mapping[str, Detector], *, seed: int = 2024) -> list[Measured]:
    """Pair AUC of each detector per fake family, on faces that no training saw, augmented as in training."""
    out = []
    for simulator in simulators:
        for name, detector in detectors.items():
            size = detector.bundle.crop.size_px
            config = PairConfig(size_px=size, work_px=size * 9 // 8 // 8 * 8)
            source = PairSource(pack, [(simulator, 1.0)], config=config, augment=AugmentConfig())
            drawn = [source.draw(min(PAIRS, len(pack)), step_generator(seed, i)) for i in range(PAIR_BATCHES)]
            real = logits_of(torch.cat([d[0] for d in drawn]), [detector])[name]
            fake = logits_of(torch.cat([d[1] for d in drawn]), [detector])[name]
            labels = [0] * len(real) + [1] * len(fake)
            groups = [str(i) for i in range(len(real))] * 2
            out.append(_measured(f"{name}: {simulator.family} pairs of held-out faces", np.concatenate([real, fake]), labels, groups))
    return out


def _measured(what: str, scores: NDArray[np.float32], labels: Sequence[int], groups: Sequence[str]) -> Measured:
    interval = bootstrap_auc(scores, labels, groups, rounds=300)
    return Measured(what, auc(scores, labels), interval, len(labels) - sum(labels), sum(labels))
