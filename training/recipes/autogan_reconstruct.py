"""AutoGAN study: train the reconstructing autoencoder (residual blocks N = 1 or 4, any upsampler) on real faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch

from detect_core.nets.autogan import Upsampler

from ..autogan_bank import AutoGanConfig, train_autogan
from ..geometry import view
from ..recipe import Context, Outcome, Recipe

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one autoencoder."""

    upsampler: Upsampler = "nearest"
    num_blocks: int = 1
    ngf: int = 64
    size_px: int = 64
    steps: int = 10_000
    batch: int = 50
    l1_weight: float = 0.5
    seed: int = 0
    bf16: bool = True


def run(context: Context) -> Outcome:
    """Train, then draw validation faces above their reconstructions."""
    s: Settings = context.settings
    config = AutoGanConfig(
        upsampler=s.upsampler,
        num_blocks=s.num_blocks,
        ngf=s.ngf,
        ndf=min(64, 2 * s.ngf),
        size_px=s.size_px,
        steps=s.steps,
        batch=s.batch,
        l1_weight=s.l1_weight,
        seed=s.seed,
        bf16=s.bf16,
    )
    net, result = train_autogan(context.material.reals("train"), config, context.run_dir, on_log=context.on_log)
    held_out = context.material.reals("valid")
    shown = torch.arange(min(len(held_out), 256))
    images, _ = view(held_out, shown, size_px=s.size_px, margin=1.3)
    with torch.inference_mode():
        again = (net(2 * images - 1) + 1) / 2
    grid = torch.cat([torch.cat(list(images[:_SHOWN]), 2), torch.cat(list(again[:_SHOWN]), 2)], 1)
    pixels = (grid.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    cv2.imwrite(str(context.run_dir / "reconstructions.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return Outcome(
        {
            "valid_l1": float((again - images).abs().mean()),
            "train_l1": result.l1 / 2,
            "d_loss": result.d_loss,
            "gan_dead": result.gan_dead,
            "seconds": result.seconds,
        },
        artefacts=(f"{config.name}.safetensors", "reconstructions.png"),
    )


def _recipe(name: str, summary: str, **changes: Any) -> Recipe:
    gpu = Settings(**changes)
    presets = {
        "smoke": replace(gpu, ngf=4, steps=3, batch=4),
        "cpu": replace(gpu, ngf=16, steps=1500 if gpu.num_blocks == 1 else 800, batch=16),
        "gpu": gpu,
    }
    return Recipe(name=name, study="AutoGAN study", summary=summary, presets=presets, run=run)


_ALL = (
    _recipe("autogan_reconstruct", "autoencoder with adversarial loss on real faces: one residual block, nearest upsampling as published"),
    _recipe("autogan_reconstruct_n4", "four residual blocks, the study's larger one", num_blocks=4),
    _recipe("autogan_reconstruct_transposed", "transposed convolutions (Zhang et al. 2019)", upsampler="transposed"),
    _recipe("autogan_reconstruct_transposed_k4", "transposed convolutions with a kernel of 4", upsampler="transposed_k4"),
    _recipe(
        "autogan_reconstruct_n9",
        "nine residual blocks and transposed convolutions, the generator of Zhang et al. 2019",
        upsampler="transposed",
        num_blocks=9,
    ),
    _recipe("autogan_reconstruct_pixelshuffle", "pixel shuffle", upsampler="pixelshuffle"),
    _recipe("autogan_reconstruct_bilinear", "bilinear upsampling and convolution", upsampler="bilinear"),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
