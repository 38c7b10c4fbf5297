"""Clips that the bench encodes itself: a portrait (or a crowd of it) under a moving camera, keyframes as uploads have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ..demo_clips import sample_pictures
from ..encoder import encode_clip

_RATE: Final = 30
_KEYFRAME_SECONDS: Final = 8
_PORTRAIT: Final = (slice(0, 300), slice(70, 370))
"""Head and shoulders in the astronaut's picture."""


@dataclass(frozen=True, slots=True)
class BenchClip:
    """One clip and what it is made of."""

    path: Path
    width_px: int
    height_px: int
    seconds: float
    num_faces: int


def make_clip(folder: Path, *, height_px: int, seconds: float, num_faces: int = 1, rate: int = _RATE) -> BenchClip:
    """Encode a clip of H.264 4:2:0, a keyframe every eight seconds; one that is there already is taken.

    Raises:
        MissingExtraError: scikit-image, whose pictures are used, is not installed (extra `demo`).
        EncodeError: the encoder failed.
    """
    width_px = round(height_px * 16 / 9 / 2) * 2
    path = folder / f"{height_px}p-{seconds:g}s-{rate}-fps-{num_faces}-faces.mp4"
    made = BenchClip(path=path, width_px=width_px, height_px=height_px, seconds=seconds, num_faces=num_faces)
    if path.exists():
        return made
    scene = _scene(width_px, height_px, num_faces)
    encode_clip(
        path,
        (_frame(scene, i) for i in range(round(seconds * rate))),
        size_wh=(width_px, height_px),
        rate=rate,
        crf=23,
        preset="veryfast",
        g=rate * _KEYFRAME_SECONDS,
    )
    return made


def _scene(width_px: int, height_px: int, num_faces: int) -> NDArray[np.uint8]:
    """Faces on a grid over a structured background, a little larger than the frame so that the camera can move."""
    portrait, background = sample_pictures()
    width, height = width_px + 64, height_px + 64
    scene = cv2.resize(background, (width, height), interpolation=cv2.INTER_CUBIC)
    columns = int(np.ceil(np.sqrt(num_faces * 16 / 9)))
    rows = int(np.ceil(num_faces / columns))
    side = min(width // columns, height // rows, height * 2 // 3)
    head = cv2.resize(portrait[_PORTRAIT], (side, side), interpolation=cv2.INTER_AREA)
    for number in range(num_faces):
        left = (number % columns) * (width // columns) + (width // columns - side) // 2
        top = (number // columns) * (height // rows) + (height // rows - side) // 2
        scene[top : top + side, left : left + side] = head
    return np.asarray(scene, np.uint8)


def _frame(scene: NDArray[np.uint8], i: int) -> NDArray[np.uint8]:
    """A window that drifts over the scene, with a grain that keeps the encoder honest."""
    x, y = round(32 + 28 * np.sin(i / 37)), round(32 + 28 * np.cos(i / 53))
    window = scene[y : scene.shape[0] - 64 + y, x : scene.shape[1] - 64 + x]
    grain = np.uint8(i % 3)
    return np.ascontiguousarray(window) ^ grain


def loop_clip(clip: Path, *, copies: int) -> Path:
    """A clip that repeats the packets of another: long videos for the price of copying them."""
    path = clip.with_name(f"{clip.stem}-x{copies}.mp4")
    with av.open(str(path), "w") as output:
        target = None
        for copy in range(copies):
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    shift = copy * int(stream.duration or 0)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = target
                    output.mux(packet)
    return path
