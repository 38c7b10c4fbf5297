"""Pictures from host memory to the device; on CUDA through pinned memory on a stream of their own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


class Uploader:
    """Copies arrays to one device. Owned by the device thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, array: NDArray[np.uint8]) -> torch.Tensor:
        """`array` on the device; kernels launched afterwards wait for the copy, this thread does not."""
        host = torch.from_numpy(array)
        if self._stream is None:
            return host.to(self._device)
        with torch.cuda.stream(self._stream):
            # pageable memory would be copied twice and block the thread
            copy = host.pin_memory().to(self._device, non_blocking=True)
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_stream(self._stream)
        copy.record_stream(consumer)  # its memory must not be given away while the consumer still reads it
        return copy
