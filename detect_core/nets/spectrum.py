"""Log-spectrum classifier of Zhang, Karaman, Chang 2019: upsampling leaves copies of the spectrum."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

Band = Literal["all", "low", "mid", "high"]


class LogSpectrum(nn.Module):
    """Images (B, C, S, S) in -1..1 to their scaled log spectra of the same shape, each channel clipped to -1..1.

    The 5th and 95th percentile of every channel map to -1 and 1; a flat channel gives zeros, never NaN.

    Args:
        band: keep this part alone, about the zero frequency: `low` the middle 120 of 224 bins, `mid` the middle 182
            without those, `high` what is left; the rest becomes zero, the middle of the scale.
    """

    def __init__(self, band: Band = "all") -> None:
        super().__init__()
        self.band = band

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pixels = (x_BCHW.float() + 1) / 2
        spectrum = torch.log(torch.fft.fft2(pixels).abs() + 1e-3)
        flat = spectrum.flatten(2)
        low = torch.quantile(flat, 0.05, dim=2, keepdim=True)
        high = torch.quantile(flat, 0.95, dim=2, keepdim=True)
        spread = high - low
        scaled = torch.where(spread < 1e-6, torch.zeros_like(flat), 2 * ((flat - low) / spread.clamp_min(1e-6) - 0.5))
        scaled = scaled.clamp(-1, 1).reshape(spectrum.shape)
        return scaled if self.band == "all" else scaled * _band(self.band, *spectrum.shape[-2:], device=scaled.device)


def _band(band: Band, height: int, width: int, *, device: torch.device) -> Tensor:
    """1 where a bin of the unshifted spectrum (height, width) belongs to the band, else 0."""

    def middle(low: int, high: int) -> Tensor:
        rows, columns = (
            (torch.arange(n, device=device) >= n * low // 224) & (torch.arange(n, device=device) < n * high // 224) for n in (height, width)
        )
        return rows[:, None] & columns[None]

    inner, outer = middle(57, 177), middle(21, 203)
    kept = {"low": inner, "mid": outer & ~inner, "high": ~outer}[band]
    return cast("Tensor", torch.fft.ifftshift(kept)).float()


class SpectrumResNet(nn.Module):
    """`x_BCHW` float (B, 3, S, S) in -1..1 to logits (B,). 11,177,025 (depth 18) or 21,285,185 (34) parameters.

    Args:
        depth: of the ResNet behind the spectrum.
        pixels: skip the spectrum, the baseline of the paper.
        band: of the spectrum, as in `LogSpectrum`.
    """

    def __init__(self, depth: Literal[18, 34] = 18, pixels: bool = False, band: Band = "all") -> None:
        super().__init__()
        from torchvision.models import resnet18, resnet34

        self.front: nn.Module = nn.Identity() if pixels else LogSpectrum(band)
        backbone = {18: resnet18, 34: resnet34}[depth](weights=None)
        backbone.fc = nn.Identity()
        self.backbone = backbone
        self.head = nn.Linear(512, 1)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, 512)."""
        return cast("Tensor", self.backbone(self.front(x_BCHW)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))
