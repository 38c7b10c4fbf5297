"""Expert B: tells untouched faces from whole generated ones (GAN portraits, re-decoded faces)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import torch
from torch import nn

from detect_core.bundle import CropSpec, save_bundle

from ..augment import AugmentConfig
from ..autogan_bank import default_bank, train_bank
from ..bundle_card import card
from ..errors import ConfigError, DataError
from ..face_pack import FacePack
from ..index_faces import HAND_MADE
from ..labelled import LabelledSource, MixConfig
from ..loop import LoopConfig, step_generator, train_supervised
from ..material import AUXILIARY_SOURCES
from ..metrics import auc
from ..recipe import Context, Outcome, Recipe
from ..run_key import ADDED_LATER, named_run
from ..simulators.blends import DecoderBlend
from ..start_weights import named, new_net, terms_of

MARGIN = 1.3


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes and lengths."""

    net: str = "blend_resnet"
    net_options: str = "{}"
    """JSON of the net's keyword arguments."""
    init: str = ""
    """Folder of a bundle of the same net to start from, or for `efficientnet_lite0` the published weights of its trunk (a `.pth` file)."""
    size_px: int = 160
    steps: int = 2500
    pairs: int = 24
    learning_rate: float = 1.5e-3
    ema: float = 0.998
    bank_steps: int = 900
    labelled_share: float = 0.45
    codec: float = 0.65
    """Share of pairs that are compressed."""
    severity: float = 0.7
    """How far down the qualities reach, see `AugmentConfig`."""
    hold_out: tuple[str, ...] = ()
    """Sources whose fakes are left out of training, to be judged on as unseen generators."""
    validation_batches: int = 8
    seed: int = 0
    bf16: bool = True
    init_terms: str = field(default="", metadata=ADDED_LATER)
    """Whose published weights `init` holds, what they learned from and their licence: the card repeats it."""


def run(context: Context) -> Outcome:
    """Train the decoder bank and the net, and export a bundle."""
    s: Settings = context.settings
    train, valid = labelled_faces(context.material.faces, "train", s.hold_out), labelled_faces(context.material.faces, "valid", s.hold_out)
    reals = context.material.reals("train")
    new_net(s.net, s.net_options, s.init, s.init_terms)  # what is wrong with it shows before the bank has been trained for an hour
    bank: list[nn.Module] = list(train_bank(reals, default_bank(s.bank_steps), context.run_dir / "bank", on_log=context.on_log))
    simulator = DecoderBlend(bank, whole_share=0.8)
    config = MixConfig(size_px=s.size_px, work_px=s.size_px * 9 // 8 // 8 * 8, labelled_share=s.labelled_share)
    augment = AugmentConfig(codec=s.codec, severity=s.severity)
    torch.manual_seed(s.seed)
    net, net_options = new_net(s.net, s.net_options, s.init, s.init_terms)
    source = LabelledSource(train, simulator, config=config, augment=augment)
    check = GeneratedValidation(LabelledSource(valid, simulator, config=config, augment=augment), batches=s.validation_batches)
    net_out, result = train_supervised(
        net,
        lambda _step, generator: source.batch(s.pairs, generator),
        config=LoopConfig(
            steps=s.steps, learning_rate=s.learning_rate, ema=s.ema, seed=s.seed, bf16=s.bf16, validate_every=max(50, s.steps // 6)
        ),
        run_dir=context.run_dir / "classifier",
        identity=named_run("synthesis", replace(s, init=named(s.init)), train),
        validate=check,
        on_log=context.on_log,
    )
    bundle = save_bundle(
        context.run_dir / "bundle",
        net_out,
        name="synthesis",
        version="1",
        detector="synthesis",
        net=s.net,
        net_options=net_options,
        crop=CropSpec(size_px=s.size_px, margin=MARGIN),
        temperature=1.0,
        card=card(
            recipe="synthesis",
            settings={**asdict(s), "init": named(s.init), "init_terms": terms_of(s.init, s.init_terms)},
            train=train.where(label=0),
            families=[
                *sorted({row.generator for row in train.rows if row.label}),
                *(f"AutoGAN reconstruction ({c.name})" for c in default_bank(s.bank_steps)),
            ],
            metrics={f"valid_{name}": value for name, value in result.validation.items()},
            seed=s.seed,
        ),
        half=True,
    )
    return Outcome({**result.validation, "bundle_sha256": bundle.sha256}, artefacts=("bundle",))


def labelled_faces(faces: FacePack, split: str, hold_out: tuple[str, ...]) -> FacePack:
    """Reals of a split and its generated stills, without held-out sources.

    Fakes of videos are never taken: few people stand in them, and a net would learn their faces.

    Raises:
        ConfigError: a source to hold out has no fake.
        DataError: nothing is left in the split.
    """
    rows = faces.rows
    if unknown := sorted(set(hold_out) - {row.source for row in rows if row.label}):
        raise ConfigError(
            f"tried to hold out the fakes of {', '.join(unknown)}, got no fake of that source; the sources with fakes are "
            f"{', '.join(sorted({row.source for row in rows if row.label})) or 'none'} (--set hold_out=...)"
        )
    chosen = [
        i
        for i, row in enumerate(rows)
        if row.split == split
        and row.source not in AUXILIARY_SOURCES
        and (row.label == 0 or (row.kind == "still" and row.source not in HAND_MADE and row.source not in hold_out))
    ]
    if not chosen:
        raise DataError(f"no usable face in split {split!r}; give a folder whose index has that split")
    return faces.take(chosen)


class GeneratedValidation:
    """AUC on fixed batches of held-out faces: labelled fakes, and reconstructions beside their originals."""

    def __init__(self, source: LabelledSource, *, batches: int, pairs: int = 24, seed: int = 99) -> None:
        self._labelled = round(pairs * source.config.labelled_share)
        self._drawn = [source.draw(pairs, step_generator(seed, i)) for i in range(batches)]

    def __call__(self, net: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            real = torch.stack([net(2 * real - 1).float() for real, _ in self._drawn])
            fake = torch.stack([net(2 * fake - 1).float() for _, fake in self._drawn])
        out = {}
        for name, part in (("labelled", slice(None, self._labelled)), ("reconstructed", slice(self._labelled, None))):
            scores = torch.cat([real[:, part].flatten(), fake[:, part].flatten()])
            half = len(scores) // 2
            if half:
                out[name] = round(auc(scores.numpy(), [0] * half + [1] * half), 4)
        return out


RECIPES = {
    "synthesis": Recipe(
        name="synthesis",
        study="our experts",
        summary="labelled generated faces and re-decoded reals against untouched faces",
        presets={
            "smoke": Settings(size_px=48, steps=6, pairs=8, bank_steps=2, validation_batches=2),
            "cpu": Settings(),
            "gpu": Settings(steps=9000, pairs=128, bank_steps=2500),
        },
        run=run,
    )
}
