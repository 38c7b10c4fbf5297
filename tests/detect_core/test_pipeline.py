"""The whole library on real decoding, real faces and the shipped bundles."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from builders import astronaut_pictures, joined_parts, moving_pictures, write_clip
from detect_core.batching import Pending
from detect_core.bundle import SHIPPED_ROOT
from detect_core.calibration import load_bundle_set
from detect_core.errors import BundleIntegrityError, BundleNotFoundError, CorruptContainerError, DetectorError, ScreeningCancelled
from detect_core.options import HARDWARE_OUTCOMES, DecodeLimits, ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.structs import FaceBox, Frame, Verdict

OPTIONS = ScreeningOptions(num_frames=16, thumbnails=True, first_look=None)


@pytest.fixture(scope="module")
def screener() -> Iterator[Screener]:
    made = Screener.load(options=OPTIONS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "portrait.mp4"
    write_clip(path, astronaut_pictures(50))
    return path


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "crowd.mp4"
    write_clip(path, [np.hstack([picture, picture[:, ::-1]]) for picture in astronaut_pictures(30)])
    return path


def judge(screener: Screener, path: Path) -> Verdict:
    with path.open("rb") as file:
        return screener.screen(file)


def test_a_video_that_shows_its_pictures_twice_was_looked_at_as_far_as_can_be(screener: Screener, tmp_path: Path) -> None:
    """Of two pictures 2 ms apart one is gone at once: 10 looks of 16 are all that there are."""
    path = tmp_path / "doubled.mkv"
    write_clip(path, astronaut_pictures(20), times=[i // 2 / 30 + i % 2 * 0.002 for i in range(20)], options={"bf": "0"})
    verdict = judge(screener, path)
    assert verdict.sampling.num_decoded == 10
    assert "PARTIAL_DECODE" not in verdict.warnings


def test_one_coarse_picture_does_not_make_a_video_coarse(screener: Screener, tmp_path: Path) -> None:
    path = tmp_path / "clip.ts"
    path.write_bytes(joined_parts([(9, 20), (9, 20), (9, 20), (1, 40), (9, 20)]))
    assert judge(screener, path).video.quantiser == pytest.approx(20, abs=0.5)


def test_a_portrait_gets_a_measured_verdict_with_everything_that_explains_it(screener: Screener, portrait: Path) -> None:
    verdict = judge(screener, portrait)

    assert verdict.verdict in ("authentic", "suspicious", "manipulated")
    assert verdict.p_fake is not None
    (track,) = verdict.tracks
    assert track.num_crops == verdict.sampling.num_decoded == 16
    assert track.worst is not None
    assert verdict.sentence
    assert verdict.bundle_set.startswith("default@")
    # the clip is a photograph under a moving camera: nothing for the detector that looks at how a face changes
    expected = {"blend": "scored", "synthesis": "scored", "autogan": "scored", "temporal": "no_crops", "xception": "not_loaded"}
    assert {report.name: report.state for report in verdict.detectors} == expected
    assert verdict.evidence
    assert all(each.thumbnail_jpeg is not None and each.thumbnail_jpeg.startswith(b"\xff\xd8") for each in verdict.evidence)
    assert {"decode", "detect", "crop", "classify"} <= verdict.stage_seconds.keys()


def test_evidence_boxes_lie_on_the_face_in_full_size_pixels(screener: Screener, portrait: Path) -> None:
    verdict = judge(screener, portrait)
    for moment in verdict.evidence:
        x0, y0, x1, y1 = moment.xyxy
        assert 0 < x0 < x1 < verdict.video.width_px
        assert 60 < x1 - x0 < 200
        assert abs((y0 + y1) / 2 - verdict.video.height_px / 2) < 100


def test_the_same_file_gets_the_same_verdict_alone_and_among_others(screener: Screener, portrait: Path, crowd: Path) -> None:
    alone = judge(screener, portrait)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda path: judge(screener, path), [portrait, crowd, portrait, crowd, portrait, crowd]))

    for verdict in (together[0], together[2], together[4]):
        assert verdict.verdict == alone.verdict
        assert verdict.p_fake == pytest.approx(alone.p_fake, abs=1e-4)


def test_two_faces_are_two_tracks(screener: Screener, crowd: Path) -> None:
    assert len(judge(screener, crowd).tracks) == 2


def test_faces_beyond_the_limit_are_left_out_and_named(screener: Screener, crowd: Path) -> None:
    narrow = Screener(screener.bundle_set, options=ScreeningOptions(num_frames=8, max_faces_per_frame=1))
    verdict = judge(narrow, crowd)
    narrow.close()

    assert "FACES_LEFT_OUT" in verdict.warnings
    assert verdict.sampling.num_faces == 8
    assert "FACES_LEFT_OUT" not in judge(screener, crowd).warnings


def test_the_moments_of_a_verdict_show_the_face_that_decided(screener: Screener, crowd: Path) -> None:
    verdict = judge(screener, crowd)

    assert len(verdict.tracks) == 2
    assert {moment.track_id for moment in verdict.evidence} == {verdict.deciding_track}


def test_a_video_without_a_face_is_inconclusive_and_unscored(screener: Screener, tmp_path: Path) -> None:
    write_clip(tmp_path / "none.mp4", moving_pictures(30))
    verdict = judge(screener, tmp_path / "none.mp4")

    assert (verdict.verdict, verdict.p_fake, verdict.reason_codes) == ("inconclusive", None, ("NO_FACE",))
    assert {report.state for report in verdict.detectors} <= {"no_crops", "not_loaded"}


def test_a_face_in_too_few_frames_is_inconclusive_and_says_so(screener: Screener, tmp_path: Path) -> None:
    write_clip(tmp_path / "short.mp4", [*astronaut_pictures(2), *moving_pictures(14, size=(480, 360))])
    verdict = judge(screener, tmp_path / "short.mp4")

    assert (verdict.verdict, verdict.p_fake, verdict.reason_codes) == ("inconclusive", None, ("TOO_FEW_FRAMES",))
    assert "2 of 16 frames" in verdict.sentence


def test_faces_that_are_too_small_are_named(screener: Screener, tmp_path: Path) -> None:
    write_clip(tmp_path / "small.mp4", astronaut_pictures(16, size=(240, 180), zoom=0.55))
    verdict = judge(screener, tmp_path / "small.mp4")

    assert (verdict.verdict, verdict.p_fake) == ("inconclusive", None)
    assert verdict.reason_codes[0] in ("FACE_TOO_SMALL", "NO_FACE")


def test_a_verdict_tells_how_its_video_was_decoded_when_a_card_was_asked_for(screener: Screener, portrait: Path) -> None:
    asking = Screener(screener.bundle_set, options=replace(OPTIONS, decode=DecodeLimits(hardware_decode="cuda")))
    verdict = judge(asking, portrait)
    asking.close()

    plain = judge(screener, portrait)
    assert verdict.extra["hardware_decode"] in HARDWARE_OUTCOMES
    assert "hardware_decode" not in plain.extra
    assert (verdict.verdict, verdict.p_fake) == (plain.verdict, plain.p_fake)


@pytest.mark.parametrize("first_look", [None, 8])
def test_decoding_in_threads_changes_no_verdict(screener: Screener, tmp_path: Path, first_look: int | None) -> None:
    sound, damaged = tmp_path / "sound.webm", tmp_path / "damaged.webm"
    write_clip(sound, astronaut_pictures(40), codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"})
    content = bytearray(sound.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 2000] = b"\xff" * 2000
    damaged.write_bytes(content)
    options = replace(OPTIONS, first_look=first_look)
    alone, threaded = Screener(screener.bundle_set, options=options), Screener(screener.bundle_set, options=options, decode_threads=3)
    asked = count_doubts(threaded)

    for clip, doubts in ((sound, 0), (damaged, 1)):
        expected, found = judge(alone, clip), judge(threaded, clip)
        assert (found.verdict, found.p_fake, found.warnings) == (expected.verdict, expected.p_fake, expected.warnings)
        assert found.tracks == expected.tracks
        assert len(asked) == doubts
    alone.close()
    threaded.close()


def count_doubts(screener: Screener) -> list[str]:
    """Filled with an entry whenever the screener goes on in one thread."""
    asked, plain = [], screener._screen

    def screen(file: BinaryIO, run: Any) -> Verdict:
        asked.extend(["again"] if run.decode_threads == 1 else [])
        return plain(file, run)

    screener._screen = screen  # type: ignore[method-assign]
    return asked


def test_a_window_at_a_time_gives_the_same_verdict_as_all_at_once(screener: Screener, portrait: Path) -> None:
    whole = judge(screener, portrait)
    narrow = Screener(
        screener.bundle_set, options=ScreeningOptions(num_frames=16, first_look=None, decode=DecodeLimits(hold_bytes=1_500_000))
    )
    windowed = judge(narrow, portrait)
    narrow.close()

    assert windowed.sampling.pts_seconds == whole.sampling.pts_seconds
    assert windowed.verdict == whole.verdict
    # a face found by the whole cascade sits a pixel beside the one that was refined between two of them
    assert windowed.p_fake == pytest.approx(whole.p_fake, abs=0.1)


def test_a_refused_file_raises_and_the_screener_lives_on(screener: Screener, portrait: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(portrait.read_bytes()[:5000])
    with pytest.raises(CorruptContainerError):
        judge(screener, broken)
    assert judge(screener, portrait).p_fake is not None


def test_cancel_and_deadline_end_a_screening(screener: Screener, portrait: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with portrait.open("rb") as file, pytest.raises(ScreeningCancelled):
        screener.screen(file, cancel=cancel)
    with portrait.open("rb") as file, pytest.raises(DetectorError, match="deadline"):
        screener.screen(file, deadline_seconds=0.001)


def test_a_screening_that_fails_leaves_nothing_for_the_device(screener: Screener, portrait: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[Pending] = []
    start, find = screener.engine.start_logits, screener._gatherer.find_faces

    def start_noted(*args: Any, **how: Any) -> Pending:
        queued.append(start(*args, **how))
        return queued[-1]

    def find_once(frames: Sequence[Frame], run: Any) -> list[list[FaceBox]]:
        if queued:
            raise DetectorError("the second window fails")
        return find(frames, run)

    monkeypatch.setattr(screener.engine, "start_logits", start_noted)
    monkeypatch.setattr(screener._gatherer, "find_faces", find_once)
    with pytest.raises(DetectorError, match="second window"):
        judge(screener, portrait)

    assert queued
    assert all(each._submission.abandoned for each in queued)


def test_a_missing_or_altered_bundle_stops_the_start(tmp_path: Path) -> None:
    copy = tmp_path / "bundles"
    shutil.copytree(SHIPPED_ROOT, copy)
    shard = next(copy.rglob("*.safetensors"))
    payload = bytearray(shard.read_bytes())
    payload[len(payload) // 2] ^= 1
    shard.write_bytes(payload)
    with pytest.raises(BundleIntegrityError, match="sha256"):
        load_bundle_set(copy / "default.json")
    shard.unlink()
    with pytest.raises(BundleNotFoundError):
        load_bundle_set(copy / "default.json")


def test_the_shipped_set_states_how_its_thresholds_were_found() -> None:
    document = json.loads((SHIPPED_ROOT / "default.json").read_text())
    protocol = document["protocol"]
    assert protocol["num_real_videos"] > 0
    assert 0 <= protocol["fpr_at_t_fake"] <= protocol["fpr_upper_95"] <= 1
