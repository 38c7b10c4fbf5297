"""Decoding by plan gives the same pixels as decoding everything, over many ways to encode."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from builders import moving_pictures, write_clip
from detect_core.options import ScreeningOptions
from detect_core.video import picture
from detect_core.video.decode import DecodeSession
from detect_core.video.upright import orientation_of

VARIABLE_TIMES = [i / 25 if i < 30 else 30 / 25 + (i - 30) / 5 for i in range(60)]

ENCODINGS = {
    "h264-b-pyramid": {"options": {"bf": "3", "b-pyramid": "normal", "g": "30"}},
    "h264-one-group": {"options": {"bf": "2", "g": "600"}},
    "h264-slices": {"options": {"slices": "4", "bf": "2", "g": "20"}},
    "h264-open-gop": {"options": {"x264-params": "open-gop=1:keyint=15:bframes=3"}},
    "h264-intra-refresh": {"options": {"x264-params": "intra-refresh=1:keyint=20"}, "suffix": ".ts"},
    "h264-annex-b": {"options": {"bf": "3", "g": "20"}, "suffix": ".ts"},
    "h264-matroska": {"options": {"bf": "3", "g": "20"}, "suffix": ".mkv"},
    "h264-variable-rate": {"options": {"bf": "2", "g": "20"}, "times": VARIABLE_TIMES, "suffix": ".mkv"},
    "h264-422": {"options": {"bf": "2", "g": "20"}, "pixel_format": "yuv422p"},
    "h264-444": {"options": {"bf": "2", "g": "20"}, "pixel_format": "yuv444p"},
    "h264-10-bit": {"options": {"bf": "2", "g": "20"}, "pixel_format": "yuv420p10le"},
    "h264-interlaced": {"options": {"x264-params": "interlaced=1:keyint=20:bframes=2"}},
    "h264-no-b": {"options": {"bf": "0", "g": "20"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=20:bframes=4:log-level=none"}},
    "hevc-open-gop": {"codec": "libx265", "options": {"x265-params": "open-gop=1:keyint=15:bframes=3:log-level=none"}},
    "hevc-temporal-layers": {
        "codec": "libx265",
        "options": {"x265-params": "temporal-layers=2:keyint=20:log-level=none"},
        "suffix": ".mkv",
    },
    "hevc-10-bit": {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": "keyint=20:log-level=none"}},
    "vp8": {"codec": "libvpx", "suffix": ".webm", "options": {"g": "20", "deadline": "realtime"}},
    "vp9": {"codec": "libvpx-vp9", "suffix": ".webm", "options": {"g": "20", "deadline": "realtime", "cpu-used": "8"}},
    "av1": {"codec": "libsvtav1", "suffix": ".mkv", "options": {"g": "20", "preset": "12"}},
    "mpeg4-b": {"codec": "mpeg4", "options": {"bf": "2", "g": "15"}},
    "mpeg4-avi": {"codec": "mpeg4", "suffix": ".avi", "options": {"g": "15"}},
    "mpeg2-ts": {"codec": "mpeg2video", "suffix": ".ts", "options": {"bf": "2", "g": "15"}},
    "mjpeg": {"codec": "mjpeg", "pixel_format": "yuvj420p", "suffix": ".avi"},
    "prores": {"codec": "prores_ks", "pixel_format": "yuv422p10le", "suffix": ".mov"},
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_planned_frames_equal_sequential_ones_bit_for_bit(name: str, tmp_path: Path) -> None:
    recipe = dict(ENCODINGS[name])
    clip = tmp_path / f"clip{recipe.pop('suffix', '.mp4')}"
    write_clip(clip, moving_pictures(60), **recipe)

    # When 7 spread frames are decoded by plan, in full size
    with clip.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=7)) as session:
        session.open()
        frames, more = session.next_frames(7)
    assert not more
    assert len(frames) == 7

    # Then each has the very pixels that decoding from the first packet to the last gives
    every = sequential_pictures(clip)
    for frame in frames:
        seconds = min(every, key=lambda each: abs(each - frame.pts_seconds))
        assert seconds == pytest.approx(frame.pts_seconds, abs=1e-6)
        np.testing.assert_array_equal(frame.image_hwc, every[seconds])


LONG = ["h264-b-pyramid", "h264-one-group", "h264-open-gop", "h264-intra-refresh", "hevc-open-gop", "hevc-temporal-layers", "vp9", "av1"]


@pytest.mark.parametrize("name", LONG)
def test_frames_of_a_long_clip_may_move_and_stay_exact(name: str, tmp_path: Path) -> None:
    recipe = dict(ENCODINGS[name])
    clip = tmp_path / f"clip{recipe.pop('suffix', '.mp4')}"
    write_clip(clip, moving_pictures(60), rate=4, **recipe)

    with clip.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=7)) as session:
        session.open()
        frames, _ = session.next_frames(7)

    every = sequential_pictures(clip)
    middles = [(i + 0.5) * 59 / 4 / 7 for i in range(7)]
    for frame, middle in zip(frames, middles, strict=True):
        seconds = min(every, key=lambda each: abs(each - frame.pts_seconds))
        assert abs(seconds - middle) <= 0.4 * 15 / 7 + 0.25
        np.testing.assert_array_equal(frame.image_hwc, every[seconds])


@pytest.mark.parametrize("name", ["h264-b-pyramid", "h264-annex-b", "hevc"])
def test_fewer_packets_are_decoded_than_there_are(name: str, tmp_path: Path) -> None:
    recipe = dict(ENCODINGS[name])
    clip = tmp_path / f"clip{recipe.pop('suffix', '.mp4')}"
    write_clip(clip, moving_pictures(60), **recipe)

    with clip.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=2)) as session:
        session.open()
        session.next_frames(2)

    assert session.num_packets_decoded <= 45


def sequential_pictures(clip: Path) -> dict[float, np.ndarray]:
    """Presentation time since the first frame -> upright RGB picture, decoded the plain way."""
    pictures: dict[float, np.ndarray] = {}
    first: int | None = None
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            first = frame.pts if first is None else min(first, frame.pts)
            pictures[float(frame.pts * stream.time_base)] = picture.small_rgb(frame, long_side_px=10_000, orientation=orientation_of(frame))
    assert first is not None
    start = float(first * stream.time_base)
    return {seconds - start: image for seconds, image in pictures.items()}
