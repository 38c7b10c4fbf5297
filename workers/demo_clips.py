"""Clips for the demo, made on the spot from a public-domain photograph that ships inside scikit-image.

NASA's portrait of the astronaut Eileen Collins, under a moving camera: once untouched, once with the face replaced by
a reshaped, recoloured, resampled copy of itself that was blended back in (what a face swap does to a frame, without
anybody else's face). Plus a clip without a face and a broken file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .encoder import encode_clip
from .errors import MissingExtraError

_SIZE_WH: Final = (640, 480)
_RATE: Final = 25
_SECONDS: Final = 4
_FACE_CENTRE_XY: Final = (221.0, 127.0)
"""Middle of the face in the portrait, pixels."""
_FACE_RADII_XY: Final = (50.0, 62.0)
_FACE_REGION: Final = (slice(40, 220), slice(140, 308))
"""Rows and columns around the face."""


@dataclass(frozen=True, slots=True)
class DemoClip:
    """One clip and what it is."""

    video_id: str
    path: Path
    what: str


def make_demo_clips(folder: Path) -> list[DemoClip]:
    """Write the four demo clips into `folder`.

    Raises:
        MissingExtraError: scikit-image, whose portrait is used, is not installed (extra `demo`).
        EncodeError: a clip could not be encoded.
        OSError: the folder cannot be written.
    """
    portrait, cup = sample_pictures()
    folder.mkdir(parents=True, exist_ok=True)
    clips = [
        DemoClip("demo-untouched", folder / "demo-untouched.mp4", "a portrait under a moving camera, untouched"),
        DemoClip("demo-manipulated", folder / "demo-manipulated.mp4", "the same, the face reshaped and blended back in"),
        DemoClip("demo-no-face", folder / "demo-no-face.mp4", "a cup of coffee"),
        DemoClip("demo-broken", folder / "demo-broken.mp4", "the first half of an upload that was cut off"),
    ]
    films = [_camera(portrait, seed=1), _camera(portrait, seed=1, manipulated=True), _camera(cup, seed=2)]
    for clip, frames in zip(clips, films, strict=False):
        encode_clip(clip.path, frames, size_wh=_SIZE_WH, rate=_RATE, crf=21)
    whole = clips[0].path.read_bytes()
    clips[3].path.write_bytes(whole[: len(whole) // 2])
    return clips


def sample_pictures() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The astronaut's portrait and a cup of coffee, both RGB `(H, W, 3)`.

    Raises:
        MissingExtraError: scikit-image, which brings them, is not installed (extra `demo`).
    """
    try:
        from skimage.data import astronaut, coffee
    except ModuleNotFoundError as err:
        raise MissingExtraError(f"tried to make clips from the pictures of scikit-image, got {err}: pip install 'veriframe[demo]'") from err
    return np.asarray(astronaut(), np.uint8), np.asarray(coffee(), np.uint8)


def _camera(picture: NDArray[np.uint8], *, seed: int, manipulated: bool = False) -> Iterator[NDArray[np.uint8]]:
    """Frames of a hand-held camera that drifts over a still picture, with sensor noise."""
    rng = np.random.default_rng(seed)
    width, height = _SIZE_WH
    count = _RATE * _SECONDS
    noises = [rng.normal(0, 2.0, (height, width, 3)).astype(np.float32) for _ in range(6)]
    for i in range(count):
        phase = 2 * np.pi * i / count
        source = picture
        if manipulated:
            source = picture.copy()
            source[_FACE_REGION] = _swapped_face(picture[_FACE_REGION], phase)
        zoom = 1.45 * (1 + 0.06 * np.sin(phase))
        angle = 2.5 * np.sin(1.7 * phase)
        matrix = cv2.getRotationMatrix2D((_FACE_CENTRE_XY[0] + 20, _FACE_CENTRE_XY[1] + 30), angle, zoom)
        matrix[:, 2] += (
            width / 2 - _FACE_CENTRE_XY[0] - 20 + 18 * np.sin(2 * phase),
            height / 2 - _FACE_CENTRE_XY[1] - 30 + 12 * np.cos(phase),
        )
        frame = cv2.warpAffine(source, matrix, _SIZE_WH, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        light = 1 + 0.04 * np.sin(3 * phase)
        yield np.clip(frame * np.float32(light) + noises[i % len(noises)], 0, 255).astype(np.uint8)


def _swapped_face(region: NDArray[np.uint8], phase: float) -> NDArray[np.uint8]:
    """The face region with its face reshaped, softened, recoloured and blended back through a feathered ellipse."""
    height, width = region.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    u = (x + _FACE_REGION[1].start - _FACE_CENTRE_XY[0]) / _FACE_RADII_XY[0]
    v = (y + _FACE_REGION[0].start - _FACE_CENTRE_XY[1]) / _FACE_RADII_XY[1]
    inside = np.clip(1 - u**2 - v**2, 0, 1)
    # another face shape: narrower jaw, wider eyes, and the jitter that frame-by-frame generation leaves behind
    shift_x = (6 * u * v + 1.2 * np.sin(9 * phase)) * inside
    shift_y = (4 * np.cos(2 * u) * inside) + 1.0 * np.cos(7 * phase) * inside
    reshaped = cv2.remap(region, x + shift_x.astype(np.float32), y + shift_y.astype(np.float32), cv2.INTER_LINEAR)
    # the resolution of a face generator, below that of the camera
    small = cv2.resize(reshaped, (width // 3, height // 3), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    recoloured = soft * np.array([1.10, 0.97, 0.92], np.float32) + 6
    mask = cv2.GaussianBlur((u**2 + v**2 < 0.95).astype(np.float32), (0, 0), 3.0)[..., None]
    return np.clip(mask * recoloured + (1 - mask) * region, 0, 255).astype(np.uint8)
