"""AutoGAN study, shipped detector: reconstruct with the frozen autoencoder, classify the reconstruction.

Fakes are reconstructions by autoencoders with other upsamplers and seeds than the one in front of the classifier.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from detect_core.bundle import CropSpec, save_bundle
from detect_core.nets.autogan import AutoGanClassifier

from ..augment import AugmentConfig
from ..autogan_bank import default_bank, train_bank
from ..bundle_card import card
from ..loop import Batch, LoopConfig, train_supervised
from ..pairs import PairConfig, PairSource
from ..recipe import Context, Outcome, Recipe
from ..run_key import named_run
from ..simulators.blends import DecoderBlend
from .blend import MARGIN, PairValidation


@dataclass(frozen=True, slots=True)
class Settings:
    """Of bank and classifier."""

    size_px: int = 64
    bank_steps: int = 900
    ngf: int = 16
    steps: int = 1000
    pairs: int = 32
    learning_rate: float = 2e-3
    whole_share: float = 0.7
    seed: int = 0
    bf16: bool = True
    validation_batches: int = 10


def run(context: Context) -> Outcome:
    """Train bank and classifier and export a bundle."""
    s: Settings = context.settings
    train, valid = context.material.reals("train"), context.material.reals("valid")
    configs = default_bank(s.bank_steps, ngf=s.ngf)
    bank = train_bank(train, configs, context.run_dir / "bank", on_log=context.on_log)
    front = configs[0]
    torch.manual_seed(s.seed)
    net_options = {"num_blocks": front.num_blocks, "ngf": front.ngf, "upsampler": front.upsampler}
    net = AutoGanClassifier(**net_options)  # type: ignore[arg-type]
    net.autogan.load_state_dict(bank[0].state_dict())
    config = PairConfig(size_px=s.size_px, work_px=s.size_px * 9 // 8 // 8 * 8)
    light = AugmentConfig(severity=0.6, codec=0.6, resample=0.3)

    def source(pack: object) -> PairSource:
        simulator = DecoderBlend(bank[1:], whole_share=s.whole_share, family="autogan")
        return PairSource(pack, [(simulator, 1.0)], config=config, augment=light)  # type: ignore[arg-type]

    drawn = source(train)
    net_out, result = train_supervised(
        net,
        lambda _step, generator: _without_masks(drawn.batch(s.pairs, generator)),
        config=LoopConfig(
            steps=s.steps, learning_rate=s.learning_rate, ema=0.995, seed=s.seed, bf16=s.bf16, validate_every=max(50, s.steps // 5)
        ),
        run_dir=context.run_dir / "classifier",
        identity=named_run("autogan_classifier", s, train),
        validate=PairValidation(source(valid), batches=s.validation_batches),
        on_log=context.on_log,
    )
    bundle = save_bundle(
        context.run_dir / "bundle",
        net_out,
        name="autogan",
        version="1",
        detector="autogan",
        net="autogan_classifier",
        net_options=net_options,
        crop=CropSpec(size_px=s.size_px, margin=MARGIN),
        temperature=1.0,
        card=card(
            recipe="autogan_classifier",
            settings=asdict(s),
            train=train,
            families=[f"AutoGAN reconstruction ({c.name})" for c in configs[1:]],
            metrics={f"valid_{name}": value for name, value in result.validation.items()},
            seed=s.seed,
        ),
        half=True,
    )
    return Outcome({**result.validation, "bundle_sha256": bundle.sha256}, artefacts=("bundle",))


def _without_masks(batch: Batch) -> Batch:
    return Batch(batch.images, batch.labels, paired=True)


RECIPES = {
    "autogan_classifier": Recipe(
        name="autogan_classifier",
        study="AutoGAN study",
        summary="reconstruct-and-classify detector against autoencoders with other upsamplers",
        presets={
            "smoke": Settings(bank_steps=2, ngf=4, steps=8, pairs=12, validation_batches=2),
            "cpu": Settings(),
            "gpu": Settings(bank_steps=4000, ngf=48, steps=12_000, pairs=128),
        },
        run=run,
    )
}
