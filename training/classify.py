"""The engine of the supervised studies: any net on labelled real and fake stills, measured the same way every time."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from detect_core.bundle import MAX_SHARD_BYTES, CropSpec, save_bundle
from detect_core.nets import build_net
from detect_core.nets.embedding_svm import EmbeddingSvm

from .augment import AugmentConfig, augment_pairs
from .autogan_bank import AutoGanConfig, train_autogan
from .bundle_card import card
from .embeddings import draw_scatter, embeddings_of, fit_svm
from .errors import DataError
from .face_pack import FacePack
from .geometry import random_views, view
from .loop import Batch, LoopConfig, train_supervised
from .metrics import auc, average_precision, equal_error_rate, expected_calibration_error
from .recipe import Context, Outcome
from .simulators.blends import reconstruct

LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class ClassifySettings:
    """Of one supervised run on stills."""

    net: str = "cnn5"
    net_options: str = "{}"
    """JSON of the net's keyword arguments."""
    size_px: int = 64
    margin: float = 1.3
    value_range: Literal["signed", "unit"] = "signed"
    """What the net sees: -1..1 or 0..1."""
    fakes: Literal["dataset", "reconstruction"] = "dataset"
    """The data's own fakes, or reconstructions of the reals by an autoencoder."""
    through_autogan: bool = False
    """Pass both classes through an autoencoder first (the AutoGAN study's claim)."""
    upsampler: str = "nearest"
    num_blocks: int = 1
    autogan_steps: int = 900
    autogan_ngf: int = 16
    sources: tuple[str, ...] = ("web140k", "ffhq", "ciplab")
    """Sources with both classes, so that the source itself does not give the label away."""
    steps: int = 1000
    batch: int = 32
    optimiser: Literal["adamw", "adam", "nadam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    augment: float = 0.5
    """0 for none (as most studies), 1 for full strength."""
    svm: bool = False
    """Also fit PCA and a polynomial SVM on the embeddings, and ship that instead of the sigmoid head."""
    seed: int = 0
    bf16: bool = True


class StudyData:
    """Balanced batches and evaluation images of one run."""

    def __init__(self, pack: FacePack, settings: ClassifySettings, front: nn.Module | None) -> None:
        self._s = settings
        self._front = front
        if settings.fakes == "dataset":
            pack = pack.take([i for i, row in enumerate(pack.rows) if row.kind == "still" and row.source in settings.sources])
        self._real = {split: pack.where(split=split, label=0) for split in ("train", "valid", "test")}
        self._fake = {split: pack.where(split=split, label=1) for split in ("train", "valid", "test")}
        wanted = [self._real["train"], self._real["valid"], self._real["test"]]
        if settings.fakes == "dataset":
            wanted += [self._fake["train"], self._fake["valid"], self._fake["test"]]
        if not all(len(part) for part in wanted):
            counts = {f"{split} real": len(self._real[split]) for split in self._real} | {
                f"{split} fake": len(self._fake[split]) for split in self._fake
            }
            raise DataError(f"a split lacks a class: {counts}; give sources with both classes in every split (--set sources=...)")

    @property
    def train_reals(self) -> FacePack:
        """What autoencoders may learn from."""
        return self._real["train"]

    def batch(self, generator: Generator) -> Batch:
        """Half fakes, half reals, fakes first, the same augmentation for the i-th of both halves."""
        half = self._s.batch // 2
        work = self._s.size_px * 9 // 8 // 8 * 8
        real = self._views(self._real["train"], half, work, generator)
        fake = (
            self._views(self._fake["train"], half, work, generator)
            if self._s.fakes == "dataset"
            else self._reconstructed(real if not self._s.through_autogan else self._views(self._real["train"], half, work, generator))
        )
        strength = self._s.augment
        plain = AugmentConfig()
        config = AugmentConfig(**{k: v * strength for k, v in asdict(plain).items()}) if strength < 1 else plain
        real, fake, _ = augment_pairs(real, fake, real[:, :1], size_px=self._s.size_px, config=config, generator=generator)
        labels = torch.cat([torch.ones(half), torch.zeros(half)])
        return Batch(self._seen(torch.cat([fake, real])), labels)

    def evaluation(self, split: str) -> tuple[Tensor, NDArray[np.int64], list[str]]:
        """Images as the net sees them, labels and sources of a whole split."""
        real = self._all(self._real[split])
        fake = self._all(self._fake[split]) if self._s.fakes == "dataset" else self._reconstructed(real)
        fake_rows = self._fake[split].rows if self._s.fakes == "dataset" else self._real[split].rows
        labels = np.array([1] * len(fake) + [0] * len(real))
        return self._seen(torch.cat([fake, real])), labels, [r.source for r in (*fake_rows, *self._real[split].rows)]

    def _views(self, pack: FacePack, count: int, side: int, generator: Generator) -> Tensor:
        indices = torch.randint(len(pack), (count,), generator=generator)
        margin = self._s.margin
        return random_views(pack, indices, size_px=side, generator=generator, margins=(margin * 0.95, min(1.6, margin * 1.1)))[0]

    def _all(self, pack: FacePack) -> Tensor:
        parts = [
            view(pack, torch.arange(i, min(i + 128, len(pack))), size_px=self._s.size_px, margin=self._s.margin)[0]
            for i in range(0, len(pack), 128)
        ]
        return torch.cat(parts)

    def _reconstructed(self, images: Tensor) -> Tensor:
        if self._front is None:
            raise DataError("fakes=reconstruction needs an autoencoder")
        side = images.shape[-1] // 4 * 4
        return torch.cat([reconstruct(self._front, part, side) for part in torch.split(images, 128)])

    def _seen(self, images: Tensor) -> Tensor:
        if self._s.through_autogan:
            images = self._reconstructed(images)
        return 2 * images - 1 if self._s.value_range == "signed" else images


def classify(context: Context) -> Outcome:
    """Train and measure one net; writes a bundle, `predictions.csv` and the metrics of the test split."""
    s: ClassifySettings = context.settings
    front = None
    if s.through_autogan or s.fakes == "reconstruction":
        config = AutoGanConfig(upsampler=s.upsampler, num_blocks=s.num_blocks, ngf=s.autogan_ngf, steps=s.autogan_steps, seed=s.seed)  # type: ignore[arg-type]
        front = train_autogan(context.material.reals("train"), config, context.run_dir / "autogan", on_log=context.on_log)[0]
    pack = context.material.faces if s.fakes == "dataset" else _reals_only(context)
    data = StudyData(pack, s, front)
    torch.manual_seed(s.seed)
    net_options = json.loads(s.net_options)
    net = build_net(s.net, **net_options)
    loop = LoopConfig(
        steps=s.steps,
        learning_rate=s.learning_rate,
        optimiser=s.optimiser,
        weight_decay=s.weight_decay,
        ema=0.98,
        seed=s.seed,
        bf16=s.bf16,
        validate_every=max(20, s.steps // 4),
    )
    valid_images, valid_labels, _ = data.evaluation("valid")
    net, result = train_supervised(
        net,
        lambda _step, generator: data.batch(generator),
        config=loop,
        run_dir=context.run_dir / "net",
        identity=f"{s.net} {pack.sha256()}",
        validate=lambda n: measured(logits_of(n, valid_images), valid_labels, prefix="valid_"),
        on_log=context.on_log,
    )
    images, labels, sources = data.evaluation("test")
    scores = logits_of(net, images)
    metrics: dict[str, Any] = {**result.validation, **measured(scores, labels, prefix="test_")}
    for source in sorted(set(sources)):
        members = np.array([name == source for name in sources])
        if 0 < labels[members].sum() < members.sum():
            metrics[f"test_auc_{source}"] = round(auc(scores[members], labels[members]), 4)
    metrics["diverged"] = bool(result.loss > 10 or result.validation.get("valid_log_loss", 0.0) >= LN2 - 0.005)
    write_predictions(context.run_dir / "predictions.csv", scores, labels, sources)
    artefacts = ["predictions.csv"]
    if s.svm:
        artefacts += with_svm(context, net, data, net_options, metrics)
    else:
        artefacts.append(export_net(context, net, s, s.net, net_options, data.train_reals, metrics))
    return Outcome(metrics, artefacts=artefacts)


def with_svm(context: Context, net: nn.Module, data: StudyData, net_options: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """Fit the SVM on the trained net's embeddings, measure it beside the sigmoid head and export both as one net."""
    s: ClassifySettings = context.settings
    parts = {split: data.evaluation(split) for split in ("train", "valid", "test")}
    embedded = {split: embeddings_of(net, images) for split, (images, _, _) in parts.items()}
    head = fit_svm(embedded["train"], parts["train"][1], embedded["valid"], parts["valid"][1], seed=s.seed)
    scores = head(torch.from_numpy(embedded["test"])).numpy()
    metrics.update({f"svm_{name}": value for name, value in measured(scores, parts["test"][1], prefix="test_").items()})
    draw_scatter(head, embedded["test"], parts["test"][1], context.run_dir / "pca.png", title=f"{s.net}, test split")
    options = {
        "backbone": s.net,
        "backbone_options": net_options,
        "dim": embedded["train"].shape[1],
        "num_components": head.components.shape[0],
        "num_support": head.support_vectors.shape[0],
    }
    whole = EmbeddingSvm(**options)
    whole.backbone.load_state_dict(net.state_dict())
    whole.head.load_state_dict(head.state_dict())
    return ["pca.png", "pca.csv", export_net(context, whole, s, "embedding_svm", options, data.train_reals, metrics)]


def logits_of(net: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Logits (N,) in eval mode."""
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(part) for part in torch.split(images, 64)]).double().numpy()


def measured(scores: NDArray[np.float64], labels: NDArray[np.int64], *, prefix: str) -> dict[str, float]:
    """Ranking, calibration and accuracy of logits, never accuracy alone."""
    p = 1 / (1 + np.exp(-scores.clip(-40, 40)))
    return {
        f"{prefix}auc": round(auc(scores, labels), 4),
        f"{prefix}ap": round(average_precision(scores, labels), 4),
        f"{prefix}eer": round(equal_error_rate(scores, labels), 4),
        f"{prefix}accuracy": round(float(((scores > 0) == labels).mean()), 4),
        f"{prefix}log_loss": round(float(np.mean(np.logaddexp(0, scores) - labels * scores)), 4),
        f"{prefix}ece": round(expected_calibration_error(p, labels), 4),
    }


def write_predictions(path: Path, scores: NDArray[np.float64], labels: NDArray[np.int64], sources: list[str]) -> None:
    """Per-item scores: every reported figure can be computed again from them."""
    lines = ["logit,label,source", *(f"{z:.6f},{y},{name}" for z, y, name in zip(scores, labels, sources, strict=True))]
    path.write_text("\n".join(lines) + "\n")


def export_net(
    context: Context,
    net: nn.Module,
    s: ClassifySettings,
    name: str,
    net_options: dict[str, Any],
    train: FacePack,
    metrics: dict[str, Any],
) -> str:
    """Write a bundle, or bare weights when one tensor alone is larger than a shard may be; returns what was written."""
    largest = max(2 * value.numel() for value in net.state_dict().values())
    if largest > MAX_SHARD_BYTES - 2**18:
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, context.run_dir / "net.safetensors")
        return "net.safetensors"
    unit = s.value_range == "unit"
    save_bundle(
        context.run_dir / "bundle",
        net,
        name=name,
        version="1",
        detector="synthesis",
        net=name,
        net_options=net_options,
        crop=CropSpec(size_px=s.size_px, margin=s.margin, mean=(0.0,) * 3 if unit else (0.5,) * 3, std=(1.0,) * 3 if unit else (0.5,) * 3),
        temperature=1.0,
        card=card(recipe="classify", settings=asdict(s), train=train, families=[s.fakes], metrics=metrics, seed=s.seed),
        half=not s.svm,  # a polynomial of rounded support vectors would be another function
    )
    return "bundle"


def _reals_only(context: Context) -> FacePack:
    """Reals of every split without auxiliary sources."""
    from .face_pack import concatenate

    return concatenate([context.material.reals(split) for split in ("train", "valid", "test")])
