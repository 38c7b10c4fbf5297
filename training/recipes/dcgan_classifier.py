"""AutoGAN study, second experiment: a discriminator trained adversarially as a classifier, against its plain twin.

Both learn real against AutoGAN reconstruction with the same net, data and steps; the adversarial one also has to
catch a generator that learns to fool it. Both are then measured on a generator that neither saw.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from detect_core.nets.autogan import AutoGan
from detect_core.nets.dcgan import Discriminator64, Generator64

from ..autogan_bank import AutoGanConfig, train_autogan
from ..classify import logits_of, measured
from ..device import training_device
from ..errors import DivergedError
from ..face_pack import FacePack
from ..geometry import random_views, view
from ..loop import step_generator
from ..noise_gan import NZ
from ..recipe import Context, Outcome, Recipe
from ..run_key import ADDED_LATER
from ..simulators.blends import reconstruct

SIZE_PX = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """Of both twins."""

    steps: int = 400
    batch: int = 32
    width: int = 32
    learning_rate: float = 2e-4
    seeds: int = 5
    autogan_steps: int = 600
    autogan_ngf: int = 16
    bf16: bool = True
    legacy_softmax_sigmoid: bool = field(default=False, metadata=ADDED_LATER)
    """The study's own head: two outputs, each through a sigmoid before the cross-entropy, which can then not fall below 0.313."""


def run(context: Context) -> Outcome:
    """Train both twins with several seeds and compare them on the seen and on an unseen generator."""
    s: Settings = context.settings
    train, test = context.material.reals("train"), context.material.reals("test")
    bank = context.run_dir / "bank"
    seen = train_autogan(
        train, AutoGanConfig("nearest", ngf=s.autogan_ngf, steps=s.autogan_steps, bf16=s.bf16), bank, on_log=context.on_log
    )[0]
    unseen = train_autogan(
        train, AutoGanConfig("transposed", ngf=s.autogan_ngf, steps=s.autogan_steps, seed=1, bf16=s.bf16), bank, on_log=context.on_log
    )[0]
    sides = {"seen": _evaluation(test, seen), "unseen": _evaluation(test, unseen)}
    metrics: dict[str, float | str | bool] = {}
    differences = []
    for seed in range(s.seeds):
        scores = {}
        for name, adversarial in (("plain", False), ("adversarial", True)):
            net = _train(train, seen, s, seed=seed, adversarial=adversarial)
            for side, (images, labels) in sides.items():
                value = measured(logits_of(net, images), labels, prefix="")["auc"]
                metrics[f"{name}_{side}_auc_seed{seed}"] = scores[name, side] = value
        differences.append(scores["adversarial", "unseen"] - scores["plain", "unseen"])
        context.on_log({"seed": seed, "unseen_difference": round(differences[-1], 4)})
    for name in ("plain", "adversarial"):
        metrics[f"{name}_unseen_auc_mean"] = round(float(np.mean([metrics[f"{name}_unseen_auc_seed{i}"] for i in range(s.seeds)])), 4)
    metrics["num_seeds"] = s.seeds
    metrics["unseen_auc_difference_mean"] = round(float(np.mean(differences)), 4)
    metrics["unseen_auc_difference_std"] = round(float(np.std(differences)), 4)
    return Outcome(metrics)


def _train(pack: FacePack, autogan: AutoGan, s: Settings, *, seed: int, adversarial: bool) -> nn.Module:
    torch.manual_seed(seed)
    device = training_device()
    judge = Discriminator64(s.width, first_norm=True, legacy_softmax_sigmoid=s.legacy_softmax_sigmoid).to(device)
    maker = Generator64(NZ, s.width).to(device)
    adam_d, adam_g = (torch.optim.Adam(net.parameters(), lr=s.learning_rate, betas=(0.5, 0.999)) for net in (judge, maker))
    for step in range(s.steps):
        generator = step_generator(seed, step)
        real, fake = _pair(pack, autogan, s.batch // 2, generator)
        images, labels = torch.cat([fake, real]).to(device), torch.cat([torch.ones(len(fake)), torch.zeros(len(real))]).to(device)
        loss = bce(judge(images), labels)
        made = maker(torch.randn(s.batch, NZ, generator=generator).to(device)) if adversarial else None
        if made is not None:
            loss = loss + bce(judge(made.detach()), labels.new_ones(len(made)))
        if not torch.isfinite(loss):
            raise DivergedError(f"loss at step {step} is {loss.item()}; lower the learning rate")
        _update(adam_d, loss)
        if made is not None:
            _update(adam_g, bce(judge(made), labels.new_zeros(len(made))))  # the maker wants to be called real
    return judge.cpu().eval()


def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()


def _pair(pack: FacePack, autogan: AutoGan, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    indices = torch.randint(len(pack), (count,), generator=generator)
    images, _ = random_views(pack, indices, size_px=SIZE_PX, generator=generator)
    return _signed(images), _signed(reconstruct(autogan, images, SIZE_PX))


def _evaluation(pack: FacePack, autogan: AutoGan, *, most: int = 600) -> tuple[Tensor, NDArray[np.int64]]:
    real, _ = view(pack, torch.arange(min(len(pack), most)), size_px=SIZE_PX, margin=1.3)
    fake = torch.cat([reconstruct(autogan, part, SIZE_PX) for part in torch.split(real, 128)])
    return _signed(torch.cat([fake, real])), np.array([1] * len(fake) + [0] * len(real))


def _signed(images: Tensor) -> Tensor:
    return 2 * images - 1


_PRESETS: Final = {
    "smoke": Settings(steps=4, batch=8, width=8, seeds=2, autogan_steps=4, autogan_ngf=4),
    "cpu": Settings(),
    "gpu": Settings(steps=4000, batch=128, width=64, seeds=5, autogan_steps=10_000, autogan_ngf=64),
}

RECIPES = {
    "dcgan_classifier": Recipe(
        name="dcgan_classifier",
        study="AutoGAN study",
        summary="adversarially trained discriminator against its plain twin on an unseen generator",
        presets=_PRESETS,
        run=run,
    ),
    "dcgan_classifier_legacy": Recipe(
        name="dcgan_classifier_legacy",
        study="AutoGAN study",
        summary="the same with the study's defect: sigmoids in front of the cross-entropy, which squash the gradients",
        presets={name: replace(preset, legacy_softmax_sigmoid=True) for name, preset in _PRESETS.items()},
        run=run,
    ),
}
