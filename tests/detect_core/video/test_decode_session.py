"""The decode child under bad input, limits, signals and a dying worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from builders import flat_pictures, moving_pictures, write_clip, write_tone
from detect_core import errors
from detect_core.options import DecodeLimits, ScreeningOptions
from detect_core.video.decode import CropRequest, DecodeSession
from detect_core.video.keeper import NurseryKeeper


def open_clip(path: Path, **limits: float) -> DecodeSession:
    options = ScreeningOptions(num_frames=8, decode=DecodeLimits(**limits))
    with path.open("rb") as file:
        return DecodeSession(file, options=options)


def decode_all(session: DecodeSession) -> None:
    session.open()
    session.next_frames(8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_clip(path, moving_pictures(50))
    return path


# --- bad input -----------------------------------------------------------------------------------------------------


def refused(path: Path, **limits: float) -> errors.DetectCoreError:
    with pytest.raises(errors.DetectCoreError) as caught, open_clip(path, **limits) as session:
        session.open()
    return caught.value


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert refused(path).code == "EMPTY_INPUT"


def test_text_renamed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("certainly not a video")
    assert refused(path).code == "NOT_MEDIA"


def test_audio_alone_is_named(tmp_path: Path) -> None:
    write_tone(tmp_path / "tone.mp4")
    assert refused(tmp_path / "tone.mp4").code == "NO_VIDEO_STREAM"


def test_a_file_cut_before_its_index_is_named(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    error = refused(path)
    assert error.code == "CORRUPT_CONTAINER"
    assert "TRUNCATED" in str(error)


def test_a_file_with_its_index_in_front_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "fast.mkv"
    write_clip(path, moving_pictures(50), options={"g": "10"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    with open_clip(path) as session:
        session.open()
        frames, _ = session.next_frames(8)
    assert 4 <= len(frames) <= 8


def test_a_playlist_that_names_a_local_file_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "playlist.mp4"
    path.write_text("#EXTM3U\n#EXTINF:10.0,\nfile:///etc/passwd\n")
    assert refused(path).code == "FORMAT_NOT_ALLOWED"


def test_too_small_and_too_large_pictures_are_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "tiny.mp4", flat_pictures((9, 9, 9), 5, size=(64, 16)))
    assert refused(tmp_path / "tiny.mp4").code == "RESOLUTION_TOO_SMALL"
    write_clip(tmp_path / "large.mp4", flat_pictures((9, 9, 9), 5, size=(640, 480)))
    assert refused(tmp_path / "large.mp4", frame_pixels=100_000).code == "RESOLUTION_TOO_LARGE"


def test_a_file_above_the_byte_limit_is_not_even_opened(clip: Path) -> None:
    assert refused(clip, file_bytes=1000).code == "FILE_TOO_LARGE"


def test_a_video_above_the_duration_limit_is_named(clip: Path) -> None:
    assert refused(clip, duration_seconds=1).code == "DURATION_TOO_LONG"


# --- upright, right colours, right times ---------------------------------------------------------------------------


def test_rotated_video_stands_upright(clip: Path, tmp_path: Path) -> None:
    # Given a clip whose left third is bright, marked to be shown turned
    picture = np.full((96, 128, 3), 20, np.uint8)
    picture[:, :40] = 230
    write_clip(tmp_path / "plain.mp4", [picture] * 10)
    turned = tmp_path / "turned.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-display_rotation:v:0", "90"]
    subprocess.run([*command, "-i", str(tmp_path / "plain.mp4"), "-c", "copy", str(turned)], check=True, timeout=60)

    with open_clip(turned) as session:
        info = session.open()
        (frame, *_), _ = session.next_frames(8)

    # Then a counter-clockwise quarter turn puts the left edge at the bottom
    assert (info.width_px, info.height_px) == (96, 128)
    assert "ROTATED" in session.warnings
    assert frame.image_hwc.shape == (128, 96, 3)
    assert frame.image_hwc[-10:].mean() > 200 > 60 > frame.image_hwc[:50].mean()


COLOURS = {"red": (200, 30, 40), "green": (40, 180, 60), "blue": (30, 60, 200), "skin": (224, 172, 140)}


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    "encoding",
    [
        {"pixel_format": "yuv420p", "matrix": "smpte170m"},
        {"pixel_format": "yuv420p", "matrix": "bt709"},
        {"pixel_format": "yuv422p", "matrix": "bt709"},
        {"pixel_format": "yuv444p", "matrix": "smpte170m"},
        {"pixel_format": "yuv420p10le", "matrix": "bt709"},
        {"pixel_format": "yuv420p", "matrix": "bt709", "colour_range": "pc"},
    ],
    ids=lambda encoding: "-".join(encoding.values()),
)
def test_colours_survive_matrix_range_depth_and_subsampling(colour: str, encoding: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "flat.mp4"
    write_clip(path, flat_pictures(COLOURS[colour], 3), options={"crf": "4"}, **encoding)
    with open_clip(path) as session:
        session.open()
        (frame, *_), _ = session.next_frames(3)
        ((crop, _),) = session.cut([CropRequest(frame.frame_id, (64, 48), 40, 32)])
    np.testing.assert_allclose(frame.image_hwc.mean(axis=(0, 1)), COLOURS[colour], atol=3)
    np.testing.assert_allclose(crop.mean(axis=(0, 1)), COLOURS[colour], atol=3)


def test_times_follow_the_timestamps_of_a_variable_rate(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 1.0, 2.0, 3.0, 4.0, 9.0]
    write_clip(tmp_path / "vfr.mkv", moving_pictures(8), times=times)
    with open_clip(tmp_path / "vfr.mkv") as session:
        info = session.open()
        frames, _ = session.next_frames(8)
    assert [frame.pts_seconds for frame in frames] == pytest.approx(times, abs=0.002)
    assert "VFR" in info.warnings


# --- crops ---------------------------------------------------------------------------------------------------------


def test_crops_come_from_the_full_size_picture_and_repeat_the_edge(tmp_path: Path) -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:, 320:] = 255
    write_clip(tmp_path / "halves.mp4", [picture] * 3, options={"crf": "4"})
    options = ScreeningOptions(num_frames=3, small_long_side_px=160)
    with (tmp_path / "halves.mp4").open("rb") as file, DecodeSession(file, options=options) as session:
        session.open()
        frames, _ = session.next_frames(3)
        (right, _), (corner, _), (whole, _) = session.cut(
            [
                CropRequest(frames[1].frame_id, (400, 240), 100, 50),
                CropRequest(frames[0].frame_id, (0, 0), 200, 50),
                CropRequest(frames[0].frame_id, (320, 240), 0, 64, native=True),
            ]
        )
    assert frames[0].scale == pytest.approx(4.0)
    assert right.mean() > 250
    assert corner.mean() < 5
    assert whole[:, :30].mean() < 8
    assert whole[:, 34:].mean() > 247


def test_held_pictures_stay_within_their_budget(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", moving_pictures(20, size=(640, 480)))
    num_windows = 0
    options = ScreeningOptions(num_frames=8, decode=DecodeLimits(hold_bytes=1_500_000))
    with (tmp_path / "clip.mp4").open("rb") as file, DecodeSession(file, options=options) as session:
        session.open()
        more, seen = True, []
        while more:
            frames, more = session.next_frames(8)
            seen += [frame.pts_seconds for frame in frames]
            num_windows += 1
            session.release()
    assert num_windows >= 3
    assert len(seen) == 8
    assert seen == sorted(seen)


# --- limits and deaths ---------------------------------------------------------------------------------------------


def test_the_deadline_stops_the_child(tmp_path: Path) -> None:
    write_clip(tmp_path / "long.mp4", moving_pictures(150, size=(640, 480)), options={"preset": "ultrafast", "g": "600"})
    started = time.monotonic()
    session = open_clip(tmp_path / "long.mp4", wall_seconds=0.03)
    with pytest.raises(errors.DecodeTimeoutError):
        decode_all(session)
    assert time.monotonic() - started < 5
    assert session._child.dead.wait(5)
    session.close()


def test_a_set_cancel_event_stops_the_wait(clip: Path) -> None:
    cancel = threading.Event()
    with clip.open("rb") as file, DecodeSession(file, options=ScreeningOptions(), cancel=cancel) as session:
        session.open()
        cancel.set()
        with pytest.raises(errors.ScreeningCancelled):
            session.next_frames(8)


def test_the_memory_limit_is_a_named_failure(tmp_path: Path) -> None:
    write_clip(tmp_path / "hd.mp4", flat_pictures((90, 90, 90), 60, size=(1920, 1080)), options={"preset": "ultrafast"})
    with open_clip(tmp_path / "hd.mp4", memory_bytes=20_000_000) as session, pytest.raises(errors.DetectCoreError) as caught:
        decode_all(session)
    assert caught.value.code == "DECODE_RESOURCE_LIMIT"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGSEGV, "DECODER_CRASH"), (signal.SIGABRT, "DECODER_CRASH"), (signal.SIGKILL, "DECODE_RESOURCE_LIMIT")]
)
def test_a_dying_child_is_named_by_how_it_died(clip: Path, number: signal.Signals, code: str) -> None:
    with open_clip(clip) as session:
        session.open()
        os.kill(session._child.pid, number)
        with pytest.raises(errors.DetectCoreError) as caught:
            session.next_frames(8)
    assert caught.value.code == code


def test_a_new_nursery_takes_over_when_the_old_one_dies(clip: Path) -> None:
    nursery = NurseryKeeper()
    options = ScreeningOptions()
    with clip.open("rb") as file, DecodeSession(file, options=options, nursery=nursery) as session:
        session.open()
        assert nursery._nursery is not None
        nursery._nursery.process.kill()
        assert session._child.dead.wait(5)
        with pytest.raises(errors.DecodeResourceError):
            session.next_frames(8)
    with clip.open("rb") as file, DecodeSession(file, options=options, nursery=nursery) as session:
        assert session.open().num_packets == 50
    nursery.close()


def test_the_end_of_an_old_nursery_takes_nothing_from_the_new_one(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nursery = NurseryKeeper()
    options = ScreeningOptions(num_frames=8)
    heard = threading.Event()
    with clip.open("rb") as file, DecodeSession(file, options=options, nursery=nursery) as orphan:
        # Given a nursery that died, of which its listener hears late
        old = nursery._nursery
        assert old is not None
        reap = old.process.wait
        monkeypatch.setattr(old.process, "wait", lambda *_: heard.wait(10) and reap())
        old.process.kill()
        while old.process.poll() is None:
            time.sleep(0.01)
        # When another video is begun before that
        with DecodeSession(file, options=options, nursery=nursery) as session:
            heard.set()
            assert orphan._child.dead.wait(5)
            # Then it is decoded, and so is the next
            assert not session._child.dead.is_set()
            decode_all(session)
    with clip.open("rb") as file, DecodeSession(file, options=options, nursery=nursery) as session:
        decode_all(session)
    nursery.close()


_MAKES_SENSE_ONCE_IN_TWO = """
from detect_core.video import nursery, wire
send, num_said = wire.send, 0
def confused(sock, message, **more):
    global num_said
    num_said += "spawned" in message
    send(sock, {"odd": True} if "spawned" in message and num_said % 2 == 0 else message, **more)
