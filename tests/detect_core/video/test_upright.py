"""Pictures are looked at as FFmpeg shows them: turned, mirrored, with square pixels."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from builders import moving_pictures, write_clip
from detect_core.options import ScreeningOptions
from detect_core.structs import Frame, VideoInfo
from detect_core.video import picture
from detect_core.video.decode import CropRequest, DecodeSession
from detect_core.video.upright import pixel_aspect, with_square_pixels

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def run_ffmpeg(*arguments: str | Path) -> bytes:
    return subprocess.run([FFMPEG, "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upright") / "clip.mp4"
    write_clip(path, moving_pictures(1))
    return path


def first_frame(path: Path) -> tuple[VideoInfo, Frame, np.ndarray]:
    """Its description, its small picture and a square of 60 px cut at (100, 90)."""
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=1)) as session:
        info = session.open()
        (frame,), _ = session.next_frames(1)
        crop, _ = session.cut([CropRequest(frame.frame_id, (100.0, 90.0), 60.0, 60, native=True)])[0]
        return info, frame, crop


def as_ffmpeg_shows(path: Path, *, width: int, height: int) -> np.ndarray:
    raw = run_ffmpeg("-i", path, "-frames:v", "1", "-vf", f"scale={width}:{height}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)


MARKS = {
    "upside down in a mirror": ["-display_vflip"],
    "mirrored": ["-display_hflip"],
    **{f"turned by {turn}": ["-display_rotation", turn] for turn in ("90", "180", "270")},
    **{f"turned by {turn} and mirrored": ["-display_rotation", turn, "-display_hflip"] for turn in ("90", "270")},
}


@pytest.mark.parametrize("marks", MARKS)
def test_pictures_stand_as_ffmpeg_shows_them(clip: Path, tmp_path: Path, marks: str) -> None:
    marked = tmp_path / "marked.mp4"
    run_ffmpeg(*MARKS[marks], "-i", clip, "-c", "copy", marked)

    info, frame, crop = first_frame(marked)

    shown = as_ffmpeg_shows(marked, width=info.width_px, height=info.height_px)
    assert np.abs(frame.image_hwc.astype(int) - shown).max() <= 2
    assert np.abs(crop.astype(int) - shown[60:120, 70:130]).max() <= 2
    assert "ROTATED" in info.warnings


@pytest.mark.parametrize(
    ("ratio", "size"),
    [("4/3", (426, 240)), ("64/45", (456, 240)), ("3/4", (320, 320)), ("5/1", (1600, 240)), ("1/1", (320, 240)), ("100/1", (320, 240))],
)
def test_pixels_that_are_not_square_are_made_so(clip: Path, tmp_path: Path, ratio: str, size: tuple[int, int]) -> None:
    stored = tmp_path / "stored.mkv"
    run_ffmpeg("-i", clip, "-vf", f"setsar={ratio}", stored)

    info, frame, _ = first_frame(stored)

    assert (info.width_px, info.height_px) == size
    assert ("NON_SQUARE_PIXELS" in info.warnings) == (size != (320, 240))
    assert ("UNUSUAL_PIXEL_ASPECT" in info.warnings) == (ratio == "100/1")
    height, width = frame.image_hwc.shape[:2]
    assert (width, height) == (min(size[0], 640), size[1] * min(size[0], 640) // size[0])
    expected = as_ffmpeg_shows(stored, width=width, height=height)
    assert np.abs(frame.image_hwc.astype(int) - expected).mean() < 3


def test_each_picture_stands_as_its_own_message_says(tmp_path: Path) -> None:
    plain, turning = tmp_path / "plain.mp4", tmp_path / "turning.mp4"
    write_clip(plain, moving_pictures(8), options={"bf": "0"})
    upside_down = bytes.fromhex("00000007062f0310000980")  # display orientation SEI, 180 degrees
    with av.open(str(plain)) as source, av.open(str(turning), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            turned = av.Packet((upside_down if number >= 4 else b"") + bytes(packet))
            turned.pts, turned.dts, turned.time_base, turned.is_keyframe = packet.pts, packet.dts, packet.time_base, packet.is_keyframe
            turned.stream = stream
            target.mux(turned)
    shown = []
    for path in (plain, turning):
        with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=8)) as session:
            session.open()
            frames, _ = session.next_frames(8)
            crops = session.cut([CropRequest(frame.frame_id, (100.0, 90.0), 60.0, 60, native=True) for frame in frames])
            shown.append([(frame.image_hwc, crop) for frame, (crop, _) in zip(frames, crops, strict=True)])
            warnings = session.warnings

    for number, ((before, _), (after, crop)) in enumerate(zip(*shown, strict=True)):
        expected = before[::-1, ::-1] if number >= 4 else before
        assert np.abs(expected.astype(int) - after).max() <= 2
        assert np.abs(crop.astype(int) - expected[60:120, 70:130]).max() <= 2
    assert "PICTURE_CHANGES" in warnings


def test_a_large_video_is_described_like_a_small_one(tmp_path: Path) -> None:
    # Given more than is held in memory, so that the container is opened anew for decoding
    noise = np.random.default_rng(0).integers(0, 256, (36, 480, 640, 3), np.uint8)
    stored, wide = tmp_path / "stored.mp4", tmp_path / "wide.mp4"
    write_clip(stored, noise, options={"qp": "2", "preset": "ultrafast"})
    run_ffmpeg("-i", stored, "-c", "copy", "-aspect", "16:9", wide)
    assert wide.stat().st_size > 16 * 1024**2

    info, frame, _ = first_frame(wide)

    assert (info.width_px, info.height_px) == (854, 480)
    assert frame.image_hwc.shape[:2] == (360, 640)
    assert "NON_SQUARE_PIXELS" in info.warnings


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le", "rgb24", "gray"])
def test_a_widened_picture_keeps_its_format_and_colours(pixel_format: str) -> None:
    frame = av.VideoFrame.from_ndarray(moving_pictures(1)[0], format="rgb24").reformat(format=pixel_format)
    frame.colorspace, frame.color_range, frame.pts = 1, 2, 7

    wide = with_square_pixels(frame, aspect=4 / 3, max_pixels=10**6)

    assert (wide.width, wide.height, wide.format.name) == (426, 240, pixel_format)
    assert (int(wide.colorspace), int(wide.color_range)) == (int(frame.colorspace), int(frame.color_range))
    before, after = (picture.small_rgb(each, long_side_px=64).mean(axis=(0, 1)) for each in (frame, wide))
    np.testing.assert_allclose(before, after, atol=1.5)
    assert with_square_pixels(frame, aspect=4 / 3, max_pixels=320 * 240) is frame


@pytest.mark.parametrize(
    ("stated", "aspect"),
    [(None, 1.0), (Fraction(0), 1.0), (Fraction(101, 100), 1.0), (Fraction(4, 3), 4 / 3), (Fraction(9, 2), 4.5), (Fraction(17), 1.0)],
)
def test_only_a_believable_aspect_counts(stated: Fraction | None, aspect: float) -> None:
    assert pixel_aspect(stated) == pytest.approx(aspect)
