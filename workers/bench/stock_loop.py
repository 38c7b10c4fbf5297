"""The loop that open deepfake pipelines run today, written plainly: the bench's peer, on the same clip and net.

Every frame is decoded in sequence, MTCNN runs frame by frame on half-size pictures, the net runs in eager fp32 NCHW.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN
from torch import nn

_MARGIN: Final = 1.3


class StockLoop:
    """One net behind the usual loop."""

    def __init__(self, net: nn.Module, *, size_px: int) -> None:
        self._net = net.eval()
        self._size_px = size_px
        self._mtcnn = MTCNN(keep_all=True, post_process=False)

    def run(self, path: Path, *, num_frames: int) -> tuple[float, dict[str, float]]:
        """Mean score over all faces of `num_frames` evenly spaced frames, and wall seconds per stage."""
        started = time.perf_counter()
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            wanted = set(np.linspace(0, max((stream.frames or 1) - 1, 0), num_frames).astype(int).tolist())
            frames = [frame.to_ndarray(format="rgb24") for i, frame in enumerate(container.decode(stream)) if i in wanted]
        decoded = time.perf_counter()
        crops = []
        for frame in frames:
            half = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
            boxes, _ = self._mtcnn.detect(half)
            for box in boxes if boxes is not None else []:
                crops.append(self._crop(frame, np.asarray(box, np.float64) * 2))
        detected = time.perf_counter()
        with torch.inference_mode():
            batches = [torch.stack(crops[i : i + 32]) for i in range(0, len(crops), 32)]
            scores = [torch.sigmoid(self._net(batch)) for batch in batches]
        ended = time.perf_counter()
        score = float(torch.cat(scores).mean()) if scores else float("nan")
        return score, {"decode": decoded - started, "detect": detected - decoded, "classify": ended - detected}

    def _crop(self, frame: np.ndarray, xyxy: np.ndarray) -> torch.Tensor:
        side = max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) * _MARGIN
        x, y = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
        left, top = max(int(x - side / 2), 0), max(int(y - side / 2), 0)
        patch = frame[top : top + int(side), left : left + int(side)]
        resized = cv2.resize(patch, (self._size_px, self._size_px), interpolation=cv2.INTER_AREA)
        return (torch.from_numpy(resized).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
