"""CNN comparison study: two large nets, the custom ones and the SVM on their embeddings, on the same crops."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..recipe import Recipe
from ..study_data import ClassifySettings
from .presets import study_recipe

_STUDY: Final = "CNN comparison study"
_CNN: Final = ClassifySettings(size_px=128, value_range="unit", steps=500, augment=0.3, svm=True)


def _of(
    name: str, summary: str, smoke_px: int, gpu_steps: int, smoke_batch: int = 8, smoke_options: str = "{}", **changes: object
) -> Recipe:
    cpu = replace(_CNN, **{"net": name, **changes})  # type: ignore[arg-type]
    return study_recipe(
        name,
        _STUDY,
        summary,
        cpu,
        smoke={"size_px": smoke_px, "batch": smoke_batch, "net_options": smoke_options},
        gpu={"steps": gpu_steps, "size_px": 224},
    )


_ALL: Final = (
    _of(
        "vggface16",
        "VGG-16 topology with a 2048-wide embedding, from scratch unless weights are given",
        32,
        8000,
        4,
        '{"hidden": 64}',
        size_px=96,
        steps=60,
        batch=16,
        learning_rate=2e-4,
    ),
    _of("densenet121", "DenseNet-121 from scratch", 32, 15_000, 4, size_px=96, steps=120, batch=16),
    _of("cnn5", "five-block custom CNN", 32, 25_000),
    _of("cnn5_slow", "the same at a learning rate of 1e-4, the study's second run of it", 32, 12_500, net="cnn5", learning_rate=1e-4),
    _of("cnn6", "six-block custom CNN", 64, 6250, learning_rate=1e-4),
    study_recipe(
        "meso4",
        _STUDY,
        "Meso4, the third custom net and the yardstick",
        replace(_CNN, net="meso4", net_options='{"size_px": 128}'),
        smoke={"size_px": 128},
        gpu={"steps": 20_000},
    ),
    study_recipe(
        "mesoinception4",
        _STUDY,
        "MesoInception4, its inception twin",
        replace(_CNN, net="mesoinception4", net_options='{"size_px": 128}'),
        smoke={"size_px": 128, "batch": 4},
        gpu={"steps": 20_000},
    ),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
