"""Turn decoded pictures of any pixel format into upright 8-bit RGB, small ones whole and faces in full size.

Runs in the decode child. Colours follow the stream's matrix and range; where a stream does not say, 720 lines and
more count as BT.709 and fewer as BT.601, the common convention of players.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from .upright import UPRIGHT, Orientation

HDR_TRANSFERS: Final = {16, 18}
"""SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG), as numbered in ITU-T H.273."""

_MATRICES: Final[dict[int, Colorspace]] = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
"""Matrix coefficients of ITU-T H.273 as swscale names them."""

_PLANAR_LAYOUTS: Final[dict[str, tuple[int, int, int]]] = {
    f"{kind}{sub}{depth}": (*steps, 2 if depth else 1)
    for kind in ("yuv", "yuvj")
    for sub, steps in {"420p": (2, 2), "422p": (2, 1), "444p": (1, 1)}.items()
    for depth in ("", "10le", "12le")
}
"""Pixel format -> columns and rows per chroma sample, bytes per sample; other formats are converted whole."""

_SEAM_PX: Final = 8
_OPAQUE: Final = 230
_MOST_TRANSPARENT: Final = 0.01
"""Share of a picture: smooth borders of an otherwise opaque one."""
_REFORMATTER = VideoReformatter()


def small_rgb(frame: av.VideoFrame, *, long_side_px: int, orientation: Orientation = UPRIGHT) -> NDArray[np.uint8]:
    """The whole picture, upright, (h, w, 3) RGB, long side at most `long_side_px`, never enlarged."""
    scale = min(1.0, long_side_px / max(frame.width, frame.height))
    width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    rgb = _to_rgb(frame, width=width, height=height)
    return orientation.apply(rgb)


def is_transparent(frame: av.VideoFrame) -> bool:
    """Whether something behind a clear part of the picture would be seen."""
    if not any(component.is_alpha for component in frame.format.components):
        return False
    alpha = _REFORMATTER.reformat(frame, format="rgba", threads=1).to_ndarray()[..., 3]
    return float((alpha < _OPAQUE).mean()) > _MOST_TRANSPARENT


def upright_size(frame: av.VideoFrame, *, orientation: Orientation = UPRIGHT) -> tuple[int, int]:
    """Width and height of the picture once it stands upright."""
    return (frame.height, frame.width) if orientation.swaps_sides else (frame.width, frame.height)


@dataclass(frozen=True, slots=True)
class Square:
    """A square to be cut out of a picture."""

    side: float
    """In pixels of the upright picture; ignored when `native`."""
    size_px: int
    """Side of the result."""
    native: bool = False
    """Cut `size_px` source pixels without resampling."""

    @property
    def span(self) -> int:
        """Source pixels along a side."""
        return self.size_px if self.native else max(2, round(self.side))


def cut_squares(
    frame: av.VideoFrame, *, orientation: Orientation = UPRIGHT, centre_xy: tuple[float, float], squares: Sequence[Square]
) -> list[tuple[NDArray[np.uint8], float]]:
    """Cut squares around one centre of the upright picture and resize them; beyond the border the edge is repeated.

    Only the pixels of the largest square are converted to RGB, and equal squares are cut once.

    Args:
        frame: full-size picture as decoded.
        orientation: how the picture stands upright.
        centre_xy: centre of the squares in pixels of the upright picture.
        squares: at least one.

    Returns:
        Per square the crop, (size_px, size_px, 3) RGB, and its sharpness (variance of the Laplacian of its grey image).
    """
    size = upright_size(frame, orientation=orientation)
    x0, y0, x1, y1 = _within(centre_xy, max(square.span for square in squares), size)
    region = _region_rgb(frame, orientation=orientation, x0=x0, y0=y0, x1=x1, y1=y1)
    cut: dict[Square, tuple[NDArray[np.uint8], float]] = {}
    for square in squares:
        if square not in cut:
            left, top, right, bottom = _within(centre_xy, square.span, size)
            inner = region[top - y0 : bottom - y0, left - x0 : right - x0]
            cut[square] = _resized(_padded(inner, centre_xy, square.span, size), square.size_px)
    return [cut[square] for square in squares]


def _within(centre_xy: tuple[float, float], span: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a square's part in a picture of `size`; outside altogether it is the nearest pixel."""
    starts = [round(centre - span / 2) for centre in centre_xy]
    low = [min(max(start, 0), length - 1) for start, length in zip(starts, size, strict=True)]
    high = [max(min(max(start + span, 1), length), first + 1) for start, length, first in zip(starts, size, low, strict=True)]
    return low[0], low[1], high[0], high[1]


