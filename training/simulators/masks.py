"""A bank of face masks from five landmarks (after the mask idea of Shiohara and Yamasaki 2022, own construction).

Frame of one face: origin between eyes and mouth, x along the eye line; `ex` is the distance of the eyes, `ey` the
distance from eyes to mouth. Masks are drawn at half resolution: their edges are soft anyway.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor

from ..filters import gaussian_blur
from ..geometry import uniform, warp_elastic

SHAPES: Final = ("face", "lower", "eyes", "half", "mouth", "nose")
SHARES: Final = (0.52, 0.13, 0.07, 0.07, 0.15, 0.06)


def face_frame(landmarks: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates u, v (B, side, side) in the face's own frame and its measures ex, ey (B,), all in units of the crop's side."""
    eyes, mouth = landmarks[:, :2].mean(1), landmarks[:, 3:].mean(1)
    origin = 0.45 * eyes + 0.55 * mouth
    along = landmarks[:, 1] - landmarks[:, 0]
    ex = along.norm(dim=1).clamp_min(0.08)
    axis = along / along.norm(dim=1, keepdim=True).clamp_min(1e-4)
    normal = torch.stack([-axis[:, 1], axis[:, 0]], 1)
    ey = ((mouth - eyes) * normal).sum(1).abs().clamp_min(0.08)
    ticks = (torch.arange(side) + 0.5) / side
    dx = ticks[None, None, :] - origin[:, 0, None, None]
    dy = ticks[None, :, None] - origin[:, 1, None, None]
    u = dx * axis[:, 0, None, None] + dy * axis[:, 1, None, None]
    v = dx * normal[:, 0, None, None] + dy * normal[:, 1, None, None]
    return u, v, ex, ey


def draw_masks(landmarks: Tensor, side: int, generator: Generator, *, shape: str | None = None) -> Tensor:
    """Soft masks (B, 1, side, side) with maximum 1.

    Args:
        landmarks: (B, 5, 2) in units of the side.
        side: of the result, even.
        generator: source of randomness.
        shape: one of `SHAPES` for all, or None to draw by `SHARES`.
    """
    batch = len(landmarks)
    if shape is None:
        kinds = torch.multinomial(torch.tensor(SHARES), batch, replacement=True, generator=generator)
    else:
        kinds = torch.full((batch,), SHAPES.index(shape))
    half = side // 2
    u, v, ex, ey = face_frame(landmarks, half)
    hard = _shapes(kinds, u, v, ex, ey, generator)
    hard = warp_elastic(hard[:, None], sigma=uniform((batch,), 0.002, 0.018, generator), cells=5, generator=generator, padding="zeros")
    size = ex.clamp(0.15, 0.5) / 0.3  # a small face wants small blurs
    unit = half / 256 * size
    soft = gaussian_blur(hard, uniform((batch,), 0.8, 3.5, generator) * unit)
    cut = (soft > uniform((batch, 1, 1, 1), 0.5, 0.97, generator) * soft.amax((2, 3), keepdim=True)).float()
    feather = 0.8 * (11.0 ** uniform((batch,), 0, 1, generator))
    soft = gaussian_blur(cut, feather * unit)
    soft = soft / soft.amax((2, 3), keepdim=True).clamp_min(1e-3)
    return fn.interpolate(soft, size=(side, side), mode="bilinear", align_corners=False).clamp(0, 1)


def _shapes(kinds: Tensor, u: Tensor, v: Tensor, ex: Tensor, ey: Tensor, generator: Generator) -> Tensor:
    """Hard masks (B, H, W) of the drawn kinds."""
    batch = len(kinds)

    def draw(low: float, high: float) -> Tensor:
        return uniform((batch,), low, high, generator)[:, None, None]

    ex, ey = ex[:, None, None], ey[:, None, None]
    power = draw(1.8, 3.2)
    wide, up, down = ex * draw(0.75, 1.15), ey * draw(0.8, 1.5), ey * draw(0.75, 1.25)
    face = _superellipse(u, v, wide, torch.where(v < 0, up, down), power)
    cut = ey * draw(-0.15, 0.15)
    side = torch.where(draw(0, 1) < 0.5, u, -u) > ex * draw(-0.1, 0.1)
    mouth = _superellipse(u, v - 0.45 * ey, ex * draw(0.4, 0.75), ey * draw(0.25, 0.55), power)
    nose = _superellipse(u, v + 0.1 * ey, ex * draw(0.25, 0.4), ey * draw(0.3, 0.5), power)
    choices = torch.stack([face, face & (v > cut), face & (v < cut), face & side, mouth, nose], 1)
    return choices[torch.arange(batch), kinds].float()


def _superellipse(u: Tensor, v: Tensor, a: Tensor, b: Tensor, power: Tensor) -> Tensor:
    return (u / a).abs() ** power + (v / b).abs() ** power < 1
