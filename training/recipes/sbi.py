"""Self-blended images alone, in the published setting: SAM over SGD, rate constant and then linear to zero, last weights.

After Shiohara and Yamasaki 2022. The study starts from ImageNet weights; here they are the user's to give (`--set
init_weights=FILE`). Fakes, masks and augmentation are our own implementation with our ranges.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
from torch import Generator

from detect_core.bundle import CropSpec, save_bundle
from detect_core.nets import build_net

from ..augment import AugmentConfig
from ..bundle_card import card
from ..loop import Batch, LoopConfig, train_supervised
from ..pairs import PairConfig, PairSource
from ..recipe import Context, Outcome, Recipe
from ..run_key import named_run
from ..simulators.blends import SelfBlend
from ..transfer import start_from
from .blend import MARGIN, PairValidation

_AUGMENT: Final = AugmentConfig(colour=0.3, resample=0.0, soft_or_sharp=0.0, noise=0.0, overlay=0.0, codec=0.5, second_codec=0.0, grey=0.0)
"""The study's shared degradation: colour on three pictures of ten and compression on half of them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Published: 16 pairs of 380 px, 100 epochs of 720 videos, rate 1e-3, rho 0.05."""

    net: str = "xception"
    net_options: str = "{}"
    """JSON of the net's keyword arguments."""
    size_px: int = 380
    steps: int = 4500
    pairs: int = 16
    learning_rate: float = 1e-3
    sam_rho: float = 0.05
    validation_batches: int = 10
    init_weights: str = ""
    """File with weights to start from; scratch when empty."""
    seed: int = 0
    bf16: bool = True


def run(context: Context) -> Outcome:
    """Train on pairs of training reals, measure on pairs of held-out ones."""
    s: Settings = context.settings
    train = context.material.reals("train")
    torch.manual_seed(s.seed)
    net_options = json.loads(s.net_options)
    net = build_net(s.net, **net_options)
    started_from = start_from(net, s.init_weights) if s.init_weights else "scratch"
    config = PairConfig(size_px=s.size_px, work_px=s.size_px * 9 // 8 // 16 * 16, precompress=0.0)
    source, valid, test = (
        PairSource(context.material.reals(split), [(SelfBlend(), 1.0)], config=config, augment=_AUGMENT)
        for split in ("train", "valid", "test")
    )
    check = PairValidation(valid, batches=s.validation_batches, pairs=s.pairs)

    def draw(_step: int, generator: Generator) -> Batch:
        return replace(source.batch(s.pairs, generator), masks=None, paired=False)  # the study has neither mask head nor ranking loss

    loop = LoopConfig(
        steps=s.steps,
        learning_rate=s.learning_rate,
        optimiser="sgd",
        rates="linear_tail",
        sam_rho=s.sam_rho,
        weight_decay=0.0,
        ema=0.0,
        seed=s.seed,
        bf16=s.bf16,
        validate_every=max(20, s.steps // 9),
    )
    net, result = train_supervised(
        net,
        draw,
        config=loop,
        run_dir=context.run_dir / "net",
        identity=f"{named_run('sbi', s, train)} {started_from}",
        validate=lambda n: {f"valid_{name}": value for name, value in check(n).items()},
        on_log=context.on_log,
    )
    metrics: dict[str, Any] = {**result.validation, "loss": round(result.loss, 4)}
    metrics |= {
        f"test_{name}": value for name, value in PairValidation(test, batches=s.validation_batches, pairs=s.pairs, seed=199)(net).items()
    }
    bundle = save_bundle(
        context.run_dir / "bundle",
        net,
        name="sbi",
        version="1",
        detector="synthesis",
        net=s.net,
        net_options=net_options,
        crop=CropSpec(size_px=s.size_px, margin=MARGIN),
        temperature=1.0,
        card=card(
            recipe="sbi",
            settings={**asdict(s), "init_weights": started_from},
            train=train,
            families=[SelfBlend.family],
            metrics=metrics,
            seed=s.seed,
        ),
        half=True,
    )
    return Outcome({**metrics, "bundle_sha256": bundle.sha256}, artefacts=("bundle",))


def _recipe(name: str, summary: str, gpu: Settings) -> Recipe:
    return Recipe(
        name=name,
        study="our experts",
        summary=summary,
        presets={
            "smoke": replace(gpu, size_px=64, steps=2, pairs=4, validation_batches=1),
            "cpu": replace(gpu, size_px=128, steps=100, pairs=8, validation_batches=6),
            "gpu": gpu,
        },
        run=run,
    )


_ALL: Final = (
    _recipe("sbi", "self-blended images as published (SAM over SGD), on Xception at 299 px", Settings(size_px=299)),
    _recipe("sbi_efficientnet_b4", "the same on the study's own net, EfficientNet-B4 at 380 px", Settings(net="efficientnet_b4")),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
