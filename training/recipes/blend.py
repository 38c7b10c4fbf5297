"""Expert A: tells real from blended, re-decoded and re-synthesised faces, on pairs that share everything else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from detect_core.bundle import CropSpec, save_bundle

from ..augment import AugmentConfig
from ..autogan_bank import default_bank, train_bank
from ..bundle_card import card
from ..errors import ConfigError
from ..loop import Batch, LoopConfig, step_generator, train_supervised
from ..metrics import auc
from ..pairs import PairConfig, PairSource
from ..recipe import Context, Outcome, Recipe
from ..run_key import ADDED_LATER, named_run
from ..simulators.base import Simulator
from ..simulators.blends import CrossBlend, DecoderBlend, MouthResynthesis, SelfBlend, WarpBlend
from ..start_weights import named, new_net, terms_of

NET = "blend_resnet"
MARGIN = 1.3


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes and lengths; the stages train one net at growing picture sizes."""

    sizes_px: tuple[int, ...] = (128,)
    steps: tuple[int, ...] = (3000,)
    pairs: int = 32
    learning_rates: tuple[float, ...] = (2e-3,)
    ema: float = 0.998
    bank_steps: int = 900
    validation_batches: int = 10
    net: str = NET
    """Name of the net; one without a mask head learns from labels alone."""
    net_options: str = "{}"
    """JSON of the net's keyword arguments."""
    init: str = ""
    """Folder of a bundle of this net to start from, or for `efficientnet_lite0` the published weights of its trunk (a `.pth` file)."""
    seed: int = 0
    bf16: bool = True
    init_terms: str = field(default="", metadata=ADDED_LATER)
    """Whose published weights `init` holds, what they learned from and their licence: the card repeats it."""

    def __post_init__(self) -> None:
        if not len(self.sizes_px) == len(self.steps) == len(self.learning_rates) > 0:
            raise ConfigError(
                f"blend trains one stage for each of sizes_px, steps and learning_rates, got {len(self.sizes_px)}, {len(self.steps)} and "
                f"{len(self.learning_rates)} of them; give all three the same length (--set sizes_px=... --set steps=...)"
            )


def simulators(autoencoders: list[nn.Module]) -> list[tuple[Simulator, float]]:
    """The fake families and their shares."""
    return [
        (SelfBlend(), 0.34),
        (CrossBlend(), 0.16),
        (WarpBlend(), 0.04),
        (MouthResynthesis(), 0.12),
        (DecoderBlend(autoencoders, whole_share=0.6), 0.34),
    ]


def run(context: Context) -> Outcome:
    """Train the decoder bank, then the net stage by stage, and export a bundle."""
    s: Settings = context.settings
    train, valid = context.material.reals("train"), context.material.reals("valid")
    new_net(s.net, s.net_options, s.init, s.init_terms)  # what is wrong with it shows before the bank has been trained for an hour
    bank: list[nn.Module] = list(train_bank(train, default_bank(s.bank_steps), context.run_dir / "bank", on_log=context.on_log))
    families = simulators(bank)
    torch.manual_seed(s.seed)
    net, net_options = new_net(s.net, s.net_options, s.init, s.init_terms)
    validation: dict[str, float] = {}
    for stage, (size_px, steps, rate) in enumerate(zip(s.sizes_px, s.steps, s.learning_rates, strict=True)):
        config = PairConfig(size_px=size_px, work_px=size_px * 9 // 8 // 16 * 16)
        source = PairSource(train, families, config=config, augment=AugmentConfig())
        check = PairValidation(PairSource(valid, families, config=config, augment=AugmentConfig()), batches=s.validation_batches)
        loop = LoopConfig(steps=steps, learning_rate=rate, ema=s.ema, seed=s.seed + stage, bf16=s.bf16, validate_every=max(50, steps // 9))
        net, result = train_supervised(
            net,
            lambda _step, generator, source=source, net=net: _as_learned(source.batch(s.pairs, generator), net),  # type: ignore[misc]
            config=loop,
            run_dir=context.run_dir / f"stage{stage}",
            identity=named_run("blend", replace(s, init=named(s.init)), train),
            validate=check,
            on_log=lambda row, size_px=size_px: context.on_log({"size_px": size_px, **row}),  # type: ignore[misc]
        )
        validation = result.validation
        net.requires_grad_(True)
    bundle = save_bundle(
        context.run_dir / "bundle",
        net,
        name="blend" if hasattr(net, "forward_with_mask") else s.net,
        version="1",
        detector="blend",
        net=s.net,
        net_options=net_options,
        crop=CropSpec(size_px=s.sizes_px[-1], margin=MARGIN),
        temperature=1.0,
        card=card(
            recipe="blend",
            settings={**asdict(s), "init": named(s.init), "init_terms": terms_of(s.init, s.init_terms)},
            train=train,
            families=[simulator.family for simulator, _ in families],
            metrics={f"valid_{name}": value for name, value in validation.items()},
            seed=s.seed,
        ),
        half=True,
    )
    return Outcome({**validation, "bundle_sha256": bundle.sha256}, artefacts=("bundle",))


def _as_learned(batch: Batch, net: nn.Module) -> Batch:
    return batch if hasattr(net, "forward_with_mask") else replace(batch, masks=None)


class PairValidation:
    """AUC on fixed pairs of held-out faces, over all and per fake family."""

    def __init__(self, source: PairSource, *, batches: int, pairs: int = 32, seed: int = 99) -> None:
        self._drawn = [source.draw(min(pairs, len(source.pack)), step_generator(seed, i)) for i in range(batches)]

    def __call__(self, net: nn.Module) -> dict[str, float]:
        real = score([real for real, _, _, _ in self._drawn], net)
        fake = score([fake for _, fake, _, _ in self._drawn], net)
        families = [family for *_, names in self._drawn for family in names]
        out = {"pair_auc": _pair_auc(real, fake)}
        for family in sorted(set(families)):
            members = torch.tensor([i for i, name in enumerate(families) if name == family])
            out[family] = _pair_auc(real[members], fake[members])
        return out


def score(batches: list[Tensor], net: nn.Module) -> Tensor:
    """Logits of images in 0..1."""
    with torch.inference_mode():
        return torch.cat([net(2 * images - 1).float() for images in batches])


def _pair_auc(real: Tensor, fake: Tensor) -> float:
    return round(auc(torch.cat([real, fake]).numpy(), [0] * len(real) + [1] * len(fake)), 4)


RECIPES = {
    "blend": Recipe(
        name="blend",
        study="our experts",
        summary="self-, cross-, warp-, mouth- and decoder-blended faces against their originals, with a mask head",
        presets={
            "smoke": Settings(sizes_px=(64,), steps=(8,), learning_rates=(2e-3,), pairs=12, bank_steps=2, validation_batches=2),
            "cpu": Settings(),
            "gpu": Settings(sizes_px=(128, 160), steps=(6000, 3000), learning_rates=(2e-3, 7e-4), pairs=128, bank_steps=2500),
        },
        run=run,
    )
}
