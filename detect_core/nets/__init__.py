"""Network architectures, one per file: pure torch, no weights, no preprocessing, no sigmoid.

Every net maps `x_BCHW` (float, RGB, normalised as its bundle says) to one logit per image, shape (B,); `linear_statistics`
takes measured statistics `x_BF` instead of pixels.
`embed(x)` gives the last hidden vector and `forward(x) == head(embed(x))`.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, cast

from torch import nn

from ..errors import BundleMismatchError

NETS: Final[dict[str, tuple[str, str]]] = {
    "minixception": ("minixception", "MiniXception"),
    "blend_resnet": ("blend_resnet", "BlendResNet"),
    "autogan_classifier": ("autogan", "AutoGanClassifier"),
    "xception": ("xception", "Xception"),
    "efficientnet_b4": ("efficientnet", "EfficientNetB4"),
    "efficientnet_lite0": ("efficientnet_lite", "EfficientNetLite0"),
    "npr": ("npr", "NprResNet"),
    "spectrum": ("spectrum", "SpectrumResNet"),
    "alexnet64": ("alexnet", "AlexNet64"),
    "alexnet224": ("alexnet", "AlexNet224"),
    "dcgan64": ("dcgan", "Discriminator64"),
    "dcgan32": ("dcgan", "Discriminator32"),
    "vggface16": ("large_cnn", "VggFace16"),
    "densenet121": ("large_cnn", "DenseNet121"),
    "cnn5": ("small_cnn", "Cnn5"),
    "cnn6": ("small_cnn", "Cnn6"),
    "cnn_s0": ("small_cnn", "CnnS0"),
    "cnn_s4": ("small_cnn", "CnnS4"),
    "meso4": ("small_cnn", "Meso4"),
    "embedding_svm": ("embedding_svm", "EmbeddingSvm"),
    "mesoinception4": ("small_cnn", "MesoInception4"),
    "linear_statistics": ("linear_statistics", "LinearStatistics"),
}
"""Net name -> (module, class). Modules load on first use: one heavy dependency must not slow every start."""


def build_net(name: str, **options: Any) -> nn.Module:
    """Construct a net by name.

    Raises:
        BundleMismatchError: the name is unknown or the options do not fit the net.
    """
    if name not in NETS:
        raise BundleMismatchError(f"unknown net {name!r}; known: {', '.join(sorted(NETS))}")
    module_name, class_name = NETS[name]
    net_class = getattr(importlib.import_module(f"{__name__}.{module_name}"), class_name)
    try:
        return cast("nn.Module", net_class(**options))
    except TypeError as err:
        raise BundleMismatchError(f"net {name!r} does not take {options}: {err}") from err
