"""Xception study: the published baseline, its repaired twin, and Xception frozen, fine-tuned or from scratch.

ImageNet weights are the user's to give (`--set init_weights=FILE`); without them every recipe trains from scratch, where
freezing makes no sense: `xception_frozen` then trains a head on random features and says so by its figures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..schedule import Optimiser
from ..study_data import ClassifySettings
from .presets import study_recipe

_STUDY: Final = "Xception study"
_BASE: Final = ClassifySettings(net="cnn_s4", net_options='{"size_px": 96}', size_px=96, value_range="unit", steps=120, augment=0.0)
_XCEPTION: Final = ClassifySettings(net="xception", size_px=128, steps=60, batch=8, optimiser="sgd", learning_rate=0.01, augment=0.3)
_FULL: Final = {"size_px": 224, "steps": 10_000, "warmup_head_steps": 400, "patience": 3}
_SMOKE: Final = {"size_px": 48, "batch": 4}
_CNN_ROWS: Final[tuple[tuple[Optimiser, str], ...]] = (("nadam", "Nadam"), ("sgd", "SGD"))

_ALL: Final = (
    study_recipe(
        "cnn_baseline",
        _STUDY,
        "the baseline CNN as published (it diverges)",
        replace(_BASE, learning_rate=0.01),
        smoke={"size_px": 48, "net_options": '{"size_px": 48}'},
        gpu={"size_px": 224, "net_options": '{"size_px": 224}', "steps": 2500},
    ),
    *(
        study_recipe(
            f"cnn_baseline_{optimiser}",
            _STUDY,
            f"the same with {shown} at 0.01, a row of the study's table",
            replace(_BASE, optimiser=optimiser, learning_rate=0.01),
            smoke={"size_px": 48, "net_options": '{"size_px": 48}'},
            gpu={"size_px": 224, "net_options": '{"size_px": 224}', "steps": 2500},
        )
        for optimiser, shown in _CNN_ROWS
    ),
    study_recipe(
        "cnn_baseline_fixed",
        _STUDY,
        "the baseline CNN with batch norm and global pooling",
        replace(_BASE, net_options='{"size_px": 96, "fixed": true}', steps=200, augment=0.3),
        smoke={"size_px": 48},
        gpu={"size_px": 224, "steps": 2500},
    ),
    study_recipe(
        "xception_transfer", _STUDY, "Xception, all of it trained, with the study's best optimiser", _XCEPTION, smoke=_SMOKE, gpu=_FULL
    ),
    study_recipe(
        "xception_frozen",
        _STUDY,
        "Xception with only the head trained; meant for init_weights",
        replace(_XCEPTION, trained="head"),
        smoke=_SMOKE,
        gpu={**_FULL, "warmup_head_steps": 0, "steps": 3000},
    ),
    study_recipe(
        "xception_299",
        _STUDY,
        "the same at Xception's own 299 px, Adam 1e-3",
        replace(_XCEPTION, optimiser="adam", learning_rate=1e-3, steps=40),
        smoke=_SMOKE,
        gpu={**_FULL, "size_px": 299, "warmup_head_steps": 0},
    ),
    study_recipe(
        "xception_ffpp",
        _STUDY,
        "the settings usual on FaceForensics++: Adam 2e-4, weight decay 5e-4, 32 pictures of 256 px, 10 epochs; mirror, blur, JPEG",
        replace(_XCEPTION, optimiser="adam", learning_rate=2e-4, weight_decay=5e-4, rates="constant", degrade="ffpp", steps=40),
        smoke=_SMOKE,
        gpu={"size_px": 256, "batch": 32, "steps": 36_000},
    ),
    study_recipe(
        "xception_legacy_ffpp",
        _STUDY,
        "the older settings on FaceForensics++: Adam 1e-3 halved every quarter, 299 px, 20 epochs, no augmentation",
        replace(_XCEPTION, optimiser="adam", learning_rate=1e-3, rates="halving", augment=0.0, steps=40),
        smoke=_SMOKE,
        gpu={"size_px": 299, "batch": 32, "steps": 72_000},
    ),
)
"""The training split of FaceForensics++ has 3,600 videos; at 32 faces of each and 32 pictures a step an epoch is 3,600 steps."""

RECIPES = {recipe.name: recipe for recipe in _ALL}
