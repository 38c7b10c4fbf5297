"""A detector that is one net over one crop: normalise, run, divide by the temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..bundle import Bundle, load_net
from ..errors import BundleMismatchError, DetectorError


class CropNetDetector:
    """Scores crops with the net of a bundle, channels last, on one device."""

    def __init__(self, bundle: Bundle, *, device: str = "cpu") -> None:
        """Load the bundle's net.

        Raises:
            BundleError: the weights are missing, changed or do not fit.
        """
        self.bundle = bundle
        self._device = torch.device(device)
        self._net: nn.Module = load_net(bundle).to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = torch.tensor(bundle.crop.mean, device=self._device).view(1, 3, 1, 1) * 255.0
        self._scale = 1.0 / (torch.tensor(bundle.crop.std, device=self._device).view(1, 3, 1, 1) * 255.0)

    @property
    def net(self) -> nn.Module:
        """The net itself, for heat-maps."""
        return self._net

    def prepare(self, crops: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Crops as the net wants them, (N, 3, S, S) float."""
        x_BHWC = torch.from_numpy(np.stack(crops)).to(self._device)
        # a permuted NHWC tensor is channels-last already: no copy
        return (x_BHWC.permute(0, 3, 1, 2).to(torch.float32) - self._mean) * self._scale

    def logits(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        size = self.bundle.crop.size_px
        if any(crop.shape != (size, size, 3) for crop in crops):
            shapes = {crop.shape for crop in crops}
            raise BundleMismatchError(
                f"{self.bundle.name} was given crops of shape {shapes}, expected ({size}, {size}, 3); cut them by its crop specification"
            )
        with torch.inference_mode():
            logits_B = self._net(self.prepare(crops)).float() / self.bundle.temperature
        values = logits_B.cpu().numpy()
        if values.shape != (len(crops),) or not np.isfinite(values).all():
            raise DetectorError(
                f"{self.bundle.name} gave {values.shape} logits with non-finite values for {len(crops)} crops; the bundle is not usable"
            )
        return np.asarray(values, np.float32)