def _padded(inner: NDArray[np.uint8], centre_xy: tuple[float, float], span: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole square of `span`, of which `inner` lies in the picture."""
    left, top = (round(centre - span / 2) for centre in centre_xy)
    width, height = size
    above, below, before, behind = (min(max(pad, 0), span) for pad in (-top, top + span - height, -left, left + span - width))
    return np.asarray(cv2.copyMakeBorder(inner, above, below, before, behind, cv2.BORDER_REPLICATE), np.uint8)


def _resized(square: NDArray[np.uint8], size_px: int) -> tuple[NDArray[np.uint8], float]:
    if square.shape[0] != size_px or square.shape[1] != size_px:
        shrinks = square.shape[0] > size_px
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        square = np.asarray(cv2.resize(square, (size_px, size_px), interpolation=interpolation), np.uint8)
    grey = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)
    return square, float(cv2.Laplacian(grey, cv2.CV_32F).var())


def _region_rgb(frame: av.VideoFrame, *, orientation: Orientation = UPRIGHT, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
    """RGB of the upright picture's columns [x0, x1) and rows [y0, y1)."""
    turns = orientation.rotation // 90
    if turns == 0:
        rows, columns = (y0, y1), (x0, x1)
    elif turns == 1:
        rows, columns = (x0, x1), (frame.width - y1, frame.width - y0)
    elif turns == 2:
        rows, columns = (frame.height - y1, frame.height - y0), (frame.width - x1, frame.width - x0)
    else:
        rows, columns = (frame.height - x1, frame.height - x0), (y0, y1)
    if orientation.mirrored:
        columns = frame.width - columns[1], frame.width - columns[0]
    layout = _PLANAR_LAYOUTS.get(frame.format.name)
    if layout is None or frame.width % 2 or frame.height % 2:
        region = _to_rgb(frame, width=frame.width, height=frame.height)[slice(*rows), slice(*columns)]
    else:
        region = _planar_region_rgb(frame, rows, columns, sub_x=layout[0], sub_y=layout[1], sample_bytes=layout[2])
    return orientation.apply(region)


def _planar_region_rgb(
    frame: av.VideoFrame, rows: tuple[int, int], columns: tuple[int, int], *, sub_x: int, sub_y: int, sample_bytes: int
) -> NDArray[np.uint8]:
    """Copy the region out of each plane, on whole chroma samples, and convert that alone."""
    # chroma may be interpolated from its neighbours, so the seam lies outside what is kept; and swscale has one way
    # for even sizes and another for odd ones, so parts are cut from even pictures only, at even places
    top, left = max(rows[0] - _SEAM_PX, 0) // 2 * 2, max(columns[0] - _SEAM_PX, 0) // 2 * 2
    bottom, right = min(-(-rows[1] // 2) * 2 + _SEAM_PX, frame.height), min(-(-columns[1] // 2) * 2 + _SEAM_PX, frame.width)
    part = av.VideoFrame(right - left, bottom - top, frame.format.name)
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    for number, (source, target) in enumerate(zip(frame.planes, part.planes, strict=True)):
        step_x, step_y = (sub_x, sub_y) if number in (1, 2) else (1, 1)
        pixels = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        first_row, first_byte = top // step_y, left // step_x * sample_bytes
        into = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        num_rows, num_bytes = target.height, target.width * sample_bytes
        into[:num_rows, :num_bytes] = pixels[first_row : first_row + num_rows, first_byte : first_byte + num_bytes]
    rgb = _to_rgb(part, width=part.width, height=part.height, source_height=frame.height)
    return rgb[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]


def _to_rgb(frame: av.VideoFrame, *, width: int, height: int, source_height: int | None = None) -> NDArray[np.uint8]:
    """Scale and convert; `source_height` is that of the whole picture when `frame` is a part of it."""
    options: dict[str, Any] = {}
    name = frame.format.name
    if not frame.format.is_rgb:
        conventional = Colorspace.ITU709 if (source_height or frame.height) >= 720 else Colorspace.ITU601
        full_range = name.startswith("yuvj") or int(frame.color_range) == int(ColorRange.JPEG)
        options = {
            "src_colorspace": _MATRICES.get(int(frame.colorspace), conventional),
            "src_color_range": ColorRange.JPEG if full_range else ColorRange.MPEG,
            "dst_color_range": ColorRange.JPEG,
        }
    interpolation = "AREA" if width < frame.width else "BILINEAR"
    # one thread: the usual sandbox has no clone()
    rgb = _REFORMATTER.reformat(frame, width, height, "rgb24", interpolation=interpolation, threads=1, **options)
    return np.asarray(rgb.to_ndarray(), np.uint8)
