"""Everything that is measured on scored faces: by face and by video, over all, per source and per generator."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .metrics import auc, average_precision, bootstrap_auc, equal_error_rate, expected_calibration_error, tpr_at_fpr

Level = Literal["frame", "video"]
FPRS: Final = (0.001, 0.01, 0.05)
_MOMENT: Final = re.compile(r"@\d+(\.\d+)?$")
_COLUMNS: Final = ("logit", "label", "source", "generator", "group", "file")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a scored face comes from."""

    source: str
    generator: str
    """Empty for real ones."""
    group: str
    """The person: intervals draw whole people."""
    file: str
    """`path` of a still, `path@seconds` of a video frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """N scored faces, or N scored videos: never both."""

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    """1 = fake."""
    origins: tuple[Origin, ...]
    level: Level = "frame"

    def __post_init__(self) -> None:
        n = len(self.origins)
        if self.logits.shape != (n,) or self.labels.shape != (n,):
            raise DataError(f"{n} origins need as many logits and labels, got {self.logits.shape} and {self.labels.shape}")

    def where(self, keep: Sequence[bool]) -> Scored:
        """The items at which `keep` is true."""
        chosen = np.flatnonzero(np.asarray(keep))
        return Scored(self.logits[chosen], self.labels[chosen], tuple(self.origins[i] for i in chosen), self.level)

    def by_video(self) -> Scored:
        """Mean logit of every file; a still counts as a video of one frame."""
        if self.level == "video":
            return self
        members: dict[tuple[str, int], list[int]] = {}
        for i, origin in enumerate(self.origins):
            members.setdefault((_MOMENT.sub("", origin.file), int(self.labels[i])), []).append(i)
        origins = tuple(
            Origin(self.origins[m[0]].source, self.origins[m[0]].generator, self.origins[m[0]].group, f) for (f, _), m in members.items()
        )
        logits = np.array([self.logits[m].mean() for m in members.values()], np.float64)
        return Scored(logits, np.array([label for _, label in members], np.int64), origins, "video")


def measured(logits: NDArray[np.float64], labels: NDArray[np.int64], *, prefix: str) -> dict[str, float]:
    """Ranking, rates, calibration and accuracy of logits, never accuracy alone."""
    p = 1 / (1 + np.exp(-logits.clip(-40, 40)))
    return {
        f"{prefix}auc": round(auc(logits, labels), 4),
        f"{prefix}ap": round(average_precision(logits, labels), 4),
        f"{prefix}eer": round(equal_error_rate(logits, labels), 4),
        **{f"{prefix}tpr_at_fpr_{100 * f:g}pc": round(tpr_at_fpr(logits, labels, f), 4) for f in FPRS},
        f"{prefix}accuracy": round(float(((logits > 0) == labels).mean()), 4),
        f"{prefix}log_loss": round(log_loss(logits, labels), 4),
        f"{prefix}ece": round(expected_calibration_error(p, labels), 4),
    }


def log_loss(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy in nats; a coin costs ln 2."""
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def evaluation_rows(scored: Scored, *, rounds: int = 300) -> list[dict[str, Any]]:
    """One row for everything together, one per source that has both classes, one per generator against all reals."""
    rows = [_row(scored, "all", rounds)]
    for source in sorted({o.source for o in scored.origins}):
        rows += _row_if_both(scored.where([o.source == source for o in scored.origins]), f"source {source}", rounds)
    for generator in sorted({o.generator for o in scored.origins} - {""}):
        keep = [not label or o.generator == generator for label, o in zip(scored.labels, scored.origins, strict=True)]
        rows += _row_if_both(scored.where(keep), f"generator {generator}", rounds)
    return rows


def write_evaluation(scored: Scored, run_dir: Path, *, title: str) -> list[str]:
    """Write `predictions.csv`, `evaluation.json` (both levels) and the plots; returns the file names."""
    from .plots import draw_reliability, draw_roc

    write_predictions(run_dir / "predictions.csv", scored)
    levels: list[Scored] = [scored]
    if any(_MOMENT.search(origin.file) for origin in scored.origins):
        levels.append(scored.by_video())
    rows = [row for level in levels for row in evaluation_rows(level)]
    (run_dir / "evaluation.json").write_text(json.dumps({"schema": "study_evaluation/1", "title": title, "rows": rows}, indent=2) + "\n")
    draw_roc({f"{level.level} level": level for level in levels}, run_dir / "roc.png", title=title)
    draw_reliability(scored, run_dir / "reliability.png", title=title)
    return ["predictions.csv", "evaluation.json", "roc.png", "reliability.png"]


def write_predictions(path: Path, scored: Scored) -> None:
    """Per-item logits, with all digits of a float32: rounded ones would tie and change the ranks of a net that says nearly nothing."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(_COLUMNS)
        for z, y, o in zip(scored.logits, scored.labels, scored.origins, strict=True):
            writer.writerow((f"{z:.9g}", int(y), o.source, o.generator, o.group, o.file))


def read_predictions(path: Path) -> Scored:
    """What `write_predictions` wrote.

    Raises:
        DataError: the file is missing, or a column or a value is not as written.
    """
    try:
        with path.open(newline="") as handle:
            records = list(csv.DictReader(handle))
        logits = np.array([float(r["logit"]) for r in records], np.float64)
        labels = np.array([int(r["label"]) for r in records], np.int64)
        origins = tuple(Origin(r["source"], r["generator"], r["group"], r["file"]) for r in records)
    except (OSError, KeyError, ValueError) as err:
        raise DataError(f"{path}: not predictions of a run ({err!r}); give the predictions.csv of a run folder") from err
    return Scored(logits, labels, origins)


def _row(scored: Scored, what: str, rounds: int) -> dict[str, Any]:
    low, high = bootstrap_auc(scored.logits, scored.labels, [o.group for o in scored.origins], rounds=rounds)
    fakes = int(scored.labels.sum())
    return {
        "what": what,
        "level": scored.level,
        "num_fake": fakes,
        "num_real": len(scored.labels) - fakes,
        **measured(scored.logits, scored.labels, prefix=""),
        "auc_low": None if math.isnan(low) else round(low, 4),
        "auc_high": None if math.isnan(high) else round(high, 4),
    }


def _row_if_both(scored: Scored, what: str, rounds: int) -> list[dict[str, Any]]:
    fakes = int(scored.labels.sum())
    return [_row(scored, what, rounds)] if 0 < fakes < len(scored.labels) else []


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The divisor of held-out logits with the lowest log-loss, between 1/20 and 20 (golden section on its logarithm)."""

    def cost(t: float) -> float:
        return log_loss(logits / math.exp(t), labels)

    low, high = -math.log(20), math.log(20)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if cost(a) < cost(b) else (a, high)
    return math.exp((low + high) / 2)
