"""How a decoded picture must be turned, mirrored and widened to look as a player shows it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

_NEARLY_SQUARE: Final = 0.02
_LARGEST_ASPECT: Final = 16.0
"""Far more than any camera or standard has, but players follow what the file says."""
_REFORMATTER = VideoReformatter()


@dataclass(frozen=True, slots=True)
class Orientation:
    """Mirror first, then turn."""

    rotation: int = 0
    """Counter-clockwise degrees: 0, 90, 180 or 270."""
    mirrored: bool = False
    """Left and right change places."""

    @property
    def swaps_sides(self) -> bool:
        """Whether width becomes height."""
        return self.rotation % 180 == 90

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) as decoded to (H, W, 3) or (W, H, 3) as shown."""
        return np.ascontiguousarray(np.rot90(picture[:, ::-1] if self.mirrored else picture, self.rotation // 90))


UPRIGHT: Final = Orientation()


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """What the frame's display matrix asks for; nonsense in the file counts as upright."""
    try:
        degrees = float(frame.rotation)
    except (ValueError, OverflowError, TypeError):
        return UPRIGHT
    if not np.isfinite(degrees):
        return UPRIGHT
    mirrored = _is_mirrored(frame)
    # FFmpeg reads the angle off the image of the x axis, which a mirror turns round
    return Orientation((round(degrees / 90.0) * 90 + 180 * mirrored) % 360, mirrored)


def _is_mirrored(frame: av.VideoFrame) -> bool:
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    try:
        a, b, _, c, d, *_ = struct.unpack("=9i", memoryview(matrix))
    except struct.error:
        return False
    return bool(a * d - b * c < 0)


def pixel_aspect(stated: Fraction | None) -> float:
    """Width over height of a pixel; what a file does not say, says wrongly or nearly square counts as 1."""
    aspect = float(stated) if stated else 1.0
    return 1.0 if abs(aspect - 1.0) < _NEARLY_SQUARE or is_beyond_belief(stated) else aspect


def is_beyond_belief(stated: Fraction | None) -> bool:
    """Whether a file states pixels so long that they are taken for square."""
    return bool(stated) and not 1 / _LARGEST_ASPECT <= float(stated or 1) <= _LARGEST_ASPECT


def with_square_pixels(frame: av.VideoFrame, *, aspect: float, max_pixels: int) -> av.VideoFrame:
    """The frame as wide as a player shows it, in its own pixel format; itself where its pixels are square.

    The side that is stored too short is made longer, so that no detail is lost; a picture that would grow beyond
    `max_pixels` stays as it is.
    """
    width, height = frame.width * max(aspect, 1.0), frame.height * max(1 / aspect, 1.0)
    if aspect == 1.0 or width * height > max_pixels:
        return frame
    # even sides: the chroma of most formats lies between two pixels
    wide = _REFORMATTER.reformat(frame, round(width / 2) * 2, round(height / 2) * 2, frame.format.name, interpolation="BICUBIC", threads=1)
    wide.colorspace, wide.color_range = frame.colorspace, frame.color_range
    return wide
