"""Containers that lie about where decoding can start, what may be left out, and which headers hold."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet

from builders import moving_pictures, write_clip
from detect_core.options import DecodeLimits
from detect_core.video.bitstream import _headers, is_intra
from detect_core.video.foreign_file import ForeignFile
from detect_core.video.index import PacketIndex, index_packets
from detect_core.video.nal import sets_of_header
from detect_core.video.plan import plan_runs
from detect_core.video.probe import open_container
from detect_core.video.stream import DecodeTally, _second_try, decode_wanted, wanted_packets

LIMITS = DecodeLimits()
ORDINARY = {
    ("libx264", ".mp4"): {"bf": "3", "g": "15"},
    ("libx264", ".ts"): {"bf": "3", "g": "15"},
    ("libx264", ".mkv"): {"x264-params": "slices=4:keyint=15:bframes=3"},
    ("libx264", ".flv"): {"g": "15"},
    ("libx265", ".mp4"): {"x265-params": "open-gop=1:keyint=15:bframes=3:log-level=none"},
    ("libx265", ".ts"): {"x265-params": "keyint=15:log-level=none"},
    ("libx265", ".mkv"): {"x265-params": "temporal-layers=2:keyint=15:repeat-headers=1:log-level=none"},
    ("libvpx", ".webm"): {"g": "15", "deadline": "realtime"},
    ("libvpx-vp9", ".webm"): {"g": "15", "deadline": "realtime", "cpu-used": "8"},
    ("libsvtav1", ".mkv"): {"g": "15", "preset": "12"},
    ("mpeg4", ".mp4"): {"g": "15", "bf": "2"},
    ("mpeg4", ".avi"): {"g": "15"},
    ("msmpeg4", ".avi"): {"g": "15"},
    ("mpeg2video", ".ts"): {"g": "15", "bf": "2"},
    ("mpeg2video", ".mpg"): {"g": "15", "bf": "2"},
    ("mpeg1video", ".mpg"): {"g": "15"},
    ("flv", ".flv"): {"g": "15"},
}


def looks_of(path: Path, *, num_frames: int = 8) -> tuple[PacketIndex, DecodeTally, dict[int, bytes]]:
    """The planned pictures, as the decoder gives them, by their times."""
    tally = DecodeTally()
    with path.open("rb") as opened:
        file = ForeignFile(opened.fileno())
        container, stream, _ = open_container(file, limits=LIMITS)
        index = index_packets(container, stream, limits=LIMITS)
        decoded = decode_wanted(file, (container, stream), index, num_frames=num_frames, limits=LIMITS, tally=tally)
        return index, tally, {int(frame.pts or 0): frame.to_ndarray().tobytes() for _, frame in decoded}


def assert_as_a_player_shows(path: Path, *, num_frames: int = 8) -> DecodeTally:
    _, tally, looks = looks_of(path, num_frames=num_frames)
    with av.open(str(path)) as container:
        shown = {frame.pts: frame.to_ndarray().tobytes() for frame in container.decode(video=0)}
    assert len(looks) == num_frames
    assert [pts for pts, picture in looks.items() if shown[pts] != picture] == []
    assert not tally.warnings
    return tally


def rewritten(source: Path, target: Path, change: Callable[[int, Packet[Any]], Packet[Any]]) -> Path:
    """The packets of `source`, each changed."""
    with av.open(str(source)) as given, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            made = change(number, packet)
            made.stream = stream
            output.mux(made)
    return target


def copied(packet: Packet[Any], data: bytes) -> Packet[Any]:
    made: Packet[Any] = Packet(data)
    made.pts, made.dts, made.time_base, made.duration = packet.pts, packet.dts, packet.time_base, packet.duration
    made.is_keyframe = packet.is_keyframe
    return made


def as_key(_number: int, packet: Packet[Any]) -> Packet[Any]:
    packet.is_keyframe = True
    return packet


# --- key and reference flags


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("mpeg4", ".mp4", {"g": "200"}),
        ("msmpeg4", ".mkv", {"g": "200"}),
        ("libx265", ".mp4", {"x265-params": "keyint=200:bframes=0:log-level=none"}),
    ],
)
def test_a_picture_called_key_by_the_container_alone_is_decoded_from_the_real_one(
    codec: str, suffix: str, options: dict[str, str], tmp_path: Path
) -> None:
    plain = tmp_path / f"plain{suffix}"
    write_clip(plain, moving_pictures(60), codec=codec, options=options)

    assert_as_a_player_shows(rewritten(plain, tmp_path / f"lying{suffix}", as_key))


def test_hevc_pictures_that_say_nothing_refers_to_them_are_decoded_where_others_do(tmp_path: Path) -> None:
    # Given a chain of pictures, each the reference of the next, that all say that no other needs them
    plain = tmp_path / "plain.mp4"
    write_clip(plain, moving_pictures(60), codec="libx265", options={"x265-params": "keyint=200:bframes=0:log-level=none"})

    def disown(number: int, packet: Packet[Any]) -> Packet[Any]:
        data, at = bytearray(bytes(packet)), 0
        while at + 4 < len(data):
            if data[at + 4] >> 1 == 1 and number >= 20:
                data[at + 4] &= 0x81
            at += 4 + int.from_bytes(data[at : at + 4], "big")
        return copied(packet, bytes(data))

    tally = assert_as_a_player_shows(rewritten(plain, tmp_path / "disowned.mp4", disown))

    # Then they were left out at first, and all were decoded once a picture was missing
    assert tally.num_packets_decoded > 60


def test_what_pictures_say_of_themselves() -> None:
    assert is_intra("mpeg4", b"\x00\x00\x01\xb6\x10") is True
    assert is_intra("mpeg4", b"\x00\x00\x01\xb6\x50") is False
    assert is_intra("mpeg2video", b"\x00\x00\x01\x00\x00\x0f\xff") is True
    assert is_intra("mpeg2video", b"\x00\x00\x01\x00\x00\x17\xff") is False
    assert is_intra("vp8", b"\x10") is True
    assert is_intra("vp8", b"\x11") is False
    assert is_intra("theora", b"\x40") is False
    assert is_intra("gif", b"\x00") is None


# --- headers


def test_a_size_of_av1_that_never_ends_is_given_up_at_once() -> None:
    started = time.process_time()
    assert _headers("av1", b"\x0a" + b"\xff" * 2_000_000) == {}
    assert time.process_time() - started < 0.1


def joined(tmp_path: Path, headers: Callable[[int, bool], bool]) -> Path:
    """Two H.264 parts of other parameter sets in one track; `headers` says where those of the second stand in its packets.

    The header of the stream holds those of the first part. The second has a picture of its own at first, then a group.
    """
    path = tmp_path / "joined.mp4"
    parts = []
    for seed, options in enumerate(({"qp": "8", "coder": "vlc"}, {"qp": "26"})):
        part = io.BytesIO()
        extra = {"x264-params": "force-cfr=1:keyint=15:min-keyint=15:bframes=0"}
        write_clip(part, moving_pictures(60, seed=seed), container="mp4", options={**options, **extra})
        part.seek(0)
        parts.append(part)
    with av.open(parts[0]) as first, av.open(parts[1]) as second, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(first.streams.video[0])
        sets = sets_of_header("h264", second.streams.video[0].codec_context.extradata)
        header = b"".join(len(unit).to_bytes(4, "big") + unit for unit in sets)

        def packets() -> Iterator[tuple[bytes, bool]]:
            yield from ((bytes(p), p.is_keyframe) for p in first.demux(video=0) if p.size)
            for number, packet in enumerate(p for p in second.demux(video=0) if p.size):
                yield header * headers(number, packet.is_keyframe) + bytes(packet), packet.is_keyframe

        for number, (data, is_key) in enumerate(packets()):
            made: Packet[Any] = Packet(data)
            made.pts = made.dts = 512 * number
            made.time_base, made.duration, made.is_keyframe, made.stream = Fraction(1, 12800), 512, is_key, stream
            output.mux(made)
    return path


@pytest.mark.parametrize("where", ["once", "at every key picture"])
def test_new_parameter_sets_on_the_way_reach_the_decoder(where: str, tmp_path: Path) -> None:
    path = joined(tmp_path, lambda number, is_key: number == 0 if where == "once" else is_key)

    # Given a plan that leaves the packet out in which they stand
    index, _, _ = looks_of(path, num_frames=2)
    wanted = wanted_packets(index, num_frames=2, time_base=1 / 12800)
    assert all(60 not in run.numbers for run in plan_runs(index.packets, wanted=wanted))

    assert_as_a_player_shows(path, num_frames=2)


def test_a_packet_that_is_no_picture_keeps_its_place(tmp_path: Path) -> None:
    # Given a packet that holds a whole stream header instead of NAL units, which the decoder of FFmpeg takes for a new one
    plain = tmp_path / "plain.mp4"
    write_clip(plain, moving_pictures(40), options={"g": "10", "bf": "0"})
    with av.open(str(plain)) as container:
        header = bytes(container.streams.video[0].codec_context.extradata or b"")

    odd = rewritten(plain, tmp_path / "odd.mp4", lambda number, packet: copied(packet, header) if number == 13 else packet)

    assert looks_of(odd)[0].whole_from is not None


@pytest.mark.parametrize(("codec", "suffix"), ORDINARY)
def test_ordinary_streams_are_decoded_by_plan(codec: str, suffix: str, tmp_path: Path) -> None:
    clip = tmp_path / f"clip{suffix}"
    write_clip(clip, moving_pictures(40), codec=codec, options=ORDINARY[codec, suffix])

    index, _, looks = looks_of(clip, num_frames=2)

    assert index.whole_from is None
    assert index.num_keyframes >= 2
    assert len(looks) == 2


@pytest.mark.parametrize(("after", "num_given", "num_runs", "num_missed"), [(-25.0, 0, 1, 0), (512.0 * 20, 1, 1, 0), (512.0 * 60, 1, 0, 2)])
def test_a_picture_that_would_come_too_late_is_missed_not_waited_for(
    after: float, num_given: int, num_runs: int, num_missed: int, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, moving_pictures(60), options={"g": "60", "bf": "0"})
    index, _, _ = looks_of(clip)
    tally = DecodeTally(num_planned=3)

    runs = _second_try(index, [5, 25, 45], after=after, num_given=num_given, tally=tally)

    assert (len(runs), tally.num_missed, "PARTIAL_DECODE" in tally.warnings) == (num_runs, num_missed, num_missed > 0)


def test_encoding_a_clip_leaves_the_tests_their_priority(tmp_path: Path) -> None:
    """As root libsvtav1 makes its caller a real-time process: browsers, databases and workers of later tests took all cores from each other."""
    write_clip(tmp_path / "clip.mkv", moving_pictures(10), codec="libsvtav1", options={"preset": "12"})
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_parameter_sets_repeated_at_every_key_picture_change_nothing(tmp_path: Path) -> None:
    plain = tmp_path / "plain.mp4"
    write_clip(plain, moving_pictures(40), options={"g": "10", "bf": "2"})
    with av.open(str(plain)) as container:
        sets = sets_of_header("h264", container.streams.video[0].codec_context.extradata)
    assert len(sets) == 2
    header = b"".join(len(unit).to_bytes(4, "big") + unit for unit in sets)

    def repeat(_number: int, packet: Packet[Any]) -> Packet[Any]:
        return copied(packet, header + bytes(packet)) if packet.is_keyframe else packet

    repeated = rewritten(plain, tmp_path / "repeated.mp4", repeat)

    index, tally, looks = looks_of(repeated, num_frames=2)
    assert index.whole_from is None
    assert tally.num_packets_decoded < 30
    assert looks == looks_of(plain, num_frames=2)[2]
    np.testing.assert_equal(index.packets, looks_of(plain)[0].packets)
