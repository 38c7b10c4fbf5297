"""The AutoGAN autoencoder and the classifier that looks at its reconstructions.

Encoder and decoder after Zhang, Karaman, Chang 2019, "Detecting and Simulating Artifacts in GAN Fake Images" (ResNet
generator of Johnson et al. 2016 with instance norm). The autoencoder is trained adversarially on real faces; the
classifier sees what it makes of a crop.
"""

from __future__ import annotations

from typing import Final, Literal, cast

import torch
from torch import Tensor, nn

from ..errors import BundleMismatchError

Upsampler = Literal["nearest", "bilinear", "transposed", "transposed_k4", "pixelshuffle"]
UPSAMPLERS: Final[tuple[Upsampler, ...]] = ("nearest", "bilinear", "transposed", "transposed_k4", "pixelshuffle")


def _upsample(in_channels: int, out_channels: int, upsampler: Upsampler) -> nn.Sequential:
    """Layers that double H and W and end before the norm."""
    if upsampler in ("nearest", "bilinear"):
        scale = nn.Upsample(scale_factor=2, mode=upsampler, align_corners=False if upsampler == "bilinear" else None)
        return nn.Sequential(scale, nn.Conv2d(in_channels, out_channels, 3, padding=1))
    if upsampler == "transposed":
        return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 3, 2, padding=1, output_padding=1))
    if upsampler == "transposed_k4":
        return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 4, 2, padding=1))
    if upsampler == "pixelshuffle":
        return nn.Sequential(nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1), nn.PixelShuffle(2))
    raise BundleMismatchError(f"unknown upsampler {upsampler!r}; known: {', '.join(UPSAMPLERS)}")


class ResidualBlock(nn.Module):
    """x + [ReflectPad, Conv3, IN, ReLU, ReflectPad, Conv3, IN]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", x_BCHW + self.body(x_BCHW))


class Encoder(nn.Module):
    """(B, 3, S, S) in -1..1 to (B, 4 ngf, S/4, S/4); S a multiple of 4.

    Args:
        num_blocks: residual blocks N ("1-layer" and "4-layer" of the study are N = 1 and 4; the paper uses 9).
        ngf: channels of the stem; the study uses 64.
    """

    def __init__(self, num_blocks: int = 1, ngf: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), nn.InstanceNorm2d(ngf), nn.ReLU()]
        for channels in (ngf, 2 * ngf):
            layers += [nn.Conv2d(channels, 2 * channels, 3, 2, padding=1), nn.InstanceNorm2d(2 * channels), nn.ReLU()]
        layers += [ResidualBlock(4 * ngf) for _ in range(num_blocks)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.layers(x_BCHW))


class Decoder(nn.Module):
    """(B, 4 ngf, S/4, S/4) to an image (B, 3, S, S) in -1..1."""

    def __init__(self, upsampler: Upsampler = "nearest", ngf: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (4 * ngf, 2 * ngf):
            layers += [_upsample(channels, channels // 2, upsampler), nn.InstanceNorm2d(channels // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh())

    def forward(self, latent_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.layers(latent_BCHW))


class AutoGan(nn.Module):
    """The whole autoencoder, (B, 3, S, S) in -1..1 to the same shape and range."""

    def __init__(self, num_blocks: int = 1, ngf: int = 64, upsampler: Upsampler = "nearest") -> None:
        super().__init__()
        self.encoder = Encoder(num_blocks, ngf)
        self.decoder = Decoder(upsampler, ngf)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.decoder(self.encoder(x_BCHW)))


class PatchDiscriminator(nn.Module):
    """PatchGAN of the study: (B, 3, 64, 64) to a 4x4 map of realness (B, 1, S/16, S/16), no activation at the end."""

    def __init__(self, ndf: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, padding=1), nn.LeakyReLU(0.2)]
        for channels in (ndf, 2 * ndf, 4 * ndf):
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, padding=1), nn.InstanceNorm2d(2 * channels), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(8 * ndf, 1, 4, padding=1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.layers(x_BCHW))


class AutoGanClassifier(nn.Module):
    """Reconstruct the crop with the frozen autoencoder, then classify. `x_BCHW` (B, 3, S, S) in -1..1 to logits (B,).

    The small classifier is a plain stack of Conv-BN-ReLU with stride 2 and global pooling. It sees the reconstruction
    and, when `with_residual` is set, also what the autoencoder lost (`x - reconstruction`).

    Args:
        num_blocks: residual blocks of the autoencoder.
        ngf: channels of the autoencoder's stem.
        upsampler: of the autoencoder's decoder.
        widths: channels of the classifier's stages, each halves H and W.
        with_residual: six input channels in place of three.
    """

    def __init__(
        self,
        num_blocks: int = 1,
        ngf: int = 16,
        upsampler: Upsampler = "nearest",
        widths: tuple[int, ...] = (32, 64, 96, 128),
        with_residual: bool = True,
    ) -> None:
        super().__init__()
        self.autogan = AutoGan(num_blocks, ngf, upsampler).requires_grad_(False)
        self.with_residual = with_residual
        layers: list[nn.Module] = []
        channels = 6 if with_residual else 3
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1)

    def reconstruct(self, x_BCHW: Tensor) -> Tensor:
        """The autoencoder's output, never with a gradient."""
        with torch.no_grad():
            return cast("Tensor", self.autogan(x_BCHW))

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector (B, widths[-1])."""
        seen = self.reconstruct(x_BCHW)
        if self.with_residual:
            seen = torch.cat([seen, x_BCHW - seen], dim=1)
        return cast("Tensor", self.stages(seen).mean(dim=(2, 3)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))
