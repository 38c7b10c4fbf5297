"""The pictures of a bundle set's evaluation, from its report and the kept scores alone: nothing is scored again to draw them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from detect_core.calibration import VideoCalibration

from .calibrate import video_scores
from .errors import DataError
from .measure import Origin, Scored
from .plots import draw_reliability, draw_roc, new_figure
from .video_scores import Role, VideoLogits

_INTERVAL: Final = re.compile(r"95 % interval (\d\.\d+)-(\d\.\d+)")
_COLUMNS: Final = ("role", "label", "source", "generator", "group", "logit")
_BINS: Final = 6
"""Of a reliability curve: each holds a dozen videos or more."""
_MIN_FAKES: Final = 2
"""A curve of one video is a step that says nothing; its bar is drawn all the same."""


def draw_report(report: Path) -> list[Path]:
    """Every AUC of the report with its interval, as bars, in the report's order.

    Raises:
        DataError: the report is missing or has no AUC.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(report.read_text())["rows"]
    except (OSError, ValueError, KeyError) as err:
        raise DataError(f"{report}: not a report of `veriframe-train evaluate` ({err!r}); run the evaluation first") from err
    shown = [row for row in rows if str(row.get("what", "")).startswith("AUC: ")]
    if not shown:
        raise DataError(f"{report}: has no row of an AUC; evaluate with --faces or --videos")
    path = report.with_name(f"{report.stem}_generators.png")
    with new_figure(path, 10, 1.2 + 0.24 * len(shown)) as axes:
        for place, row in enumerate(reversed(shown)):
            video = "(video level)" in row["what"]
            axes.barh(place, row["value"], height=0.7, color="tab:blue" if video else "tab:gray")
            found = _INTERVAL.search(row.get("note", ""))
            if found is not None:
                axes.plot([float(v) for v in found.groups()], [place, place], color="black", linewidth=1.2)
        names = [row["what"].removeprefix("AUC: ").removesuffix(" (video level)") for row in reversed(shown)]
        axes.set_yticks(range(len(shown)), names, fontsize=7)
        axes.axvline(0.5, color="0.4", linewidth=0.8, linestyle="--")
        axes.barh([0], [0], color="tab:blue", label="videos")
        axes.barh([0], [0], color="tab:gray", label="single faces")
        axes.set(xlim=(0, 1), ylim=(-0.7, len(shown) - 0.3), xlabel="AUC with its 95 % interval; dashed: a coin")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, fontsize=7)
    return [path]


def draw_scored(videos: Sequence[VideoLogits], calibration: VideoCalibration, report: Path) -> list[Path]:
    """ROC of labelled fakes per generator, reliability in domain and on labelled fakes, and the scores that both stand on as CSV."""
    z = video_scores(videos, calibration.fusion, calibration.beta)
    judged = [(video, _logit(calibration.probability(score))) for video, score in zip(videos, z, strict=True) if score is not None]

    def of(*roles: Role) -> Scored:
        return _scored([pair for pair in judged if pair[0].role in roles])

    written = [report.with_name(f"{report.stem}_videos.csv")]
    with written[0].open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(_COLUMNS)
        writer.writerows((v.role, v.label, v.source, v.generator, v.group, f"{logit:.6g}") for v, logit in judged)
    true = of("real", "fake")
    curves = {"all labelled fakes": true, **_by_generator(true)}
    for name, part, what in (
        ("roc", curves, "labelled fakes against held-out real videos"),
        ("reliability", {"in domain": of("twin", "simulated")}, "simulated fakes and re-encoded twins"),
        ("reliability_labelled", {"labelled": true}, "labelled fakes and held-out reals"),
    ):
        usable = {key: scored for key, scored in part.items() if len(set(scored.labels.tolist())) == 2}
        if not usable:
            continue
        path = report.with_name(f"{report.stem}_{name}.png")
        if name == "roc":
            draw_roc(usable, path, title=what)
        else:
            # the calibration gives both labels the same weight
            draw_reliability(next(iter(usable.values())), path, title=f"{what}\n(both labels weigh the same)", bins=_BINS, even=True)
        written.append(path)
    return written


def _by_generator(true: Scored) -> Mapping[str, Scored]:
    out = {}
    for generator in sorted({o.generator for o in true.origins} - {""}):
        keep = [not label or o.generator == generator for label, o in zip(true.labels, true.origins, strict=True)]
        part = true.where(keep)
        if int(part.labels.sum()) >= _MIN_FAKES:
            out[generator.split(" (")[0]] = part
    return out


def _scored(pairs: Sequence[tuple[VideoLogits, float]]) -> Scored:
    origins = tuple(Origin(v.source, v.generator, v.group, v.file) for v, _ in pairs)
    return Scored(np.array([z for _, z in pairs], np.float64), np.array([v.label for v, _ in pairs], np.int64), origins, "video")


def _logit(p: float) -> float:
    clipped = min(max(p, 1e-9), 1 - 1e-9)
    return float(np.log(clipped / (1 - clipped)))
