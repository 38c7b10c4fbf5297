"""Every experiment by name. One file each; a recipe's module loads when it is asked for."""

from __future__ import annotations

import importlib
from typing import Final

from ..errors import ConfigError
from ..recipe import Recipe

RECIPES: Final[dict[str, str]] = {
    "blend": "blend",
    "autogan_reconstruct": "autogan_reconstruct",
    "autogan_classifier": "autogan_classifier",
    "autogan_alexnet_raw": "studies",
    "autogan_alexnet_reconstruction": "studies",
    "autogan_spectrum": "studies",
    "dcgan_classifier": "dcgan_classifier",
    "dcgan_baseline": "dcgan",
    "dcgan_lr2e4": "dcgan",
    "dcgan_lr3e4": "dcgan",
    "dcgan_64": "dcgan",
    "vggface16": "studies",
    "densenet121": "studies",
    "cnn5": "studies",
    "cnn6": "studies",
    "meso4": "studies",
    "cnn_baseline": "studies",
    "cnn_baseline_fixed": "studies",
    "xception_transfer": "studies",
    "synthesis": "synthesis",
    "synthesis_npr": "studies",
}
"""Recipe name -> module in this package; the module has `RECIPES: dict[str, Recipe]`."""


def get_recipe(name: str) -> Recipe:
    """Load one recipe.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; `veriframe-train list` shows {', '.join(RECIPES)}")
    module = importlib.import_module(f"{__name__}.{RECIPES[name]}")
    recipe: Recipe = module.RECIPES[name]
    return recipe
