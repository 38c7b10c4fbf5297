"""Whether a swapped face looks like the person that it was swapped to, by a face-recognition net that the user brings.

Cosine distances between unit embeddings of 160 px faces: Schroff et al. 2015, "FaceNet", with the Inception-ResNet-v1 of
the facenet-pytorch wheel. Its weights are not in the wheel and are never downloaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as fn
from torch import Tensor

from .face_pack import FacePack
from .geometry import view
from .import_checkpoint import fill, read_tensors
from .simulators.base import Fakes

_SIDE_PX: Final = 160
_MARGIN: Final = 1.3
_MOST: Final = 200
"""Faces of a person that make up their mean."""

Embed = Callable[[Tensor], Tensor]
"""(B, 3, S, S) in 0..1 to unit vectors (B, D)."""


def load_recogniser(weights: Path) -> Embed:
    """The recognition net with weights from a file; a classification head in it is left out.

    Raises:
        CheckpointError: the file cannot be read or does not fit.
    """
    from facenet_pytorch import InceptionResnetV1

    net = InceptionResnetV1(pretrained=None, classify=False).eval().requires_grad_(False)
    fill(net, {name: value for name, value in read_tensors(weights).items() if not name.startswith("logits.")}, name=weights.name)

    def embed(images: Tensor) -> Tensor:
        fitted = fn.interpolate(images, size=(_SIDE_PX, _SIDE_PX), mode="bilinear", antialias=True)
        with torch.inference_mode():
            return fn.normalize(net((255 * fitted - 127.5) / 128))

    return embed


def identity_distances(embed: Embed, people: tuple[FacePack, FacePack], kept: Sequence[Fakes]) -> dict[str, float]:
    """Mean cosine distances (0 to 2) of swapped faces to the person they became, of the same faces before, and between both people.

    A swap that carries identity brings the first well below the second.

    Args:
        embed: of a recogniser.
        people: faces of identity A and of identity B.
        kept: at least one batch of `FaceSwap`.
    """
    means = [fn.normalize(_embedded(embed, pack).mean(0), dim=0) for pack in people]
    after, before = [], []
    for fakes in kept:
        target = means[fakes.recipe["to"]]
        after.append(1 - embed(fakes.images) @ target)
        before.append(1 - embed(fakes.reals) @ target)
    return {
        "identity_distance_swapped": round(float(torch.cat(after).mean()), 4),
        "identity_distance_before": round(float(torch.cat(before).mean()), 4),
        "identity_distance_people": round(float(1 - means[0] @ means[1]), 4),
    }


def _embedded(embed: Embed, pack: FacePack) -> Tensor:
    rows = torch.arange(0, len(pack), max(1, len(pack) // _MOST))[:_MOST]
    return torch.cat([embed(view(pack, part, size_px=_SIDE_PX, margin=_MARGIN)[0]) for part in torch.split(rows, 16)])
