"""The engine of the supervised studies: any net on labelled real and fake faces, measured the same way every time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from detect_core.bundle import MAX_SHARD_BYTES, CropSpec, save_bundle
from detect_core.nets import build_net
from detect_core.nets.embedding_svm import EmbeddingSvm

from .autogan_bank import AutoGanConfig, train_autogan
from .bundle_card import card
from .embedding_plots import draw_embeddings
from .embeddings import MAX_ROWS, embeddings_of, fit_svm
from .face_pack import FacePack, concatenate
from .loop import EarlyStop, LoopConfig, train_supervised
from .measure import Scored, evaluation_rows, fit_temperature, log_loss, measured, write_evaluation
from .recipe import Context, Outcome
from .run_key import described
from .study_data import ClassifySettings, StudyData
from .transfer import freeze, start_from

LN2: Final = math.log(2)
__all__ = ["LN2", "ClassifySettings", "StudyData", "classify", "logits_of", "measured"]


def classify(context: Context) -> Outcome:
    """Train and measure one net; writes a bundle, predictions, evaluation rows and plots of the test split."""
    s: ClassifySettings = context.settings
    data = StudyData(*_pack_and_front(context), settings=s)
    net_options = json.loads(s.net_options)
    net, last_loss, validation = trained(context, data, net_options)
    labels, origins = data.listed("test")
    test = Scored(logits_of(net, data.images("test")), labels, origins)
    valid_labels, _ = data.listed("valid")
    valid = logits_of(net, data.images("valid"))
    temperature = fit_temperature(valid, valid_labels)
    metrics: dict[str, Any] = {**validation, **measured(test.logits, labels, prefix="test_"), "temperature": round(temperature, 4)}
    for row in evaluation_rows(test)[1:]:
        metrics[f"test_auc_{row['what'].replace(' ', '_')}"] = row["auc"]
    metrics |= {f"calibrated_{k}": v for k, v in measured(test.logits / temperature, labels, prefix="test_").items() if k in _CALIBRATED}
    metrics["diverged"] = bool(last_loss > 10 or log_loss(valid, valid_labels) >= LN2 - 0.005)
    artefacts = write_evaluation(test, context.run_dir, title=f"{s.net}, test split")
    if s.svm:
        artefacts += with_svm(context, net, data, net_options, metrics)
    else:
        artefacts.append(export_net(context, net, s, s.net, net_options, data, metrics, temperature))
    return Outcome(metrics, artefacts=artefacts)


_CALIBRATED: Final = ("test_log_loss", "test_ece")


def trained(context: Context, data: StudyData, net_options: dict[str, Any]) -> tuple[nn.Module, float, dict[str, float]]:
    """The trained net, its last training loss and what validation said last.

    A frozen backbone gives the same numbers from step to step, so only the head moves; `warmup_head_steps` does that
    for a while before everything is trained.
    """
    s: ClassifySettings = context.settings
    torch.manual_seed(s.seed)
    net = build_net(s.net, **net_options)
    started_from = start_from(net, s.init_weights) if s.init_weights else "scratch"
    valid_labels, _ = data.listed("valid")
    stages = [("head", s.warmup_head_steps, "head")] if s.warmup_head_steps and s.trained == "all" else []
    result = None
    for folder, steps, which in (*stages, ("net", s.steps, s.trained)):
        freeze(net, all_but_head=which == "head")
        net, result = train_supervised(
            net,
            lambda _step, generator: data.batch(generator),
            config=LoopConfig(
                steps=steps,
                learning_rate=s.learning_rate,
                optimiser=s.optimiser,
                weight_decay=s.weight_decay,
                rates=s.rates,
                ema=0.98,
                seed=s.seed,
                bf16=s.bf16,
                validate_every=max(20, steps // (4 if not s.patience else 10)),
            ),
            run_dir=context.run_dir / folder,
            identity=f"{json.dumps(described(s), sort_keys=True)} {started_from} {data.sha256}",
            validate=lambda n: measured(logits_of(n, data.images("valid")), valid_labels, prefix="valid_"),
            on_log=context.on_log,
            early_stop=EarlyStop("valid_log_loss", patience=s.patience) if s.patience and folder == "net" else None,
        )
        freeze(net, all_but_head=False)
    assert result is not None
    return net, result.loss, result.validation


def with_svm(context: Context, net: nn.Module, data: StudyData, net_options: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """Fit the SVM on the trained net's embeddings, measure it beside the sigmoid head and export both as one net."""
    s: ClassifySettings = context.settings
    most = {"train": MAX_ROWS, "valid": None, "test": None}
    labels = {split: data.listed(split, most=number)[0] for split, number in most.items()}
    embedded = {split: np.concatenate([embeddings_of(net, p) for p in data.images(split, most=n)]) for split, n in most.items()}
    head = fit_svm(embedded["train"], labels["train"], embedded["valid"], labels["valid"], seed=s.seed)
    scores = head(torch.from_numpy(embedded["test"])).numpy()
    metrics.update({f"svm_{name}": value for name, value in measured(scores, labels["test"], prefix="test_").items()})
    drawn = draw_embeddings(head, embedded["test"], labels["test"], context.run_dir, title=f"{s.net}, test split", seed=s.seed)
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
    return [*drawn, export_net(context, whole, s, "embedding_svm", options, data, metrics, 1.0)]


def logits_of(net: nn.Module, images: Tensor | Iterable[Tensor]) -> NDArray[np.float64]:
    """Logits (N,) in eval mode."""
    net.eval()
    parts = torch.split(images, 64) if isinstance(images, Tensor) else images
    device = next(net.parameters()).device
    with torch.inference_mode():
        return torch.cat([net(part.to(device)).float().cpu() for part in parts]).double().numpy()


def export_net(
    context: Context,
    net: nn.Module,
    s: ClassifySettings,
    name: str,
    net_options: dict[str, Any],
    data: StudyData,
    metrics: dict[str, Any],
    temperature: float,
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
        temperature=temperature,
        card=card(recipe="classify", settings=asdict(s), train=data.train_reals, families=data.families, metrics=metrics, seed=s.seed),
        half=not s.svm,  # a polynomial of rounded support vectors would be another function
    )
    return "bundle"


def _pack_and_front(context: Context) -> tuple[FacePack, nn.Module | None]:
    """The faces, and the autoencoder where the settings want one."""
    s: ClassifySettings = context.settings
    front = None
    if s.through_autogan or s.fakes == "reconstruction":
        config = AutoGanConfig(upsampler=s.upsampler, num_blocks=s.num_blocks, ngf=s.autogan_ngf, steps=s.autogan_steps, seed=s.seed)
        front = train_autogan(context.material.reals("train"), config, context.run_dir / "autogan", on_log=context.on_log)[0]
    if s.fakes == "dataset":
        return context.material.faces, front
    return concatenate([context.material.reals(split) for split in ("train", "valid", "test")]), front
