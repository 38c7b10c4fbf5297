"""DCGAN study: its three variants with several seeds in one run, and the comparison sheet that the study drew by eye."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..noise_gan import NoiseGanConfig, NoiseGanResult, train_noise_gan
from ..recipe import Context, Outcome, Recipe
from .dcgan import RECIPES as VARIANTS

NAMES: Final = ("dcgan_baseline", "dcgan_lr2e4", "dcgan_lr3e4")


@dataclass(frozen=True, slots=True)
class Settings:
    """Of all variants alike; learning rate and layers are the variants' own."""

    epochs: int = 800
    batch: int = 32
    grid_every: int = 50
    steps_per_epoch: int = 0
    seeds: int = 2


def run(context: Context) -> Outcome:
    """Train every variant with every seed; `sheet.png` lays last grids and loss curves side by side."""
    s: Settings = context.settings
    pack = context.material.reals("train")
    results: dict[str, list[NoiseGanResult]] = {}
    for name in NAMES:
        base: NoiseGanConfig = VARIANTS[name].presets["gpu"]
        shape = {"epochs": s.epochs, "batch": s.batch, "grid_every": s.grid_every, "steps_per_epoch": s.steps_per_epoch}
        for seed in range(s.seeds):
            config = replace(base, seed=seed, **shape)  # type: ignore[arg-type]
            folder = context.run_dir / f"{name}-seed{seed}"
            result = train_noise_gan(pack, config, folder, on_log=lambda row, name=name: context.on_log({"stage": name, **row}))[2]  # type: ignore[misc]
            results.setdefault(name, []).append(result)
    draw_sheet({name: context.run_dir / f"{name}-seed0" for name in NAMES}, context.run_dir / "sheet.png")
    metrics: dict[str, Any] = {}
    for name, runs in results.items():
        for figure in ("kernel_distance", "collapse_score", "loss_std"):
            values = [asdict(run)[figure] for run in runs]
            metrics[f"{name}_{figure}_mean"] = round(float(np.mean(values)), 5)
            metrics[f"{name}_{figure}_std"] = round(float(np.std(values)), 5)
    metrics["best_by_kernel_distance"] = min(NAMES, key=lambda name: metrics[f"{name}_kernel_distance_mean"])
    return Outcome(metrics, artefacts=("sheet.png",))


def draw_sheet(folders: dict[str, Path], path: Path) -> None:
    """One row per variant: its last grid, its loss curves and its gradient norms."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(len(folders), 3, figsize=(11, 3 * len(folders)), squeeze=False)
    for (left, middle, right), (name, folder) in zip(panels, folders.items(), strict=True):
        left.imshow(plt.imread(sorted(folder.glob("grid_*.png"))[-1]))
        left.set_title(name, fontsize=9)
        left.axis("off")
        table = np.atleast_2d(np.loadtxt(folder / "losses.csv", delimiter=",", skiprows=1))
        for panel, columns, ylabel in ((middle, (1, 2), "loss"), (right, (6, 5), "gradient norm")):
            for column, who in zip(columns, ("discriminator", "generator"), strict=True):
                panel.plot(table[:, 0], table[:, column], label=who)
            panel.set(xlabel="epoch", ylabel=ylabel)
            panel.legend(fontsize=7)
        right.set_yscale("log")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


RECIPES = {
    "dcgan_comparison": Recipe(
        name="dcgan_comparison",
        study="DCGAN study",
        summary="the three variants with two seeds each, side by side on one sheet",
        presets={
            "smoke": Settings(epochs=2, batch=8, grid_every=1, steps_per_epoch=1, seeds=2),
            "cpu": Settings(epochs=10, grid_every=5, steps_per_epoch=60),
            "gpu": Settings(),
        },
        run=run,
    )
}
