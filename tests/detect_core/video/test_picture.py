"""A crop cut from part of the planes equals the crop cut from the whole converted picture."""

from __future__ import annotations

from collections.abc import Mapping

import av
import numpy as np
import pytest

from builders import moving_pictures
from detect_core.video import picture
from detect_core.video.upright import Orientation, orientation_of


@pytest.mark.parametrize("size", [(324, 240), (321, 241)], ids=["even", "odd"])
@pytest.mark.parametrize(
    "orientation", [*map(Orientation, (0, 90, 180, 270)), Orientation(90, mirrored=True), Orientation(180, mirrored=True)], ids=str
)
@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "gray", "nv12", "gbrp", "yuva420p"]
)
def test_a_part_converted_alone_has_the_pixels_of_the_whole(pixel_format: str, orientation: Orientation, size: tuple[int, int]) -> None:
    frame = av.VideoFrame.from_ndarray(moving_pictures(1, size=size)[0], format="rgb24").reformat(format=pixel_format)
    whole = picture.small_rgb(frame, long_side_px=10_000, orientation=orientation)

    for centre, side in (((100, 90), 60), ((37, 141), 51), ((120, 120), 100), ((0, 0), 64), ((999, 999), 32)):
        crop, _ = picture.cut_squares(frame, orientation=orientation, centre_xy=centre, squares=[picture.Square(0, side, native=True)])[0]
        expected = padded(whole, centre, side)
        assert int(np.abs(crop.astype(int) - expected.astype(int)).max()) <= 2


@pytest.mark.parametrize("orientation", [Orientation(0), Orientation(90), Orientation(0, mirrored=True)], ids=str)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"])
def test_squares_around_one_centre_are_those_that_each_alone_would_be(pixel_format: str, orientation: Orientation) -> None:
    frame = av.VideoFrame.from_ndarray(moving_pictures(1, size=(324, 240))[0], format="rgb24").reformat(format=pixel_format)
    squares = [picture.Square(61.3, 48), picture.Square(120.7, 64), picture.Square(61.3, 48), picture.Square(0, 33, native=True)]

    for centre in ((100.4, 90.2), (3.0, 239.0), (36.6, 141.5), (9999.0, -9999.0)):
        together = picture.cut_squares(frame, orientation=orientation, centre_xy=centre, squares=squares)
        for (crop, sharpness), square in zip(together, squares, strict=True):
            alone, its_sharpness = picture.cut_squares(frame, orientation=orientation, centre_xy=centre, squares=[square])[0]
            assert np.array_equal(crop, alone)
            assert sharpness == its_sharpness


def padded(whole: np.ndarray, centre: tuple[int, int], size: int) -> np.ndarray:
    rows = np.clip(np.arange(size) + round(centre[1] - size / 2), 0, whole.shape[0] - 1)
    columns = np.clip(np.arange(size) + round(centre[0] - size / 2), 0, whole.shape[1] - 1)
    return whole[np.ix_(rows, columns)]


@pytest.mark.parametrize(
    ("degrees", "quarter_turns"), [(0.0, 0), (90.0, 90), (-90.0, 270), (179.6, 180), (float("nan"), 0), (-(2.0**63), 0)]
)
def test_rotation_is_one_of_four_or_none(degrees: float, quarter_turns: int) -> None:
    class Marked:
        rotation = degrees
        side_data: Mapping[str, bytes] = {}

    assert orientation_of(Marked()).rotation % 90 == 0
    if abs(degrees) <= 360 or degrees != degrees:
        assert orientation_of(Marked()).rotation == quarter_turns
