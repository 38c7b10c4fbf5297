"""Every experiment by name. One file each; a recipe's module loads when it is asked for."""

from __future__ import annotations

import importlib
from typing import Final

from ..errors import ConfigError
from ..recipe import Recipe

RECIPES: Final[dict[str, str]] = {
    "blend": "blend",
    "autogan_reconstruct": "autogan_reconstruct",
    "autogan_reconstruct_n4": "autogan_reconstruct",
    "autogan_reconstruct_transposed": "autogan_reconstruct",
    "autogan_reconstruct_transposed_k4": "autogan_reconstruct",
    "autogan_reconstruct_n9": "autogan_reconstruct",
    "autogan_reconstruct_pixelshuffle": "autogan_reconstruct",
    "autogan_reconstruct_bilinear": "autogan_reconstruct",
    "autogan_classifier": "autogan_classifier",
    "autogan_alexnet_raw": "autogan_study",
    "autogan_alexnet_reconstruction": "autogan_study",
    "autogan_alexnet_reconstruction_n4": "autogan_study",
    "autogan_alexnet224": "autogan_study",
    "autogan_cnn_raw": "autogan_study",
    "autogan_cnn_reconstruction": "autogan_study",
    "autogan_cnn_reconstruction_n4": "autogan_study",
    "autogan_cnn_legacy": "autogan_study",
    "autogan_spectrum": "autogan_study",
    "autogan_spectrum_pixels": "autogan_study",
    "autogan_spectrum_nearest": "autogan_study",
    "autogan_spectrum34": "autogan_study",
    "autogan_spectrum_low": "autogan_study",
    "autogan_spectrum_mid": "autogan_study",
    "autogan_spectrum_high": "autogan_study",
    "dcgan_classifier": "dcgan_classifier",
    "dcgan_classifier_legacy": "dcgan_classifier",
    "dcgan_baseline": "dcgan",
    "dcgan_lr2e4": "dcgan",
    "dcgan_lr3e4": "dcgan",
    "dcgan_64": "dcgan",
    "dcgan_64_lr3e4": "dcgan",
    "dcgan_comparison": "dcgan_comparison",
    "face_swap_gan": "face_swap_gan",
    "face_swap_gan_lite": "face_swap_gan",
    "vggface16": "cnn_comparison",
    "densenet121": "cnn_comparison",
    "cnn5": "cnn_comparison",
    "cnn5_slow": "cnn_comparison",
    "cnn6": "cnn_comparison",
    "meso4": "cnn_comparison",
    "mesoinception4": "cnn_comparison",
    "cnn_baseline": "xception_study",
    "cnn_baseline_nadam": "xception_study",
    "cnn_baseline_sgd": "xception_study",
    "cnn_baseline_fixed": "xception_study",
    "xception_transfer": "xception_study",
    "xception_frozen": "xception_study",
    "xception_299": "xception_study",
    "xception_ffpp": "xception_study",
    "xception_legacy_ffpp": "xception_study",
    "sbi": "sbi",
    "sbi_efficientnet_b4": "sbi",
    "xception_ablation": "xception_search",
    "xception_search": "xception_search",
    "cross_generator": "cross_generator",
    "synthesis": "synthesis",
    "temporal": "temporal",
    "synthesis_npr": "npr",
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
