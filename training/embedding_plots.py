"""The embedding study's pictures of a test split: scatter, density contours, hexbins, t-SNE and violins, each with its numbers as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from detect_core.nets.embedding_svm import PolynomialSvm

from .plots import new_figure

CLASSES: Final = ((0, "real", "tab:blue"), (1, "fake", "tab:orange"))
MAX_TSNE: Final = 1500
"""Points of the t-SNE picture: its cost grows faster than they do, and more of them show nothing new."""
_VIOLINS: Final = 4
_BINS: Final = 60

Points = NDArray[np.float64]


def draw_embeddings(
    head: PolynomialSvm, embeddings: Points, labels: NDArray[np.int64], folder: Path, *, title: str, seed: int
) -> list[str]:
    """Draw everything that the study looked at; returns the names of the files.

    Args:
        head: brings its scaler and principal components.
        embeddings: (N, dim) of the test split.
        labels: (N,), 1 = fake.
        folder: gets the files.
        title: of every picture.
        seed: of the t-SNE and of the points that it takes.
    """
    scaled = (embeddings - head.mean.numpy()) / head.scale.numpy() - head.pca_mean.numpy()
    components = scaled @ head.components.numpy().T
    _write(folder / "pca.csv", [f"pc{i + 1}" for i in range(components.shape[1])][:_VIOLINS], components[:, :_VIOLINS], labels)
    plane = components[:, :2]
    names = ["pca.png", "pca.csv"]
    if components.shape[1] > 1:
        _scatter(plane, labels, folder / "pca.png", title=title, axes_names=("PC 1", "PC 2"))
        _contours(plane, labels, folder / "contours.png", title=title)
        _hexbins(plane, labels, folder / "hexbin.png", title=title)
        names += ["contours.png", "hexbin.png"]
    else:
        names.remove("pca.png")
    _violins(components[:, :_VIOLINS], labels, folder / "violins.png", title=title)
    return [*names, "violins.png", *_tsne(components, labels, folder, title=title, seed=seed)]


def _scatter(points: Points, labels: NDArray[np.int64], path: Path, *, title: str, axes_names: tuple[str, str]) -> None:
    with new_figure(path, 5, 4) as axes:
        for label, name, colour in CLASSES:
            axes.scatter(points[labels == label, 0], points[labels == label, 1], s=6, alpha=0.5, label=name, color=colour)
        axes.set(xlabel=axes_names[0], ylabel=axes_names[1], title=title)
        axes.legend()


def _contours(points: Points, labels: NDArray[np.int64], path: Path, *, title: str) -> None:
    """Lines of equal density per class: a histogram, smoothed; a kernel estimate would fail on a net that gives one point."""
    edges = [np.linspace(low, high, _BINS + 1) for low, high in (_span(points[:, 0]), _span(points[:, 1]))]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    with new_figure(path, 5, 4) as axes:
        for label, name, colour in CLASSES:
            chosen = points[labels == label]
            counts = np.histogram2d(chosen[:, 0], chosen[:, 1], bins=edges)[0]
            density = cv2.GaussianBlur(counts, (0, 0), 2.5)
            axes.contour(*middles, density.T, levels=density.max() * np.array([0.1, 0.3, 0.5, 0.7, 0.9]), colors=colour, linewidths=1)
            axes.plot([], [], color=colour, label=name)
        axes.set(xlabel="PC 1", ylabel="PC 2", title=title)
        axes.legend()


def _hexbins(points: Points, labels: NDArray[np.int64], path: Path, *, title: str) -> None:
    """Share of fakes in every cell that holds at least two."""
    with new_figure(path, 5.4, 4) as axes:
        cells = axes.hexbin(
            points[:, 0], points[:, 1], C=labels, reduce_C_function=np.mean, gridsize=20, mincnt=2, cmap="coolwarm", vmin=0, vmax=1
        )
        axes.figure.colorbar(cells, ax=axes, label="share of fakes")
        axes.set(xlabel="PC 1", ylabel="PC 2", title=title)


def _violins(components: Points, labels: NDArray[np.int64], path: Path, *, title: str) -> None:
    """Each of the first components by class, in units of its own spread."""
    units = (components - components.mean(0)) / np.maximum(components.std(0), 1e-12)
    with new_figure(path, 6, 4) as axes:
        for label, name, colour in CLASSES:
            places = np.arange(units.shape[1]) + (0.2 if label else -0.2)
            parts: Any = axes.violinplot(units[labels == label], places, widths=0.38, showmedians=True)
            for part in (*parts["bodies"], parts["cmedians"], parts["cbars"], parts["cmins"], parts["cmaxes"]):
                part.set_color(colour)
            axes.plot([], [], color=colour, label=name)
        axes.set(ylabel="standard deviations", title=title)
        axes.set_xticks(range(units.shape[1]), [f"PC {i + 1}" for i in range(units.shape[1])])
        axes.legend()


def _tsne(components: Points, labels: NDArray[np.int64], folder: Path, *, title: str, seed: int) -> list[str]:
    """t-SNE of the principal components; none for fewer points than it needs."""
    from sklearn.manifold import TSNE

    chosen = np.sort(np.random.default_rng(seed).permutation(len(components))[:MAX_TSNE])
    if len(chosen) < 10:
        return []
    start = "pca" if min(components.shape) > 1 else "random"
    plane = TSNE(2, perplexity=min(30.0, (len(chosen) - 1) / 3), init=start, random_state=seed).fit_transform(components[chosen])
    _write(folder / "tsne.csv", ["tsne1", "tsne2"], plane, labels[chosen])
    _scatter(plane, labels[chosen], folder / "tsne.png", title=title, axes_names=("t-SNE 1", "t-SNE 2"))
    return ["tsne.png", "tsne.csv"]


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    """From the 0.5th to the 99.5th percentile with some room: a few far points would hide the rest."""
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    room = max(0.15 * (high - low), 1e-6)
    return low - room, high + room


def _write(path: Path, names: list[str], columns: Points, labels: NDArray[np.int64]) -> None:
    rows = "\n".join(",".join([*(f"{value:.5f}" for value in row), str(label)]) for row, label in zip(columns, labels, strict=True))
    path.write_text(f"{','.join(names)},label\n{rows}\n")
