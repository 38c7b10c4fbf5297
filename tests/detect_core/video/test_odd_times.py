"""Files whose pictures are not all shown, or not at the times they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from builders import moving_pictures, write_clip
from detect_core.options import ScreeningOptions
from detect_core.structs import Frame, VideoInfo
from detect_core.video import picture
from detect_core.video.decode import DecodeSession


@dataclass(frozen=True)
class Seen:
    """What one pass over a file gave."""

    info: VideoInfo
    frames: list[Frame]
    num_planned: int
    num_packets_decoded: int
    warnings: set[str]

    @property
    def times(self) -> list[float]:
        return [frame.pts_seconds for frame in self.frames]


def look_at(path: Path, *, num_frames: int = 8) -> Seen:
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=num_frames)) as session:
        info = session.open()
        frames, more = session.next_frames(num_frames)
        assert not more
        return Seen(info, frames, session.num_planned, session.num_packets_decoded, session.warnings)


def run_ffmpeg(*arguments: str | Path) -> None:
    import subprocess

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("odd_times") / "whole.mp4"
    write_clip(path, moving_pictures(150), options={"g": "150", "bf": "2"})
    return path


# --- edit lists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_seconds", [None, 1.0])
def test_of_a_trimmed_clip_only_what_a_player_shows_is_looked_at(whole: Path, tmp_path: Path, length_seconds: float | None) -> None:
    # Given a 6 s clip of one group, cut at 4 s without encoding it anew: its edit list leaves 4 s of pictures out
    trimmed = tmp_path / "trimmed.mp4"
    run_ffmpeg("-ss", "4", "-i", whole, *(["-t", f"{length_seconds}"] if length_seconds else []), "-c", "copy", trimmed)
    shown = shown_pictures(trimmed)

    seen = look_at(trimmed)

    span = max(shown) + 1 / 25
    assert seen.info.duration_seconds == pytest.approx(span, abs=0.05)
    assert seen.info.num_packets == len(shown)
    assert not seen.warnings & {"DURATION_MISMATCH", "PARTIAL_DECODE"}
    assert len(seen.frames) == seen.num_planned == 8
    assert seen.times[0] < span / 8
    assert seen.times[-1] > span * 7 / 8 - 0.04
    for frame in seen.frames:
        moment = min(shown, key=lambda each: abs(each - frame.pts_seconds))
        assert moment == pytest.approx(frame.pts_seconds, abs=1e-6)
        np.testing.assert_array_equal(frame.image_hwc, shown[moment])


def test_a_clip_trimmed_in_many_groups_lacks_nothing(tmp_path: Path) -> None:
    clip, trimmed = tmp_path / "clip.mp4", tmp_path / "trimmed.mp4"
    write_clip(clip, moving_pictures(150), options={"g": "20", "bf": "2"})
    run_ffmpeg("-ss", "2.5", "-i", clip, "-t", "2", "-c", "copy", trimmed)

    seen = look_at(trimmed)

    assert seen.info.duration_seconds == pytest.approx(2.0, abs=0.15)
    assert not seen.warnings & {"DURATION_MISMATCH", "PARTIAL_DECODE", "DECODE_ERRORS"}
    assert len(seen.frames) == 8


# --- times ---------------------------------------------------------------------------------------------------------


def test_parts_put_one_behind_the_other_are_all_looked_at_in_order(tmp_path: Path) -> None:
    # Given two transport streams in one file, the second of which begins its times anew
    early, late, both = tmp_path / "early.ts", tmp_path / "late.ts", tmp_path / "both.ts"
    write_clip(early, moving_pictures(50, seed=1), options={"g": "25"})
    write_clip(late, moving_pictures(50, seed=2), options={"g": "25"}, times=[30 + i / 25 for i in range(50)])
    both.write_bytes(late.read_bytes() + early.read_bytes())

    seen = look_at(both)

    assert len(seen.frames) == 8
    assert seen.times == sorted(set(seen.times))
    assert 3.5 < seen.info.duration_seconds < 4.5
    assert seen.times[-1] > 3.3


def test_one_picture_without_a_time_of_its_own_does_not_cost_the_plan(tmp_path: Path) -> None:
    plain, shared = tmp_path / "plain.mkv", tmp_path / "shared.mkv"
    write_clip(plain, moving_pictures(150), options={"g": "50", "bf": "0"})
    remux(plain, shared, lambda number, pts: pts - 40 if number == 20 else pts)

    seen = look_at(shared, num_frames=2)

    assert len(seen.frames) == 2
    assert seen.num_packets_decoded < 100


def test_one_picture_far_from_its_place_does_not_cost_the_plan(tmp_path: Path) -> None:
    plain, strayed = tmp_path / "plain.mkv", tmp_path / "strayed.mkv"
    write_clip(plain, moving_pictures(200), options={"g": "10", "bf": "0"})
    remux(plain, strayed, lambda number, pts: pts + 9000 if number == 33 else pts)

    seen = look_at(strayed, num_frames=4)

    assert len(seen.frames) == 4
    assert seen.num_packets_decoded < 80


@pytest.mark.parametrize("pause_ms", [60_000, 400_000])
def test_a_still_at_the_end_does_not_draw_the_looks_to_itself(tmp_path: Path, pause_ms: int) -> None:
    plain, paused = tmp_path / "plain.mkv", tmp_path / "paused.mkv"
    write_clip(plain, moving_pictures(151), options={"g": "50", "bf": "0"})
    remux(plain, paused, lambda number, pts: pts + pause_ms * (number == 150))

    moving = [time for time in look_at(paused).times if time < 6]

    assert len(moving) >= 7
    assert max(b - a for a, b in pairwise([0.0, *moving, 6.0])) < 1.8


def test_where_most_pictures_have_no_time_of_their_own_they_are_counted(tmp_path: Path) -> None:
    plain, shared = tmp_path / "plain.mkv", tmp_path / "shared.mkv"
    write_clip(plain, moving_pictures(100), options={"g": "50", "bf": "0"})
    remux(plain, shared, lambda number, pts: pts - 40 * (number % 2))

    seen = look_at(shared)

    assert len(seen.frames) == 8
    assert seen.info.duration_seconds == pytest.approx(4.0, abs=0.2)
    # decoding ends with the last picture that is wanted
    assert seen.num_packets_decoded < 100


def test_of_two_pictures_with_one_time_the_one_that_stays_is_looked_at(tmp_path: Path) -> None:
    # Given 3 s of many pictures, then 5 s of few of which each shares its time with one before it
    plain, shared = tmp_path / "plain.mkv", tmp_path / "shared.mkv"
    write_clip(plain, moving_pictures(300), options={"g": "50", "bf": "0"})
    remux(plain, shared, lambda number, _: 15 * number if number < 200 else 3000 + 100 * ((number - 200) // 2))
    pictures = [picture.small_rgb(frame, long_side_px=10_000) for frame in decoded(shared)]

    seen = look_at(shared)

    assert len([time for time in seen.times if time > 3]) == 5
    assert not seen.warnings & {"UNSEEN_STRETCH", "PARTIAL_DECODE"}
    for frame in seen.frames:
        number = round(frame.pts_seconds / 0.015) if frame.pts_seconds < 3 else 201 + 2 * round((frame.pts_seconds - 3) / 0.1)
        np.testing.assert_array_equal(frame.image_hwc, pictures[number])


def test_a_stretch_without_usable_times_is_named(tmp_path: Path) -> None:
    # Given 20 pictures in 820 whose times are those of pictures decoded long before, in a pause of 4 s
    plain, pause = tmp_path / "plain.mkv", tmp_path / "pause.mkv"
    write_clip(plain, moving_pictures(821, size=(64, 64)), options={"g": "400", "bf": "0", "preset": "ultrafast"})
    remux(plain, pause, lambda number, _: 8 * number if number < 800 else 8 * (number - 800) if number < 820 else 10_400, early_ms=6400)

    seen = look_at(pause)

    assert "UNSEEN_STRETCH" in seen.warnings
    assert seen.num_packets_decoded < 821


def test_a_picture_that_is_gone_at_once_is_not_looked_at(tmp_path: Path) -> None:
    # Given a long clip whose key pictures, the cheapest ones, are each replaced 2 ms later
    plain, hidden = tmp_path / "plain.mkv", tmp_path / "hidden.mkv"
    write_clip(plain, moving_pictures(300), options={"g": "10", "bf": "0"}, rate=10)
    remux(plain, hidden, lambda number, pts: pts + 98 if number % 10 == 0 else pts)

    seen = look_at(hidden)

    assert len(seen.frames) == 8
    assert [time for time in seen.times if round(1000 * time + 98) % 1000 == 98] == []


def decoded(clip: Path) -> list[av.VideoFrame]:
    with av.open(str(clip)) as container:
        return list(container.decode(video=0))


def remux(source: Path, target: Path, moved: Callable[[int, int], int], *, early_ms: int = 0) -> None:
    """Write the packets of `source` with other times, in milliseconds, and decoding times that are `early_ms` before theirs."""
    with av.open(str(source)) as given, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            original = int(packet.pts or 0)
            packet.pts = moved(number, original)
            packet.dts = min(packet.pts, original) if not early_ms else number - early_ms
            packet.stream = stream
            output.mux(packet)


def shown_pictures(clip: Path) -> dict[float, np.ndarray]:
    """Seconds since the first shown picture -> upright RGB, as FFmpeg itself shows them."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        frames = [(float(f.pts * stream.time_base), picture.small_rgb(f, long_side_px=10_000)) for f in container.decode(stream)]
    start = min(seconds for seconds, _ in frames)
    return {seconds - start: image for seconds, image in frames}
