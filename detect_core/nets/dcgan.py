"""DCGAN (Radford et al. 2016) at 64 px and the variant of the DCGAN study at 32 px; discriminators double as classifiers."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn


class Generator64(nn.Module):
    """Noise (B, nz) to images (B, 3, 64, 64) in -1..1. 3,576,704 parameters at the published widths."""

    def __init__(self, nz: int = 100, ngf: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(nz, 8 * ngf, 4, 1, bias=False), nn.BatchNorm2d(8 * ngf), nn.ReLU()]
        for channels in (8 * ngf, 4 * ngf, 2 * ngf):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 4, 2, padding=1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(ngf, 3, 4, 2, padding=1, bias=False), nn.Tanh())
        _normal_init(self)

    def forward(self, z_BN: Tensor) -> Tensor:
        return cast("Tensor", self.layers(z_BN[:, :, None, None]))


class Discriminator64(nn.Module):
    """`x_BCHW` float (B, 3, 64, 64) to logits (B,).

    Args:
        ndf: channels of the first layer.
        outputs: 1, or 2 as the AutoGAN study had; the second minus the first is the logit then.
        first_norm: batch norm after the first convolution, as the AutoGAN study had.
        legacy_softmax_sigmoid: the AutoGAN study's head, for study only: two outputs, each through a sigmoid before the
            cross-entropy. The logit then lies in -1..1, and no training brings the loss below ln(1 + 1/e) = 0.313.
    """

    def __init__(self, ndf: int = 64, outputs: Literal[1, 2] = 1, first_norm: bool = False, legacy_softmax_sigmoid: bool = False) -> None:
        super().__init__()
        self.legacy_softmax_sigmoid = legacy_softmax_sigmoid
        outputs = 2 if legacy_softmax_sigmoid else outputs
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, padding=1, bias=False)]
        if first_norm:
            layers.append(nn.BatchNorm2d(ndf))
        layers.append(nn.LeakyReLU(0.2))
        for channels in (ndf, 2 * ndf, 4 * ndf):
            layers += [
                nn.Conv2d(channels, 2 * channels, 4, 2, padding=1, bias=False),
                nn.BatchNorm2d(2 * channels),
                nn.LeakyReLU(0.2),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(8 * ndf, outputs, 4, bias=False)
        _normal_init(self)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden map, flat (B, 8 ndf * 16)."""
        return cast("Tensor", self.features(x_BCHW).flatten(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.head(self.features(x_BCHW)).flatten(1)
        if self.legacy_softmax_sigmoid:
            out = out.sigmoid()
        return cast("Tensor", out[:, 0] if out.shape[1] == 1 else out[:, 1] - out[:, 0])


class Generator32(nn.Module):
    """Noise (B, nz) to images (B, 3, 32, 32) in -1..1: dense start, then upsampling or transposed convolutions.

    1,050,883 parameters with `nearest`, 1,222,915 with `transposed`.
    """

    def __init__(self, nz: int = 100, upsampler: Literal["nearest", "transposed"] = "nearest", leaky: bool = False) -> None:
        super().__init__()
        activation: type[nn.Module] = nn.LeakyReLU if leaky else nn.ReLU

        def active() -> nn.Module:
            return nn.LeakyReLU(0.2) if activation is nn.LeakyReLU else nn.ReLU()

        self.start = nn.Sequential(nn.Linear(nz, 8 * 8 * 128), active())
        layers: list[nn.Module] = []
        for before, after in ((128, 128), (128, 64)):
            if upsampler == "nearest":
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
            else:
                layers.append(nn.ConvTranspose2d(before, after, 4, 2, padding=1))
            layers += [nn.BatchNorm2d(after), active()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(64, 3, 3, padding=1), nn.Tanh())
        _normal_init(self)

    def forward(self, z_BN: Tensor) -> Tensor:
        return cast("Tensor", self.layers(self.start(z_BN).unflatten(1, (128, 8, 8))))


class Discriminator32(nn.Module):
    """`x_BCHW` float (B, 3, 32, 32) to logits (B,). 393,409 parameters with strides 2-2-2-1, 390,337 with 2-2-2-2."""

    def __init__(self, last_stride: Literal[1, 2] = 1, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in ((32, 2), (64, 2), (128, 2), (256, last_stride)):
            layers.append(nn.Conv2d(channels, width, 3, stride, padding=1))
            if channels != 3:
                layers.append(nn.BatchNorm2d(width))
            layers += [nn.LeakyReLU(0.2), nn.Dropout2d(dropout)]
            channels = width
        self.features = nn.Sequential(*layers, nn.Flatten())
        side = 4 // last_stride
        self.head = nn.Linear(256 * side * side, 1)
        _normal_init(self)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Last hidden vector."""
        return cast("Tensor", self.features(x_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.embed(x_BCHW)).squeeze(1))


def _normal_init(net: nn.Module) -> None:
    """N(0, .02) for convolutions, N(1, .02) for batch norm (Radford et al. 2016)."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