wire.send = confused
nursery.main()
"""


def test_a_nursery_that_makes_no_sense_is_replaced(clip: Path) -> None:
    nursery = NurseryKeeper(["-c", _MAKES_SENSE_ONCE_IN_TWO])
    options = ScreeningOptions(num_frames=8)
    with clip.open("rb") as file, DecodeSession(file, options=options, nursery=nursery) as orphan:
        # When it answers with something that no nursery says
        with pytest.raises(errors.DecodeResourceError, match="ended before it started one"):
            DecodeSession(file, options=options, nursery=nursery)
        # Then its children end with it, and the next video gets another
        assert orphan._child.dead.wait(5)
        with DecodeSession(file, options=options, nursery=nursery) as following:
            following.open()
            assert len(following.next_frames(8)[0]) == 8
    nursery.close()


_FORKS_ONCE_IN_TWO = """
import os
from detect_core.video import nursery
fork, num_asked = os.fork, 0
def tired():
    global num_asked
    num_asked += 1
    if num_asked % 2 == 0:
        raise BlockingIOError(11, "no process is left")
    return fork()
os.fork = tired
nursery.main()
"""


def test_where_no_process_is_left_only_the_new_child_is_refused(clip: Path) -> None:
    nursery = NurseryKeeper(["-c", _FORKS_ONCE_IN_TWO])
    options = ScreeningOptions(num_frames=8)
    with clip.open("rb") as file, DecodeSession(file, options=options, nursery=nursery) as living:
        living.open()
        assert nursery._nursery is not None
        descriptors = Path(f"/proc/{nursery._nursery.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        # When the machine refuses a process
        with pytest.raises(errors.DecodeResourceError, match="no process is left") as caught:
            DecodeSession(file, options=options, nursery=nursery)
        # Then that video is to be tried again, and the others are decoded by the same nursery
        assert caught.value.retryable
        assert len(list(descriptors.iterdir())) == before
        assert len(living.next_frames(8)[0]) == 8
        with DecodeSession(file, options=options, nursery=nursery) as following:
            decode_all(following)
    nursery.close()


@pytest.mark.parametrize("times", [[1.0, 0.5], [1.0, 1.0], [float("nan")], [float("inf")]])
def test_times_that_no_decoder_gives_are_a_childs_misbehaviour(clip: Path, monkeypatch: pytest.MonkeyPatch, times: list[float]) -> None:
    with open_clip(clip) as session:
        session.open()
        rows = [{"id": i, "pts": time, "offset": 0, "height": 2, "width": 2, "scale": 1.0} for i, time in enumerate(times)]
        monkeypatch.setattr(session, "_answer", lambda: {"frames": rows})
        with pytest.raises(errors.DecodeProtocolError, match="do not fit"):
            session.next_frames(8)


def test_no_process_outlives_a_killed_worker(clip: Path) -> None:
    script = (
        "import sys, time\n"
        "from detect_core.video.decode import DecodeSession\n"
        "from detect_core.video.keeper import keeper\n"
        "from detect_core.options import ScreeningOptions\n"
        "session = DecodeSession(open(sys.argv[1], 'rb'), options=ScreeningOptions())\n"
        "session.open()\n"
        "print(session._child.pid, keeper()._nursery.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script, str(clip)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = [int(pid) for pid in worker.stdout.readline().split()]
    worker.kill()
    worker.wait()
    worker.stdout.close()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_descriptors_do_not_grow(clip: Path) -> None:
    def screen_once() -> None:
        with open_clip(clip) as session:
            session.open()
            session.next_frames(8)

    screen_once()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        screen_once()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
