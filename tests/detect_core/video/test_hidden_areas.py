"""What the file tells players to cut off, to see through or to leave out is said: a fake may be what they show."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from builders import moving_pictures, write_clip
from detect_core.options import ScreeningOptions
from detect_core.video.decode import DecodeSession
from detect_core.video.matroska import hides_pixels
from detect_core.video.mp4boxes import survey
from detect_core.video.picture import is_transparent


def warnings_of(path: Path) -> set[str]:
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=4)) as session:
        session.open()
        session.next_frames(4)
        return session.warnings


def with_clean_aperture(mp4: bytes, *, width: int, height: int) -> bytes:
    """The file with a `clap` box in its video sample entry; its index stands behind the pictures."""
    clap = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    out, start, stop = bytearray(mp4), 0, len(mp4)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = start
        while out[at + 4 : at + 8] != kind:
            at += int.from_bytes(out[at : at + 4], "big")
        stop = at + int.from_bytes(out[at : at + 4], "big")
        out[at : at + 4] = (stop - at + len(clap)).to_bytes(4, "big")
        start = at + (16 if kind == b"stsd" else 8)
    return bytes(out[:stop] + clap + out[stop:])


@pytest.mark.parametrize(("width", "height", "is_hidden"), [(320, 240, False), (312, 236, False), (160, 240, True), (32, 24, True)])
def test_a_clean_aperture_that_hides_more_than_borders_is_said(tmp_path: Path, width: int, height: int, is_hidden: bool) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, moving_pictures(6))
    clip.write_bytes(with_clean_aperture(clip.read_bytes(), width=width, height=height))

    assert ("HIDDEN_PICTURE_AREA" in warnings_of(clip)) == is_hidden


def element(ident: str, *content: bytes, open_ended: bool = False) -> bytes:
    payload = b"".join(content)
    return bytes.fromhex(ident) + (b"\x01" + b"\xff" * 7 if open_ended else (len(payload) | 1 << 56).to_bytes(8, "big")) + payload


def track(*, crop: int, width: int = 640) -> bytes:
    sides = [element(ident, number.to_bytes(2, "big")) for ident, number in (("B0", width), ("54DD", crop), ("BA", 480))]
    return element("AE", element("D7", b"\x01"), element("E0", *sides))


@pytest.mark.parametrize(("crop", "is_hidden"), [(0, False), (16, False), (320, True), (640, True), (9000, True)])
@pytest.mark.parametrize("open_ended", [False, True])
def test_matroska_pixels_that_players_cut_off_are_found_wherever_the_tracks_stand(crop: int, is_hidden: bool, open_ended: bool) -> None:
    cluster = element("1F43B675", element("E7", b"\x00"), element("A3", b"\xe0" * 90), open_ended=open_ended)
    tracks = element("1654AE6B", track(crop=0), track(crop=crop))
    for parts in ((tracks, cluster), (cluster, tracks)):
        file = element("1A45DFA3", b"\x42") + element("18538067", *parts, open_ended=open_ended)
        assert hides_pixels(io.BytesIO(file), size=len(file)) == is_hidden


def test_tracks_that_are_not_found_may_hide_something() -> None:
    """A demuxer searches on where this walk gives up."""
    tracks = element("1654AE6B", track(crop=0))
    for before in (b"\x00", element("EC") * 100_001):
        file = element("1A45DFA3", b"\x42") + element("18538067", before, tracks)
        assert hides_pixels(io.BytesIO(file), size=len(file))
    for noise in (b"", b"\x00" * 40, b"\xff" * 40, b"\x1a\x45", np.random.default_rng(0).bytes(4096)):
        assert hides_pixels(io.BytesIO(noise), size=len(noise))


def test_a_sample_entry_that_is_longer_than_is_read_may_hide_something() -> None:
    entry = struct.pack(">I4s", 2**21, b"avc1") + bytes(2**21 - 8)
    stsd = struct.pack(">I4sII", 2**21 + 16, b"stsd", 0, 1) + entry
    file = struct.pack(">I4s", 8 + len(stsd), b"moov") + stsd
    assert survey(io.BytesIO(file), size=len(file)).hides_pixels


@pytest.mark.parametrize(("pixel_format", "is_said"), [("yuva420p", True), ("yuv420p", False)])
def test_a_second_picture_of_transparency_is_said(tmp_path: Path, pixel_format: str, is_said: bool) -> None:
    clip, webm = tmp_path / "clip.mp4", tmp_path / "clip.webm"
    write_clip(clip, moving_pictures(6))
    encode = ["-c:v", "libvpx-vp9", "-auto-alt-ref", "0", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", pixel_format]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", clip, *encode, webm], check=True)

    assert ("ALPHA_IGNORED" in warnings_of(webm)) == is_said
    assert "HIDDEN_PICTURE_AREA" not in warnings_of(webm)


@pytest.mark.parametrize(("alpha", "is_seen_through"), [(255, False), (240, False), (100, True), (0, True)])
def test_only_a_picture_with_clear_parts_can_be_seen_through(alpha: int, is_seen_through: bool) -> None:
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[:16, :16, 3] = alpha
    assert is_transparent(av.VideoFrame.from_ndarray(pixels, format="rgba")) == is_seen_through
    assert not is_transparent(av.VideoFrame.from_ndarray(pixels[..., :3].copy(), format="rgb24"))


@pytest.mark.parametrize(("shown_seconds", "is_said"), [(1.0, True), (3.5, False)])
def test_an_edit_list_that_leaves_out_more_than_a_second_is_said(tmp_path: Path, shown_seconds: float, is_said: bool) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, moving_pictures(100), options={"g": "10", "bf": "0"})
    data = bytearray(clip.read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = round(1000 * shown_seconds).to_bytes(4, "big")
    clip.write_bytes(data)

    assert ("EDIT_LIST" in warnings_of(clip)) == is_said
