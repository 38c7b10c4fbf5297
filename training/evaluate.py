"""The evaluation of a bundle set: rows of what, value, unit, goal and whether it was reached. No number without its protocol."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detect_core.calibration import BundleSet, VideoCalibration
from detect_core.detectors import Detector

from .calibrate import video_scores
from .face_pack import FacePack
from .held_out import simulators_for
from .metrics import auc, bootstrap_auc, expected_calibration_error, fpr_upper_bound, tpr_at_fpr
from .still_scores import Measured, by_source, on_pairs
from .video_scores import VideoLogits

STILL_SOURCES = ("ciplab", "web140k", "ffhq")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    what: str
    value: float
    unit: str
    goal: str | None = None
    passed: bool | None = None
    note: str = ""


def evaluate_stills(pack: FacePack, bundle_set: BundleSet, detectors: Sequence[Detector]) -> list[Row]:
    """Frame-level rows."""
    named = {detector.bundle.name: detector for detector in detectors}
    reals = pack.where(split="test", label=0)
    reals = reals.take([i for i, row in enumerate(reals.rows) if row.source != "lfw_grey"])
    measured = by_source(pack, named, STILL_SOURCES) + on_pairs(reals, simulators_for(bundle_set.bundles), named)
    return [_auc_row(m) for m in measured]


def evaluate_videos(videos: Sequence[VideoLogits], calibration: VideoCalibration) -> list[Row]:
    """Video-level rows over held-out people; fakes are of generators that no training saw."""
    rows: list[Row] = []
    z = video_scores(videos, calibration.fusion, calibration.beta)
    judged = [(video, score) for video, score in zip(videos, z, strict=True) if score is not None]
    true = [(v, s) for v, s in judged if not v.generator.startswith("sim:") and "#" not in v.file]
    rows.append(_video_auc("all real-world fakes against held-out reals (video level)", true, goal=0.95))
    for generator in sorted({v.generator for v, _ in true if v.label}):
        rows.append(
            _video_auc(
                f"{generator} against held-out reals (video level)", [p for p in true if not p[0].label or p[0].generator == generator]
            )
        )
    simulated = [(v, s) for v, s in judged if "#" in v.file]
    for family in sorted({v.generator for v, _ in simulated if v.label}):
        chosen = [p for p in simulated if not p[0].label or p[0].generator == family]
        rows.append(_video_auc(f"{family} fakes against re-encoded twins (video level)", chosen))
    rows += _policy_rows(true, calibration)
    p = [calibration.probability(s) for _, s in simulated]
    rows.append(
        Row(
            "ECE on simulated fakes and re-encoded twins",
            round(expected_calibration_error(p, [v.label for v, _ in simulated]), 4),
            "",
            "<= 0.03",
        )
    )
    return [_judged(row) for row in rows]


def write_report(rows: Sequence[Row], path: Path, *, bundle_set: BundleSet, material: str, videos: Sequence[VideoLogits]) -> None:
    """`evaluation.json`: the rows and what they stand on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = Counter("real" if not v.label else "simulated" if v.generator.startswith("sim:") else "fake" for v in videos)
    document = {
        "schema": "evaluation/1",
        "bundle_set": bundle_set.label,
        "bundles": {bundle.name: bundle.sha256 for bundle in bundle_set.bundles},
        "material": material,
        "videos": dict(kinds),
        "rows": [{**{k: v for k, v in asdict(row).items() if k != "passed"}, "pass": row.passed} for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _policy_rows(true: Sequence[tuple[VideoLogits, float]], calibration: VideoCalibration) -> list[Row]:
    reals = np.array([calibration.probability(s) for v, s in true if not v.label])
    fakes = np.array([calibration.probability(s) for v, s in true if v.label])
    called = int((reals >= calibration.t_fake).sum())
    return [
        Row("real videos called manipulated", called, f"of {len(reals)}", "0", called == 0),
        Row("upper 95 % bound of that rate", round(fpr_upper_bound(called, len(reals)), 4), "", None, None, "Clopper-Pearson, one-sided"),
        Row("real videos called suspicious or worse", int((reals >= calibration.t_review).sum()), f"of {len(reals)}"),
        Row("fake videos called manipulated", int((fakes >= calibration.t_fake).sum()), f"of {len(fakes)}"),
        Row("fake videos called suspicious or worse", int((fakes >= calibration.t_review).sum()), f"of {len(fakes)}"),
    ]


def _video_auc(what: str, pairs: Sequence[tuple[VideoLogits, float]], goal: float | None = None) -> Row:
    scores, labels = [s for _, s in pairs], [v.label for v, _ in pairs]
    low, high = bootstrap_auc(scores, labels, [v.group for v, _ in pairs], rounds=500)
    value = auc(scores, labels)
    note = (
        f"95 % interval {low:.2f}-{high:.2f} by person; {sum(labels)} fakes, {len(labels) - sum(labels)} reals; "
        f"TPR at 5 % FPR {tpr_at_fpr(scores, labels, 0.05):.2f}"
    )
    return Row(f"AUC: {what}", round(value, 4), "AUC", f">= {goal}" if goal else None, value >= goal if goal else None, note)


def _auc_row(measured: Measured) -> Row:
    low, high = measured.interval
    note = f"95 % interval {low:.2f}-{high:.2f}; {measured.num_fake} fakes, {measured.num_real} reals"
    return Row(f"AUC: {measured.what}", round(measured.auc, 4), "AUC", None, None, note)


def _judged(row: Row) -> Row:
    if row.passed is None and row.goal is not None and row.goal.startswith("<="):
        return Row(row.what, row.value, row.unit, row.goal, row.value <= float(row.goal[2:]), row.note)
    return row
