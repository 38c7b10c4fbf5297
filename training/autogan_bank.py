"""Train small AutoGAN autoencoders on real faces: simulators of decoder traces, and the front half of a detector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from detect_core.nets.autogan import AutoGan, PatchDiscriminator, Upsampler

from .adversarial import AdversarialConfig, AdversarialResult, train_adversarial
from .device import training_device, training_format
from .errors import CheckpointError
from .face_pack import FacePack
from .geometry import random_views
from .recipe import OnLog, pack_hash


@dataclass(frozen=True, slots=True)
class AutoGanConfig:
    """One autoencoder of the bank."""

    upsampler: Upsampler = "nearest"
    num_blocks: int = 1
    ngf: int = 16
    ndf: int = 32
    size_px: int = 64
    steps: int = 900
    batch: int = 16
    l1_weight: float = 0.5
    learning_rate: float = 2e-4
    seed: int = 0
    bf16: bool = True

    @property
    def name(self) -> str:
        """Short and unique inside a bank."""
        return f"{self.upsampler}-n{self.num_blocks}-ngf{self.ngf}-l{self.l1_weight:g}-s{self.seed}"


def train_autogan(
    pack: FacePack, config: AutoGanConfig, run_dir: Path, *, on_log: OnLog = lambda _row: None
) -> tuple[AutoGan, AdversarialResult]:
    """Train one autoencoder on real faces, or load it when `run_dir` holds it already.

    Raises:
        CheckpointError: `run_dir` holds an autoencoder of the same name and other settings.
    """
    torch.manual_seed(config.seed)
    net = AutoGan(config.num_blocks, config.ngf, config.upsampler).to(memory_format=training_format(training_device()))
    weights, card = run_dir / f"{config.name}.safetensors", run_dir / f"{config.name}.json"
    if weights.is_file() and card.is_file():
        document = json.loads(card.read_text())
        if document["config"] != asdict(config):
            raise CheckpointError(f"{card}: was trained with {document['config']}, wanted {asdict(config)}; give another run folder")
        net.load_state_dict(load_file(weights))
        return net.eval().requires_grad_(False), AdversarialResult(**document["result"])
    run_dir.mkdir(parents=True, exist_ok=True)

    def draw(batch: int, generator: Generator) -> Tensor:
        indices = torch.randint(len(pack), (batch,), generator=generator)
        images, _ = random_views(pack, indices, size_px=config.size_px, generator=generator)
        return 2 * images - 1

    result = train_adversarial(
        net,
        PatchDiscriminator(config.ndf).to(memory_format=training_format(training_device())),
        draw,
        config=AdversarialConfig(
            steps=config.steps,
            batch=config.batch,
            l1_weight=config.l1_weight,
            learning_rate=config.learning_rate,
            seed=config.seed,
            bf16=config.bf16,
        ),
        log_path=run_dir / f"{config.name}.jsonl",
        checkpoint=run_dir / f"{config.name}.checkpoint.pt",
        identity=f"{json.dumps(asdict(config), sort_keys=True)} {pack_hash(pack)}",
        on_log=lambda row: on_log({"autogan": config.name, **row}),
    )
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, weights)
    (run_dir / f"{config.name}.checkpoint.pt").unlink(missing_ok=True)
    card.write_text(json.dumps({"config": asdict(config), "result": asdict(result)}, indent=2) + "\n")
    return net.eval().requires_grad_(False), result


def train_bank(pack: FacePack, configs: Sequence[AutoGanConfig], run_dir: Path, *, on_log: OnLog = lambda _row: None) -> list[AutoGan]:
    """Train or load several autoencoders."""
    return [train_autogan(pack, config, run_dir, on_log=on_log)[0] for config in configs]


def default_bank(steps: int, *, ngf: int = 16) -> list[AutoGanConfig]:
    """Five upsamplers, different seeds and lengths: undertrained members add to the variety; two are faithful (high L1 weight)."""
    faithful = {"ndf": 16, "l1_weight": 10.0, "learning_rate": 6e-4, "steps": max(1, steps * 5 // 9)}
    return [
        AutoGanConfig("nearest", ngf=ngf, steps=steps, seed=0),
        AutoGanConfig("transposed", ngf=ngf, steps=max(1, steps * 7 // 9), seed=1),
        AutoGanConfig("pixelshuffle", ngf=ngf, steps=max(1, steps * 7 // 9), seed=2),
        AutoGanConfig("bilinear", ngf=ngf, steps=max(1, steps * 7 // 9), seed=3),
        AutoGanConfig("transposed_k4", ngf=ngf * 3 // 2, steps=max(1, steps * 5 // 9), seed=4),
        AutoGanConfig("nearest", ngf=ngf, seed=10, **faithful),  # type: ignore[arg-type]
        AutoGanConfig("pixelshuffle", ngf=ngf * 3 // 4, seed=11, **faithful),  # type: ignore[arg-type]
    ]
