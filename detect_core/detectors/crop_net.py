"""A detector that is one net over one crop: normalise, run, divide by the temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..bundle import Bundle, load_net
from ..errors import BundleMismatchError, DetectorError
from .runtime import Precision, PrecisionWish, choose_runtime, without_tf32
from .transfer import Uploader

_NUM_PROBES: Final = 4
_BATCH_STEP: Final = 4
"""Batches are filled up to a multiple of this: matrix kernels treat the odd rest of a batch another way, and a crop's last digits would
depend on its company. Filled up, a crop scores the same bits alone and among others (measured, fp32 and bf16)."""


class CropNetDetector:
    """Scores crops with the net of a bundle, channels last, on one device."""

    def __init__(self, bundle: Bundle, *, device: str = "cpu", precision: PrecisionWish = "fp32", compiled: bool = False) -> None:
        """Load the bundle's net.

        Args:
            bundle: a verified bundle.
            device: torch device.
            precision: `auto` takes bf16 where the device is fast at it and the probe's scores hold.
            compiled: let TorchInductor compile the net.

        Raises:
            BundleError: the weights are missing, changed or do not fit.
        """
        self.bundle = bundle
        self._device = torch.device(device)
        without_tf32(self._device)  # before the probe: its fp32 is what other ways are held against
        self._upload = Uploader(self._device)
        self._mean = torch.tensor(bundle.crop.mean, device=self._device).view(1, 3, 1, 1) * 255.0
        self._scale = 1.0 / (torch.tensor(bundle.crop.std, device=self._device).view(1, 3, 1, 1) * 255.0)
        net = self._load()
        probe = self.prepare(list(_probe_crops(bundle.crop.size_px)))
        self._runtime = choose_runtime(net, probe, wish=precision, temperature=bundle.temperature, compiled=compiled)
        self._net: nn.Module | None = net if self._runtime.engine == "eager" else None

    @property
    def precision(self) -> Precision:
        """The precision it scores in."""
        return self._runtime.precision

    @property
    def engine(self) -> str:
        """What runs the net."""
        return self._runtime.engine

    @property
    def net(self) -> nn.Module:
        """The plain net, for heat-maps; read again where the one that scores was rewritten."""
        if self._net is None:
            self._net = self._load()
        return self._net

    def _load(self) -> nn.Module:
        net: nn.Module = load_net(self.bundle).to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net

    def prepare(self, crops: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Crops as the net wants them, (N, 3, S, S) float."""
        x_BHWC = self._upload(np.stack(crops))
        # a permuted NHWC tensor is channels-last already: no copy
        return (x_BHWC.permute(0, 3, 1, 2).to(torch.float32) - self._mean) * self._scale

    def logits(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        size = self.bundle.crop.size_px
        if any(crop.shape != (size, size, 3) for crop in crops):
            shapes = {crop.shape for crop in crops}
            raise BundleMismatchError(
                f"{self.bundle.name} was given crops of shape {shapes}, expected ({size}, {size}, 3); cut them by its crop specification"
            )
        padding = [crops[-1]] * (-len(crops) % _BATCH_STEP) if crops else []
        with torch.inference_mode():
            logits_B = self._runtime.run(self.prepare([*crops, *padding])) / self.bundle.temperature
        values = logits_B.cpu().numpy()[: len(crops)]
        if values.shape != (len(crops),) or not np.isfinite(values).all():
            kind = "non-finite logits" if values.shape == (len(crops),) else f"logits of shape {values.shape}"
            raise DetectorError(f"{self.bundle.name} gave {kind} for {len(crops)} crops, expected one number each; use another bundle")
        return np.asarray(values, np.float32)


def _probe_crops(size_px: int) -> NDArray[np.uint8]:
    """(N, S, S, 3) made-up pictures, always the same: smooth shapes under more and more noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32) / size_px
    pictures = []
    for i in range(_NUM_PROBES):
        waves = [127 + 90 * np.sin(6 * x * (i + 1) + phase) * np.cos(5 * y + phase) for phase in (0.0, 0.7, 1.9)]
        pictures.append(np.stack(waves, axis=2) + rng.normal(0, 6 * i, (size_px, size_px, 3)))
    return np.clip(np.stack(pictures), 0, 255).astype(np.uint8)
