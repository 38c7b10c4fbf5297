"""The `temporal` detector: filmed people against portraits that a generator animated, by how a face changes over time.

With few generators to learn from, every figure is cross-fitted: the fakes of a fold's generators and the people of its
reals are judged by a line that saw neither. Generators of one source (variants of one model) lie in one fold. The fold lines are kept beside the bundle so that calibration can use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detect_core.bundle import Bundle, save_bundle
from detect_core.detectors.temporal import NUM_FEATURES
from detect_core.faces.detect import MtcnnFaceDetector
from detect_core.nets.linear_statistics import LinearStatistics

from ..bundle_card import INTENDED_USE
from ..errors import DataError
from ..metrics import auc
from ..recipe import Context, Outcome, Recipe
from ..split_videos import VideoRow, read_video_manifest
from ..track_windows import TEMPORAL_SPEC, TrackWindows, read_track_windows

LIMITS = (
    "Knows only how portraits were animated by the named generators; a face swap or a lip-sync moves like the filmed person and is missed.",
    "A person who sits very still leans fake, a shaky camera leans real.",
    "Needs five looks at the same face.",
    "Not for identification, not as the only ground for a decision about a person.",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Size of the material and strength of the prior."""

    num_twins: int = 2
    num_folds: int = 4
    regularisation: float = 0.001
    """Inverse strength C of the L2 penalty per mean-weighted window."""
    max_videos: int = 0
    """Use at most this many of each label; 0 takes all."""
    seed: int = 0


def run(context: Context) -> Outcome:
    """Measure, cross-fit, fit on everything and export the bundle and the fold bundles."""
    s: Settings = context.settings
    root = context.material.videos_root
    if root is None:
        raise DataError("the temporal recipe learns from videos; name their folder with --videos")
    rows = _chosen(read_video_manifest(root), s.max_videos)
    fold_of = folds_of(rows, s.num_folds)
    windows = read_track_windows(
        root, rows, detector=MtcnnFaceDetector(), num_twins=s.num_twins, seed=s.seed, on_video=lambda line: context.on_log({"": line})
    )
    folds = {w.row.file: fold_of[w.row.file] for w in windows}
    scored: list[tuple[TrackWindows, float]] = []
    for fold in range(s.num_folds):
        held = [w for w in windows if folds[w.row.file] == fold]
        net = fit([w for w in windows if folds[w.row.file] != fold], s.regularisation)
        scored += [(w, _score(net, w)) for w in held]
        _save(context.run_dir / "folds" / str(fold), net, s, windows, {})
    (context.run_dir / "folds.json").write_text(json.dumps(folds, indent=1, sort_keys=True) + "\n")
    metrics = cross_fitted_metrics(scored)
    bundle = _save(context.run_dir / "bundle", fit(windows, s.regularisation), s, windows, metrics)
    return Outcome({**metrics, "bundle_sha256": bundle.sha256}, artefacts=("bundle", "folds"))


def folds_of(rows: Sequence[VideoRow], num_folds: int) -> dict[str, int]:
    """File -> fold: reals by person, fakes by generator, together with all that share a source or a generator with it.

    Raises:
        DataError: the videos of a label lie in fewer than two folds, so that some fold would be judged by a line without them.
    """
    family = _families([row for row in rows if row.label])
    names = {row.file: f"fake {family[row.source]}" if row.label else f"real {row.group}" for row in rows}
    folds = {file: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % num_folds for file, name in names.items()}
    for label, what, more in ((0, "real", "people"), (1, "fake", "generators, under a source of its own each")):
        files = [row.file for row in rows if row.label == label]
        filled = {folds[file] for file in files}
        if len(filled) < 2:
            raise DataError(
                f"tried to lay {len(files)} {what} videos into {num_folds} folds, got {len(filled)} filled, expected at least 2; "
                f"give videos of more {more}, or another number of folds (--set num_folds=...)"
            )
    return folds


def _families(fakes: Sequence[VideoRow]) -> dict[str, str]:
    """Source -> the first by name of all sources that are tied to it by generators."""
    tied = {row.source: frozenset({row.source}) for row in fakes}
    for generator in sorted({row.generator for row in fakes} - {""}):
        joined = frozenset[str]().union(*(tied[row.source] for row in fakes if row.generator == generator))
        tied |= dict.fromkeys(joined, joined)
    return {source: min(members) for source, members in tied.items()}


def _generator(row: VideoRow) -> str:
    """Of a fake; its source where the manifest names none."""
    return row.generator or row.source


