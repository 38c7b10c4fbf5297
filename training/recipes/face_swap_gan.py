"""Face-swap study: train the swapper on two sets of people and write labelled training fakes. It swaps nothing else."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Generator

from ..errors import DataError
from ..face_pack import FacePack
from ..face_swap_loop import FaceSwapConfig, draw_faces, train_face_swap
from ..geometry import view
from ..loop import step_generator
from ..recipe import Context, Outcome, Recipe
from ..run_key import ADDED_LATER
from ..simulators.base import Fakes, Reals
from ..simulators.face_swap import FaceSwap, Swapper, usable
from ..swap_identity import identity_distances, load_recogniser
from ..training_fakes import write_training_fakes

FAMILY: Final = "face_swap_gan"
MIN_FACES: Final = 8
"""Of one person, to be an identity of its own; else two sets of many people stand in for A and B."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the swapper and of what it writes."""

    size_px: int = 64
    base: int = 16
    lite: bool = True
    steps: int = 2000
    batch: int = 8
    cycle_weight: float = 0.0
    fakes: int = 200
    """Training fakes to write; those that fail the checks are dropped and counted."""
    fake_px: int = 160
    seed: int = 0
    bf16: bool = True
    recogniser: str = field(default="", metadata=ADDED_LATER)
    """File with weights of facenet-pytorch's Inception-ResNet-v1: then the identity distance of the swaps is measured."""


def run(context: Context) -> Outcome:
    """Train, check, write the fakes, and keep the weights for the simulator."""
    s: Settings = context.settings
    embed = load_recogniser(Path(s.recogniser)) if s.recogniser else None  # before the training: a wrong file is told at once
    people = two_identities(context.material.reals("train"))
    config = FaceSwapConfig(
        size_px=s.size_px, base=s.base, lite=s.lite, steps=s.steps, batch=s.batch, cycle_weight=s.cycle_weight, seed=s.seed, bf16=s.bf16
    )
    swapper, losses = train_face_swap(people, config, context.run_dir, on_log=context.on_log)
    weights = {f"encoder.{k}": v for k, v in swapper.encoder.state_dict().items()}
    for i, decoder in enumerate(swapper.decoders):
        weights |= {f"decoder{i}.{k}": v for k, v in decoder.state_dict().items()}
    save_file({k: v.contiguous() for k, v in weights.items()}, context.run_dir / "swapper.safetensors")
    simulator = FaceSwap(swapper, trained=True)
    kept, made = _fakes(simulator, people, s)
    accepted = sum(len(fakes.images) for fakes, _, _ in kept)
    metrics: dict[str, Any] = {
        "psnr_db": _psnr(swapper, people, config),
        "mask_mean": losses["mask"],
        "l1": losses["l1"],
        "d_loss": losses["d"],
        "made": made,
        "accepted": accepted,
        "swap_change": _mean_change(kept),
        "people_a": len({row.group for row in people[0].rows}),
        "people_b": len({row.group for row in people[1].rows}),
    }
    if embed is not None and kept:
        metrics |= identity_distances(embed, people, [fakes for fakes, _, _ in kept])
    artefacts = ["swapper.safetensors"]
    if kept:
        named = {key: value for key, value in asdict(s).items() if key != "recogniser"}  # a path says nothing about the fakes
        write_training_fakes(
            context.run_dir / "training_fakes", kept, generator_name=FAMILY, salt=f"{s.seed} {s.steps}", settings={"settings": named}
        )
        artefacts.append("training_fakes")
    return Outcome(metrics, artefacts=artefacts)


def two_identities(reals: FacePack) -> tuple[FacePack, FacePack]:
    """The two people with the most faces, or, where nobody has enough, two sets of people that share nobody.

    Raises:
        DataError: there are fewer than two people, or a real is not of the training split.
    """
    if any(row.split != "train" for row in reals.rows):
        raise DataError("identities A and B must both be of the training split; a held-out person must not be learned")
    counts = Counter(row.group for row in reals.rows)
    if len(counts) < 2:
        raise DataError(f"a swap needs two people, the training reals show {len(counts)}; give more faces")
    (first, _), (second, fewer) = counts.most_common(2)
    if fewer >= MIN_FACES:
        return tuple(reals.take([i for i, row in enumerate(reals.rows) if row.group == name]) for name in (first, second))  # type: ignore[return-value]
    names = sorted(counts)
    left = set(names[::2])
    sides = [[i for i, row in enumerate(reals.rows) if (row.group in left) is side] for side in (True, False)]
    return reals.take(sides[0]), reals.take(sides[1])


def _fakes(simulator: FaceSwap, people: tuple[FacePack, FacePack], s: Settings) -> tuple[list[tuple[Fakes, Any, torch.Tensor]], int]:
    """Batches of fakes that passed the checks, and how many were made."""
    kept, made, accepted = [], 0, 0
    for turn in range(2 * -(-s.fakes // 16)):
        pack = people[turn % 2]
        generator: Generator = step_generator(s.seed + 7, turn)
        indices = torch.randint(len(pack), (min(16, s.fakes),), generator=generator)
        images, points = view(pack, indices, size_px=s.fake_px, margin=1.6)
        fakes = simulator(Reals(images, points), generator)
        good = usable(fakes).nonzero().flatten()[: s.fakes - accepted]
        made += len(images)
        accepted += len(good)
        if len(good):
            chosen = Fakes(fakes.images[good], fakes.masks[good], fakes.reals[good], fakes.recipe)
            kept.append((chosen, [pack.rows[int(indices[i])] for i in good], points[good]))
        if accepted >= s.fakes:
            break
    return kept, made


def _psnr(swapper: Swapper, people: tuple[FacePack, FacePack], config: FaceSwapConfig) -> float:
    """Of reconstructions of both identities by their own decoders."""
    errors = []
    with torch.no_grad():
        for i, pack in enumerate(people):
            warped, target = draw_faces(pack, min(32, len(pack)), config, step_generator(11, i))
            face, _ = swapper.swap(warped, to=i)
            errors.append(float((((face.float() - target) / 2) ** 2).mean()))
    return round(-10 * math.log10(max(sum(errors) / 2, 1e-9)), 2)


def _mean_change(kept: list[tuple[Fakes, Any, torch.Tensor]]) -> float:
    """Mean absolute difference inside the mask, in grey levels."""
    if not kept:
        return 0.0
    parts = [255 * float(((f.images - f.reals).abs() * (f.masks > 0.05)).sum() / (3 * (f.masks > 0.05).sum())) for f, _, _ in kept]
    return round(sum(parts) / len(parts), 2)


def _recipe(name: str, summary: str, cpu: Settings, gpu: Settings) -> Recipe:
    smoke = Settings(size_px=cpu.size_px, base=8, steps=2, batch=2, fakes=4, fake_px=96)
    return Recipe(name=name, study="Face-swap study", summary=summary, presets={"smoke": smoke, "cpu": cpu, "gpu": gpu}, run=run)


_ALL: Final = (
    _recipe(
        "face_swap_gan",
        "shared encoder, two decoders with masks, two discriminators; writes marked, labelled training fakes",
        Settings(),
        Settings(base=64, lite=False, steps=40_000, fakes=2000),
    ),
    _recipe(
        "face_swap_gan_lite",
        "the lighter layout: nearest upsampling, half the channels, 128 px",
        Settings(size_px=128, steps=600, batch=4),
        Settings(size_px=128, base=32, steps=40_000, fakes=2000),
    ),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
