"""AutoGAN study: the same classifier on raw pictures and on reconstructions, and the log-spectrum net of Zhang et al. 2019."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..recipe import Recipe
from ..study_data import ClassifySettings
from .presets import study_recipe

_STUDY: Final = "AutoGAN study"
_ALEXNET: Final = ClassifySettings(net="alexnet64", steps=400, learning_rate=1e-4, augment=0.0)
_CNN: Final = ClassifySettings(net="cnn_s0", steps=800, batch=50, optimiser="sgd", learning_rate=0.1, weight_decay=5e-4, augment=0.0)
_SPECTRUM: Final = ClassifySettings(
    net="spectrum", size_px=128, fakes="reconstruction", upsampler="transposed", steps=250, optimiser="sgd", learning_rate=0.01, augment=0.2
)


def _pair(name: str, what: str, raw: ClassifySettings, gpu_steps: int) -> list[Recipe]:
    """Raw, and through an autoencoder with one and with four residual blocks: what the study compares."""
    passed = replace(raw, through_autogan=True)
    gpu = {"steps": gpu_steps}
    return [
        study_recipe(f"{name}_raw", _STUDY, f"{what}, real against generated faces as they are", raw, smoke={}, gpu=gpu),
        study_recipe(f"{name}_reconstruction", _STUDY, "the same with both classes passed through the AutoGAN", passed, smoke={}, gpu=gpu),
        study_recipe(
            f"{name}_reconstruction_n4",
            _STUDY,
            "the same with four residual blocks, the study's larger AutoGAN",
            replace(passed, num_blocks=4),
            smoke={},
            gpu=gpu,
        ),
    ]


_ALL: Final = (
    *_pair("autogan_alexnet", "AlexNet", _ALEXNET, 10_000),
    *_pair("autogan_cnn", "the study's two-layer CNN", _CNN, 20_000),
    study_recipe(
        "autogan_cnn_legacy",
        _STUDY,
        "the study's CNN with its defect: one batch norm behind both convolutions, two outputs",
        replace(_CNN, net_options='{"outputs": 2, "legacy_shared_bn": true}'),
        smoke={},
        gpu={"steps": 20_000},
    ),
    study_recipe(
        "autogan_alexnet224",
        _STUDY,
        "AlexNet in its own layout at 224 px, raw pictures",
        replace(_ALEXNET, net="alexnet224", size_px=224, steps=120, batch=16),
        smoke={"size_px": 64, "batch": 4},
        gpu={"steps": 10_000},
    ),
    study_recipe(
        "autogan_spectrum",
        _STUDY,
        "log-FFT ResNet-18 against AutoGAN reconstructions",
        _SPECTRUM,
        smoke={"size_px": 32},
        gpu={"steps": 8000},
    ),
    study_recipe(
        "autogan_spectrum_pixels",
        _STUDY,
        "its baseline: the same net on pixels",
        replace(_SPECTRUM, net_options='{"pixels": true}'),
        smoke={"size_px": 32},
        gpu={"steps": 8000},
    ),
    study_recipe(
        "autogan_spectrum_nearest",
        _STUDY,
        "the same against reconstructions with nearest-neighbour upsampling",
        replace(_SPECTRUM, upsampler="nearest"),
        smoke={"size_px": 32},
        gpu={"steps": 8000},
    ),
    study_recipe(
        "autogan_spectrum34",
        _STUDY,
        "ResNet-34 as published",
        replace(_SPECTRUM, net_options='{"depth": 34}', steps=120, batch=16),
        smoke={"size_px": 32, "batch": 4},
        gpu={"steps": 8000, "size_px": 224},
    ),
    *(
        study_recipe(
            f"autogan_spectrum_{band}",
            _STUDY,
            f"the same on the {band} band of the spectrum alone",
            replace(_SPECTRUM, net_options=f'{{"band": "{band}"}}'),
            smoke={"size_px": 32},
            gpu={"steps": 8000},
        )
        for band in ("low", "mid", "high")
    ),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