def fit(windows: Sequence[TrackWindows], regularisation: float) -> LinearStatistics:
    """Logistic regression over windows; both labels weigh the same, each generator by the root of its videos.

    Raises:
        DataError: a label is missing.
    """
    from sklearn.linear_model import LogisticRegression

    labels = {w.row.label for w in windows}
    if labels != {0, 1}:
        raise DataError(
            f"the temporal line needs real and fake videos on both sides of every fold, got labels {sorted(labels)}; add videos"
        )
    videos_of: dict[str, set[str]] = {}
    for w in windows:
        videos_of.setdefault(_generator(w.row), set()).add(w.row.file)
    x = np.concatenate([w.features for w in windows])
    y = np.concatenate([np.full(len(w.features), w.row.label) for w in windows])
    weight = np.concatenate(
        [np.full(len(w.features), (len(videos_of[_generator(w.row)]) ** -0.5 if w.row.label else 1.0) / len(w.features)) for w in windows]
    )
    weight[y == 1] *= weight[y == 0].sum() / weight[y == 1].sum()
    weight /= weight.mean()
    net = LinearStatistics(NUM_FEATURES)
    net.mean.copy_(torch.from_numpy(x.mean(0)))
    net.scale.copy_(torch.from_numpy(x.std(0) + 1e-6))
    line = LogisticRegression(C=regularisation, max_iter=2000).fit(net.embed(torch.from_numpy(x)).numpy(), y, sample_weight=weight)
    with torch.no_grad():
        net.head.weight.copy_(torch.from_numpy(line.coef_))
        net.head.bias.copy_(torch.from_numpy(line.intercept_))
    return net


def cross_fitted_metrics(scored: Sequence[tuple[TrackWindows, float]]) -> dict[str, float]:
    """Video-level AUC over held-out generators and people: on originals, on twins, and per generator."""
    out: dict[str, float] = {}
    for name, variant in (("originals", "original/1"), ("twins", "twin0/1")):
        chosen = [(w.row, z) for w, z in scored if w.variant == variant]
        reals: list[float] = [z for row, z in chosen if not row.label]
        fakes: list[float] = [z for row, z in chosen if row.label]
        if not reals or not fakes:
            continue
        out[f"auc_{name}"] = _auc(reals, fakes)
        for generator in sorted({_generator(row) for row, _ in chosen if row.label}):
            out[f"auc_{name}_{generator}"] = _auc(reals, [z for row, z in chosen if row.label and _generator(row) == generator])
    return out


def _auc(reals: Sequence[float], fakes: Sequence[float]) -> float:
    scores: NDArray[np.float64] = np.array([*reals, *fakes])
    return round(auc(scores, [0] * len(reals) + [1] * len(fakes)), 4)


def _score(net: LinearStatistics, windows: TrackWindows) -> float:
    with torch.inference_mode():
        return float(net(torch.from_numpy(windows.features)).mean())


def _chosen(rows: Sequence[VideoRow], limit: int) -> list[VideoRow]:
    if not limit:
        return list(rows)
    return [row for label in (0, 1) for row in [r for r in rows if r.label == label][:limit]]


def _save(root: Path, net: LinearStatistics, s: Settings, windows: Sequence[TrackWindows], metrics: dict[str, float]) -> Bundle:
    rows = {w.row.file: w.row for w in windows}.values()
    return save_bundle(
        root,
        net,
        name="temporal",
        version="1",
        detector="temporal",
        net="linear_statistics",
        net_options={"num_features": NUM_FEATURES},
        crop=TEMPORAL_SPEC,
        temperature=1.0,
        card={
            "data": {
                "reals": {
                    "videos": sum(not row.label for row in rows),
                    "people_or_groups": len({row.group for row in rows if not row.label}),
                },
                "fakes": f"{sum(row.label for row in rows)} labelled videos of generators that animate a portrait",
                "generators": sorted({_generator(row) for row in rows if row.label}),
            },
            "recipe": {"name": "temporal", "settings": asdict(s), "seed": s.seed},
            "metrics": {f"cross_fitted_{name}": value for name, value in metrics.items()},
            "intended_use": INTENDED_USE,
            "limits": list(LIMITS),
        },
    )


RECIPES = {
    "temporal": Recipe(
        name="temporal",
        study="our experts",
        summary="how a followed face changes over time: filmed people against animated portraits",
        presets={
            "smoke": Settings(num_twins=1, num_folds=2, max_videos=4),
            "cpu": Settings(),
            "gpu": Settings(num_twins=6),
        },
        run=run,
    )
}
