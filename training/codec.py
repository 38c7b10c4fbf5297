"""Simulated compression in batched torch: JPEG with true rounding and 4:2:0, and an H.264-like intra approximation.

JPEG after ITU-T T.81 (tables of annex K, the quality scaling of libjpeg). The H.264-like mode quantises the same
blocks with one flat step `0.625 * 2^(QP/6)` (ITU-T H.264 8.5.9) and a dead zone, then smooths block borders as the
deblocking filter does. It imitates the traces of video coding, not the bit stream.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as fn
from torch import Generator, Tensor

from .geometry import chance, uniform

_LUMA = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
_CHROMA = torch.full((8, 8), 99.0)
_CHROMA[:4, :4] = torch.tensor([[17.0, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])

_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TO_RGB = torch.linalg.inv(_TO_YCC)


def _dct_matrix() -> Tensor:
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    matrix = torch.cos(math.pi * (2 * n + 1) * k / 16) * 0.5
    matrix[0] *= 0.5**0.5
    return matrix


_DCT = _dct_matrix()


def jpeg_tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    """Luma and chroma tables (B, 8, 8) of libjpeg for qualities (B,) in 1..100."""
    scale = torch.where(quality < 50, 5000 / quality.clamp_min(1), 200 - 2 * quality)[:, None, None]
    return tuple(
        ((table[None] * scale + 50) / 100).floor().clamp(1, 255) for table in (_LUMA.to(quality.device), _CHROMA.to(quality.device))
    )  # type: ignore[return-value]


def simulate_jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """JPEG round trip of images (B, 3, H, W) in 0..1 with one quality (B,) each."""
    luma, chroma = jpeg_tables(quality)
    return _round_trip(images, luma, chroma, dead_zone=0.5, deblock=None)


def simulate_h264(images: Tensor, qp: Tensor) -> Tensor:
    """H.264-like intra traces for quantisation parameters (B,), useful range 18..44."""
    step = (0.625 * 2 ** (qp / 6))[:, None, None].expand(-1, 8, 8).clone()
    step[:, 0, 0] *= 0.5  # prediction leaves little to quantise in the lowest frequency
    return _round_trip(images, step, step * 1.2, dead_zone=1 / 3, deblock=qp)


def random_codec(images: Tensor, *, generator: Generator, jpeg_share: float = 0.45, severity: float = 1.0) -> Tensor:
    """One compression per image: JPEG 35-95 or H.264-like QP 18-42, on a block grid at a random offset.

    The first and the second half of the batch get the same draws: pairs stay pairs.
    """
    half = len(images) // 2
    is_jpeg = chance(half, jpeg_share, generator).repeat(2)
    quality = (95 - uniform((half,), 0, 60, generator) * severity).repeat(2)
    qp = (18 + uniform((half,), 0, 24, generator) * severity).repeat(2)
    dy, dx = (int(v) for v in torch.randint(8, (2,), generator=generator))
    padded = fn.pad(images, (8 - dx, dx, 8 - dy, dy), mode="replicate")
    out = torch.empty_like(padded)
    if bool(is_jpeg.any()):
        out[is_jpeg] = simulate_jpeg(padded[is_jpeg], quality[is_jpeg])
    if bool((~is_jpeg).any()):
        out[~is_jpeg] = simulate_h264(padded[~is_jpeg], qp[~is_jpeg])
    height, width = images.shape[-2:]
    return out[:, :, 8 - dy : 8 - dy + height, 8 - dx : 8 - dx + width]


def _round_trip(images: Tensor, luma: Tensor, chroma: Tensor, *, dead_zone: float, deblock: Tensor | None) -> Tensor:
    height, width = images.shape[-2:]
    padded = fn.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = torch.einsum("ij,bjhw->bihw", _TO_YCC.to(images.device), padded * 255)
    y = _quantise(ycc[:, :1] - 128, luma, dead_zone)
    colour = _quantise(fn.avg_pool2d(ycc[:, 1:], 2), chroma, dead_zone)
    if deblock is not None:
        y = _smooth_borders(y, deblock)
    colour = fn.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    rgb = torch.einsum("ij,bjhw->bihw", _TO_RGB.to(images.device), torch.cat([y + 128, colour], 1))
    return rgb[:, :, :height, :width].round().clamp(0, 255) / 255


def _quantise(planes: Tensor, tables: Tensor, dead_zone: float) -> Tensor:
    batch, channels, height, width = planes.shape
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    dct = _DCT.to(planes.device)
    coefficients = dct @ blocks @ dct.T
    table = tables[:, None, None, None]
    levels = torch.sign(coefficients) * (coefficients.abs() / table + dead_zone).floor()
    restored = dct.T @ (levels * table) @ dct
    return restored.transpose(3, 4).reshape(batch, channels, height, width)


def _smooth_borders(y: Tensor, qp: Tensor) -> Tensor:
    """Weak low-pass on the two pixels at each side of a block border where the step is small enough to be an artefact."""
    smooth = fn.avg_pool2d(fn.pad(y, (1, 1, 1, 1), mode="replicate"), 3, 1)
    near = torch.isin(torch.arange(y.shape[-1]) % 8, torch.tensor([0, 1, 6, 7]))
    near_rows = torch.isin(torch.arange(y.shape[-2]) % 8, torch.tensor([0, 1, 6, 7]))
    at_border = near[None, :] | near_rows[:, None]
    limit = (0.5 * 2 ** (qp / 7))[:, None, None, None]
    change = smooth - y
    return y + 0.75 * change * (at_border & (change.abs() < limit))
