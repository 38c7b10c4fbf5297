"""Where a net looks: Grad-CAM, the blend mask of expert A, the spectrum of a crop. Pure torch and numpy; no files, no faces kept.

Grad-CAM after Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization".
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import BundleMismatchError

PICTURE_PX: Final = 320
"""Side of a rendered picture."""
_OPACITY: Final = 0.65
_JPEG_QUALITY: Final = 88


def grad_cam(net: nn.Module, x_1CHW: Tensor) -> NDArray[np.float32]:
    """What speaks for "fake" in the last map that still has a place in the picture.

    Args:
        net: in eval mode; one logit per image.
        x_1CHW: one normalised crop.

    Returns:
        (h, w) in [0, 1], 1 = speaks loudest; all zeros when nothing speaks for fake.

    Raises:
        BundleMismatchError: the net has no map to look at.
    """
    layer = _last_map(net, x_1CHW)
    kept: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        # a fresh leaf: the gradient stops here, whether or not the parameters want one
        leaf = output.detach().clone().requires_grad_(True)
        kept.append(leaf)
        return leaf

    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logit = net(x_1CHW).float().sum()
            (gradient,) = torch.autograd.grad(logit, kept[-1])
    finally:
        handle.remove()
    weights_1C11 = gradient.mean(dim=(2, 3), keepdim=True)
    cam = torch.relu((weights_1C11 * kept[-1].detach()).sum(dim=1))[0].float()
    peak = float(cam.max())
    return np.asarray((cam / peak if peak > 0 else cam).cpu().numpy(), np.float32)


def _last_map(net: nn.Module, x_1CHW: Tensor) -> nn.Module:
    """The module that runs last among those whose output still has height and width."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found.append(module)

    handles = [module.register_forward_hook(note) for module in net.modules() if module is not net]
    try:
        with torch.no_grad():
            net(x_1CHW)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise BundleMismatchError(f"{type(net).__name__} has no layer with height and width: there is no Grad-CAM for it")
    return found[-1]


def blend_mask(net: nn.Module, x_1CHW: Tensor) -> NDArray[np.float32] | None:
    """Expert A's own opinion where one picture was pasted into another, (h, w) probabilities; None for nets without a mask head."""
    with_mask: Any = getattr(net, "forward_with_mask", None)
    if with_mask is None:
        return None
    with torch.no_grad():
        _logits, mask_1HW = with_mask(x_1CHW)
    return np.asarray(torch.sigmoid(mask_1HW[0].float()).cpu().numpy(), np.float32)


def log_spectrum(crop_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Log magnitude of the grey crop's spectrum, (S, S) in [0, 1], frequency zero in the middle.

    Upsampling in a generator shows as bright points at regular distances; a camera picture fades smoothly.
    """
    grey = cv2.cvtColor(crop_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))  # or the crop's own border draws a cross
    magnitude = np.log(np.abs(np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * window))) + 1e-3)
    low, high = np.quantile(magnitude, (0.05, 0.995))
    return np.asarray(np.clip((magnitude - low) / max(high - low, 1e-6), 0.0, 1.0), np.float32)


def overlay(crop_hwc: NDArray[np.uint8], map_hw: NDArray[np.float32], *, size_px: int = PICTURE_PX) -> NDArray[np.uint8]:
    """The crop with the map laid over it: the louder, the more it covers. RGB (size_px, size_px, 3)."""
    base = cv2.resize(crop_hwc, (size_px, size_px), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    loud = np.asarray(cv2.resize(map_hw, (size_px, size_px), interpolation=cv2.INTER_LINEAR), np.float32)
    opacity = _OPACITY * np.clip(loud, 0.0, 1.0)[..., None]
    return np.asarray(np.clip(base * (1 - opacity) + coloured(loud) * opacity, 0, 255), np.uint8)


def coloured(map_hw: NDArray[np.float32], *, size_px: int | None = None) -> NDArray[np.uint8]:
    """A map as colours that rise in brightness too, so that they can be told apart without colour vision. RGB."""
    levels = np.asarray(np.clip(map_hw, 0.0, 1.0) * 255, np.uint8)
    if size_px is not None:
        levels = cv2.resize(levels, (size_px, size_px), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8)


def jpeg(image_hwc: NDArray[np.uint8]) -> bytes:
    """An RGB picture as JPEG bytes."""
    done, payload = cv2.imencode(".jpg", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise ValueError(f"tried to encode a picture of shape {image_hwc.shape}; expected (H, W, 3) uint8")
    return payload.tobytes()
