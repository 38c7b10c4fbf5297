"""The quantiser of a video is what its encoder chose, read from the decoder; no other codec pretends to have one."""

from __future__ import annotations

import io

import av
import pytest

from builders import joined_parts, moving_pictures, write_clip
from detect_core.judging import Look
from detect_core.options import ScreeningOptions
from detect_core.video.decode import DecodeSession
from detect_core.video.quantiser import KeyPicture, key_quantiser
from detect_core.video.scaling import matrix_steps


def quantiser_in_child(tmp_path, **how) -> float | None:
    path = tmp_path / "clip.mp4"
    write_clip(path, moving_pictures(12), **how)
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=4)) as session:
        return session.open().quantiser


@pytest.mark.parametrize("quantiser", [0, 12, 25, 38, 51])
def test_a_fixed_quantiser_is_read_back(tmp_path, quantiser: int) -> None:
    measured = quantiser_in_child(tmp_path, options={"x264-params": f"qp={quantiser}:ipratio=1"})
    assert measured == pytest.approx(quantiser, abs=0.01)


def test_deep_pictures_are_counted_as_of_eight_bits(tmp_path) -> None:
    # x264 counts twelve steps more for ten bits: its 37 keeps the detail of 25
    assert quantiser_in_child(tmp_path, pixel_format="yuv420p10le", options={"x264-params": "qp=37:ipratio=1"}) == pytest.approx(
        25, abs=0.01
    )


@pytest.mark.parametrize(("entry", "fewer_steps"), [(4, 12), (8, 6), (16, 0), (64, 0)])
@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_scaling_matrices_that_make_the_steps_finer_are_counted_in(tmp_path, entry: int, fewer_steps: int, suffix: str) -> None:
    sixteen = ",".join(["%d"] * 16) % ((entry,) * 16)
    path = tmp_path / f"clip.{suffix}"
    write_clip(path, moving_pictures(12), options={"x264-params": f"qp=32:ipratio=1:cqm4={sixteen}:cqm8={','.join([str(entry)] * 64)}"})
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=4)) as session:
        info = session.open()
        frames, _ = session.next_frames(4)

    assert info.quantiser == pytest.approx(32 - fewer_steps, abs=0.01)
    assert [frame.quantiser for frame in frames] == pytest.approx([32 - fewer_steps] * 4, abs=4)


def test_the_matrices_of_the_standard_change_nothing(tmp_path) -> None:
    assert quantiser_in_child(tmp_path, options={"x264-params": "qp=32:ipratio=1:cqm=jvt"}) == pytest.approx(32, abs=0.01)


def test_parameter_sets_that_cannot_be_read_leave_the_quantiser_unknown() -> None:
    start = b"\x00\x00\x01"
    assert matrix_steps(start + b"\x67\x64\x00\x1f", b"") is None
    assert matrix_steps((start + b"\x67\x42\x00\x1f\x80") * 65, b"") is None
    assert matrix_steps(None, start + b"\x65\x80") == 0.0


def test_harder_compression_means_a_higher_quantiser(tmp_path) -> None:
    gentle, hard = (quantiser_in_child(tmp_path, options={"crf": crf}) for crf in ("18", "40"))
    assert gentle is not None
    assert hard is not None
    assert gentle + 15 < hard


def test_one_coarse_key_picture_does_not_speak_for_the_others(tmp_path) -> None:
    path = tmp_path / "clip.ts"
    path.write_bytes(joined_parts([(9, 20), (9, 20), (9, 20), (1, 40), (9, 20)]))  # of five key pictures the fourth is asked
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=12)) as session:
        info = session.open()
        frames, _ = session.next_frames(12)

    assert info.quantiser == pytest.approx(40, abs=0.01)
    assert Look(frames=frames).quantiser(info.quantiser) == pytest.approx(20, abs=0.5)


def test_fine_looked_at_pictures_do_not_make_a_video_coarser() -> None:
    assert Look().quantiser(24.0) == 24.0
    assert Look().quantiser(None) is None


@pytest.mark.parametrize("codec", ["mpeg4", "libvpx-vp9"])
def test_other_codecs_have_none(tmp_path, codec: str) -> None:
    assert quantiser_in_child(tmp_path, codec=codec) is None


def test_the_chosen_key_picture_lies_in_the_second_half() -> None:
    for count in range(1, 70):
        key = KeyPicture()
        packets = [av.Packet(1) for _ in range(count)]
        for packet in packets:
            key.add(packet)
        assert key.packet is not None
        assert packets.index(key.packet) >= (count - 1) // 2


def test_a_damaged_key_picture_is_no_measurement() -> None:
    buffer = io.BytesIO()
    write_clip(buffer, moving_pictures(3), container="mp4")
    buffer.seek(0)
    with av.open(buffer) as container:
        context = container.streams.video[0].codec_context
        assert key_quantiser(context, av.Packet(b"\x00\x00\x00\x04\x65\xff\xff\xff"), pixels=1 << 20)() is None
        assert key_quantiser(context, None, pixels=1 << 20)() is None
