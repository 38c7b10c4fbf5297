"""Uploads that are odd without hiding anything: they keep their plan, and nothing is said that bars a clear verdict."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from builders import moving_pictures, write_clip
from detect_core.options import ScreeningOptions
from detect_core.policy import NOT_LOOKED_AT
from detect_core.video.decode import DecodeSession
from detect_core.video.index import _lead, _Seen

SMALL = (128, 96)


def look_at(path: Path, *, num_frames: int = 8) -> tuple[DecodeSession, int]:
    """The closed session and how many pictures came."""
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=num_frames)) as session:
        session.open()
        frames, _more = session.next_frames(num_frames)
    return session, len(frames)


def run_ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def assert_whole_look(path: Path, *, num_frames: int = 8) -> DecodeSession:
    session, num_came = look_at(path, num_frames=num_frames)
    assert num_came == session.num_planned
    assert not session.warnings & set(NOT_LOOKED_AT)
    return session


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes in groups of five seconds, its index before the pictures."""
    path = tmp_path_factory.mktemp("honest") / "minutes.mp4"
    options = {"g": "125", "bf": "2", "preset": "ultrafast", "movflags": "faststart"}
    write_clip(path, moving_pictures(3000, size=SMALL), options=options)
    fast = path.with_name("fast.mp4")
    run_ffmpeg("-i", path, "-c", "copy", "-movflags", "+faststart", fast)
    return fast


def test_a_file_that_is_cut_off_is_not_decoded_whole(minutes: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(minutes.read_bytes()[: -minutes.stat().st_size // 3])

    session, num_came = look_at(cut)

    assert num_came == 8
    assert session.num_packets_decoded < 600


def test_one_damaged_picture_costs_no_more_than_what_follows_it(minutes: Path, tmp_path: Path) -> None:
    # Given a picture near the end whose first NAL unit claims more bytes than there are
    with av.open(str(minutes)) as container:
        packet = [p for p in container.demux(video=0) if p.size][2900]
        at, size = packet.pos, packet.size
    data = bytearray(minutes.read_bytes())
    assert at is not None
    data[at : at + 4] = (size * 2).to_bytes(4, "big")
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)

    session, num_came = look_at(damaged)

    assert num_came == 8
    assert session.num_packets_decoded < 900


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_recording_that_was_begun_between_two_key_pictures_lacks_nothing(codec: str, tmp_path: Path) -> None:
    # Given a broadcast of which the first second was cut away: a second of pictures that no player can show, then whole groups
    whole, begun = tmp_path / "whole.ts", tmp_path / "begun.ts"
    options = {"libx264": {"g": "50", "bf": "2"}, "libx265": {"x265-params": "keyint=50:open-gop=1:bframes=3:log-level=none"}}[codec]
    write_clip(whole, moving_pictures(250, size=SMALL), codec=codec, options=options)
    data = whole.read_bytes()
    begun.write_bytes(data[len(data) // 10 // 188 * 188 :])

    session = assert_whole_look(begun, num_frames=32)

    assert session.num_planned >= 28
    assert session.num_packets_decoded <= 250


def seen(*pictures: tuple[int, bool]) -> list[_Seen]:
    """(time, whether it is called a key) -> packets in decode order."""
    return [_Seen(pts, 100, is_called_key, is_called_key, True, 0, False) for pts, is_called_key in pictures]


def test_only_what_no_player_starts_with_may_be_missing_at_the_beginning() -> None:
    """A file that calls its first picture a key has no such beginning: what does not come of it may hide something."""
    assert _lead(seen((0, False), (1, False), (5, True), (3, False), (6, False), (9, True), (2, False))) == {0, 1, 3}
    assert _lead(seen((0, True), (1, False), (5, True), (3, False))) == set()
    assert _lead(seen((0, False), (1, False))) == set()


def test_hidden_pictures_of_vp8_are_no_looks(tmp_path: Path) -> None:
    # Given the pictures that only others refer to, which its encoder puts a tick behind the one before
    clip, webm = tmp_path / "clip.mp4", tmp_path / "clip.webm"
    write_clip(clip, moving_pictures(150, size=SMALL))
    encode = ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "25", "-enc_time_base", "1/1000", "-b:v", "200k"]
    for number in (1, 2):
        log = ["-pass", str(number), "-passlogfile", tmp_path / "log"]
        run_ffmpeg("-i", clip, *encode, *log, webm)
    with av.open(str(webm)) as container:
        hidden = [p for p in container.demux(video=0) if p.size and not memoryview(p)[0] >> 4 & 1]
    assert hidden

    for num_frames in (8, 24, 48):
        assert_whole_look(webm, num_frames=num_frames)


def test_pictures_shown_twice_leave_no_look_undone(tmp_path: Path) -> None:
    # Given a screen recorder that repeats every picture 2 ms later: half of the pictures are gone at once
    clip = tmp_path / "doubled.mkv"
    write_clip(clip, moving_pictures(48, size=SMALL), times=[i // 2 / 30 + i % 2 * 0.002 for i in range(48)], options={"bf": "0"})

    session = assert_whole_look(clip, num_frames=32)

    assert session.num_planned == 24


def test_parts_of_two_frame_rates_are_spread_over_time_as_far_as_can_be(tmp_path: Path) -> None:
    # Given transport streams put one behind the other, of which the second begins its times anew between those of the first
    first, second, both = tmp_path / "first.ts", tmp_path / "second.ts", tmp_path / "both.ts"
    write_clip(first, moving_pictures(60, seed=1, size=SMALL), rate=30, options={"g": "30"})
    write_clip(second, moving_pictures(50, seed=2, size=SMALL), rate=25, options={"g": "25"})
    both.write_bytes(first.read_bytes() + second.read_bytes())

    assert_whole_look(both)


@pytest.mark.parametrize("says", ["0", "1"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_transparency_is_what_lies_beside_the_pictures_not_what_the_track_says(says: str, has_alpha: bool, tmp_path: Path) -> None:
    """Browsers announce it in every recording that they make, and a tag of that name hides the announcement."""
    clip, webm, said = tmp_path / "clip.mp4", tmp_path / "clip.webm", tmp_path / "said.webm"
    write_clip(clip, moving_pictures(10, size=SMALL))
    pixels = "yuva420p" if has_alpha else "yuv420p"
    run_ffmpeg("-i", clip, "-c:v", "libvpx-vp9", "-auto-alt-ref", "0", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", pixels, webm)
    run_ffmpeg("-i", webm, "-c", "copy", "-metadata:s:v", f"alpha_mode={says}", said)

    session, _ = look_at(said)

    assert ("ALPHA_IGNORED" in session.warnings) == has_alpha
