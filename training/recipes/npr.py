"""Expert B's small net alone: the upsampling residual on reals against AutoGAN reconstructions."""

from __future__ import annotations

from typing import Final

from ..study_data import ClassifySettings
from .presets import study_recipe

_CPU: Final = ClassifySettings(
    net="npr", net_options='{"width": 32}', size_px=96, fakes="reconstruction", steps=500, learning_rate=2e-4, augment=0.3
)

RECIPES = {
    "synthesis_npr": study_recipe(
        "synthesis_npr",
        "our experts",
        "upsampling residual at small crops, real faces against AutoGAN reconstructions",
        _CPU,
        smoke={"size_px": 48},
        gpu={"steps": 6000},
    )
}
