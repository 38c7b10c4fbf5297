"""DCGAN study: the baseline and the two learning rates, at 32 px as published and at 64 px in the usual layout."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

from ..noise_gan import NoiseGanConfig, train_noise_gan
from ..recipe import Context, Outcome, Recipe


def run(context: Context) -> Outcome:
    """Train on real faces; the fixed-noise grids, loss curves and scores land in the run folder."""
    _, _, result = train_noise_gan(context.material.reals("train"), context.settings, context.run_dir, on_log=context.on_log)
    metrics = {name: value for name, value in asdict(result).items() if not (isinstance(value, float) and math.isnan(value))}
    return Outcome(metrics, artefacts=("generator.safetensors", "losses.csv", "losses.png"))


def _recipe(name: str, summary: str, gpu: NoiseGanConfig) -> Recipe:
    return Recipe(
        name=name,
        study="DCGAN study",
        summary=summary,
        presets={
            "smoke": replace(gpu, epochs=2, steps_per_epoch=2, grid_every=1, batch=8, width=8),
            "cpu": replace(gpu, epochs=20, grid_every=5, steps_per_epoch=60, width=32),
            "gpu": gpu,
        },
        run=run,
    )


_WIDE = NoiseGanConfig(size_px=64, epochs=25, batch=64, grid_every=5)
_BASE = NoiseGanConfig(size_px=32, learning_rate=1e-3)
_ALL = (
    _recipe("dcgan_baseline", "dense start and upsampling, Adam 1e-3 (the framework default)", _BASE),
    _recipe(
        "dcgan_lr2e4",
        "transposed convolutions, LeakyReLU, Adam 2e-4",
        replace(_BASE, learning_rate=2e-4, upsampler="transposed", leaky=True),
    ),
    _recipe(
        "dcgan_lr3e4", "the same with Adam 3e-4, the study's best", replace(_BASE, learning_rate=3e-4, upsampler="transposed", leaky=True)
    ),
    _recipe("dcgan_64", "64 px layout of Radford et al. 2016", _WIDE),
    _recipe("dcgan_64_lr3e4", "the same with Adam 3e-4", replace(_WIDE, learning_rate=3e-4)),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
