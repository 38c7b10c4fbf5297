"""DCGAN study: the baseline and the two learning rates, at 32 px as published and at 64 px in the usual layout."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from ..classify import logits_of
from ..face_pack import FacePack
from ..geometry import view
from ..metrics import auc
from ..noise_gan import NoiseGanConfig, sample, train_noise_gan
from ..recipe import Context, Outcome, Recipe

_MOST: Final = 600
"""Held-out faces of each class that the discriminator is shown."""


def run(context: Context) -> Outcome:
    """Train on real faces; the fixed-noise grids, loss curves and scores land in the run folder."""
    maker, judge, result = train_noise_gan(context.material.reals("train"), context.settings, context.run_dir, on_log=context.on_log)
    metrics: dict[str, float | str | bool] = {
        name: value for name, value in asdict(result).items() if not (isinstance(value, float) and math.isnan(value))
    }
    metrics |= judged_held_out(context.material.faces, context.settings, maker, judge)
    return Outcome(metrics, artefacts=("generator.safetensors", "losses.csv", "losses.png", "gradients.png"))


def judged_held_out(faces: FacePack, config: NoiseGanConfig, maker: nn.Module, judge: nn.Module) -> dict[str, float]:
    """The discriminator as a detector: AUC of held-out reals against new samples, and against labelled fakes where there are any."""
    reals, fakes = (faces.where(split="test", label=label) for label in (0, 1))
    if not len(reals):
        return {}
    on_reals = -logits_of(judge, _seen(reals, config))  # a discriminator says how real a picture is
    others = {"samples": 2 * sample(maker, min(_MOST, len(reals)), seed=config.seed + 2) - 1}
    if len(fakes):
        others["labelled_fakes"] = _seen(fakes, config)
    out = {}
    for name, images in others.items():
        scores = np.concatenate([-logits_of(judge, images), on_reals])
        out[f"discriminator_auc_{name}"] = round(auc(scores, [1] * len(images) + [0] * len(on_reals)), 4)
    return out


def _seen(pack: FacePack, config: NoiseGanConfig) -> Tensor:
    return 2 * view(pack, torch.arange(min(_MOST, len(pack))), size_px=config.size_px, margin=1.25)[0] - 1


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
