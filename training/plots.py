"""The pictures of a run, as PNG: curves of its log, ROC and reliability of its scores. None of them shows a face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .measure import Scored

_NOT_CURVES = frozenset({"step", "steps", "epoch", "seconds", "seed", "size_px", "trial", "cell"})


def draw_roc(scored: Mapping[str, Scored], path: Path, *, title: str) -> None:
    """One ROC curve per named set of scores."""
    from .metrics import auc

    with new_figure(path, 4.4, 4.2) as axes:
        for name, part in scored.items():
            order = np.argsort(-part.logits, kind="stable")
            fakes = part.labels[order].astype(bool)
            ends = np.append(np.flatnonzero(np.diff(part.logits[order])), len(fakes) - 1)
            tpr = np.concatenate([[0.0], (np.cumsum(fakes) / max(1, fakes.sum()))[ends]])
            fpr = np.concatenate([[0.0], (np.cumsum(~fakes) / max(1, (~fakes).sum()))[ends]])
            axes.plot(fpr, tpr, label=f"{name}, AUC {auc(part.logits, part.labels):.3f}")
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title=title, xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right", fontsize=8 if len(scored) < 4 else 6)


def draw_reliability(scored: Scored, path: Path, *, title: str, bins: int = 10, even: bool = False) -> None:
    """Share of fakes against the mean score, in bins of equal count; the diagonal is honest.

    Args:
        scored: both classes.
        path: PNG to write.
        title: above the curve.
        bins: points of the curve, at most.
        even: both labels weigh the same, whatever their counts.
    """
    from .metrics import even_bins, label_weights

    p = 1 / (1 + np.exp(-scored.logits.clip(-40, 40)))
    weights = label_weights(scored.labels) if even else None
    w = np.ones(len(p)) if weights is None else weights
    chunks = even_bins(p, bins, weights=weights)
    shown = [(np.average(p[c], weights=w[c]), np.average(scored.labels[c], weights=w[c])) for c in chunks]
    with new_figure(path, 4.4, 4.2) as axes:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
        axes.plot(*zip(*shown, strict=True), marker="o", markersize=4)
        axes.set(xlabel="mean score", ylabel="share of fakes", title=title, xlim=(0, 1), ylim=(0, 1))


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Every logged number over its steps, one panel each; returns whether there was anything to draw."""
    names = sorted({k for row in rows for k, v in row.items() if k not in _NOT_CURVES and _is_number(v)})
    series = {name: _series(rows, name) for name in names}
    drawn = [name for name, (x, _) in series.items() if len(x) > 1][:16]
    if not drawn:
        return False
    columns = min(4, len(drawn))
    lines = -(-len(drawn) // columns)
    plt = _pyplot()
    figure, panels = plt.subplots(lines, columns, figsize=(3.2 * columns, 2.4 * lines), squeeze=False)
    for panel, name in zip(panels.flat, drawn, strict=False):
        panel.plot(*series[name], linewidth=1)
        panel.set_title(name, fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in list(panels.flat)[len(drawn) :]:
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Steps go on counting when a later stage starts at one again."""
    x: list[float] = []
    y: list[float] = []
    before, last = 0.0, 0.0
    for i, row in enumerate(rows):
        at = float(row.get("step", row.get("epoch", i + 1)))
        if at < last:
            before += last
        last = at
        if _is_number(row.get(name)):
            x.append(before + at)
            y.append(float(row[name]))
    return x, y


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


@contextmanager
def new_figure(path: Path, width: float, height: float) -> Iterator[Axes]:
    """One set of axes of that many inches, saved on the way out."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(width, height))
    try:
        yield axes
        figure.tight_layout()
        figure.savefig(path, dpi=120)
    finally:
        plt.close(figure)
