"""An undecided video is looked at three times, at other frames; the middle look counts and the verdict says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from builders import astronaut_pictures, write_clip
from detect_core import errors
from detect_core.judging import Look
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.structs import Frame, Verdict, VideoInfo
from detect_core.video.decode import DecodeSession

OPTIONS = ScreeningOptions(num_frames=8, first_look=None)


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "portrait.mp4"
    write_clip(path, astronaut_pictures(40))
    return path


@pytest.fixture(scope="module")
def screener() -> Iterator[Screener]:
    made = Screener.load(options=OPTIONS)
    yield made
    made.close()


def judged(screener: Screener, path: Path, *, t_review: float, t_fake: float, options: ScreeningOptions = OPTIONS) -> Verdict:
    before = screener.bundle_set, screener.options
    calibration = replace(screener.bundle_set.calibration, t_review=t_review, t_fake=t_fake, domain=None, max_quantiser=None)
    screener.bundle_set, screener.options = replace(screener.bundle_set, calibration=calibration), options
    try:
        with path.open("rb") as file:
            return screener.screen(file)
    finally:
        screener.bundle_set, screener.options = before


def test_a_suspicious_video_gets_the_middle_of_three_looks(screener: Screener, portrait: Path) -> None:
    verdict = judged(screener, portrait, t_review=0.001, t_fake=0.999)

    looks = verdict.extra["p_fake_of_looks"]
    assert verdict.verdict == "suspicious"
    assert len(looks) == 3
    assert looks == sorted(looks)
    assert verdict.p_fake == pytest.approx(looks[1], abs=1e-3)
    assert verdict.sampling.policy.endswith("+3_looks/2")
    assert verdict.sampling.num_decoded == verdict.sampling.num_requested == 8
    assert len(verdict.extra["p_fake_recompressed"]) == 3
    assert "LOOKS_FAILED" not in verdict.warnings


@pytest.mark.parametrize(("t_review", "t_fake"), [(0.998, 0.999), (0.0001, 0.0002)])
def test_a_decided_video_gets_one(screener: Screener, portrait: Path, t_review: float, t_fake: float) -> None:
    verdict = judged(screener, portrait, t_review=t_review, t_fake=t_fake)

    assert verdict.verdict in ("authentic", "manipulated")
    assert "p_fake_of_looks" not in verdict.extra
    assert "looks" not in verdict.sampling.policy


def test_a_video_too_short_for_other_frames_keeps_its_verdict(screener: Screener, portrait: Path) -> None:
    verdict = judged(screener, portrait, t_review=0.001, t_fake=0.999, options=replace(OPTIONS, num_frames=16))

    assert verdict.verdict == "suspicious"
    assert "p_fake_of_looks" not in verdict.extra


class SecondSession:
    """Lets a screening's first decode session be, and raises `error` in place of the second one's frames."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.num_sessions = 0
        self._error = error
        opened = DecodeSession.open

        def fail(session: DecodeSession, **how: int | None) -> VideoInfo:
            self.num_sessions += 1
            if self.num_sessions == 2:
                raise self._error
            return opened(session, **how)

        monkeypatch.setattr(DecodeSession, "open", fail)


@pytest.mark.parametrize(
    "error",
    [
        errors.DecodeTimeoutError("too slow"),
        errors.DecodeResourceError("no memory"),
        errors.DecoderCrashError("crashed"),
        errors.UndecodableError("damaged"),
        errors.DetectorError("the deadline passed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_further_looks_that_fail_leave_the_verdict_of_the_first(
    screener: Screener, portrait: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    second = SecondSession(monkeypatch, error)

    verdict = judged(screener, portrait, t_review=0.001, t_fake=0.999)

    assert second.num_sessions == 2
    assert verdict.verdict == "suspicious"
    assert "LOOKS_FAILED" in verdict.warnings
    assert "p_fake_of_looks" not in verdict.extra


def test_a_screening_that_is_cancelled_in_its_further_looks_is_cancelled(
    screener: Screener, portrait: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SecondSession(monkeypatch, errors.ScreeningCancelled("drain"))
    with pytest.raises(errors.ScreeningCancelled):
        judged(screener, portrait, t_review=0.001, t_fake=0.999)


def test_a_doubt_in_further_looks_begins_the_screening_anew(screener: Screener, portrait: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = SecondSession(monkeypatch, errors.DecodeDoubtError("odd"))

    verdict = judged(screener, portrait, t_review=0.001, t_fake=0.999)

    assert second.num_sessions == 4
    assert len(verdict.extra["p_fake_of_looks"]) == 3


def test_each_look_holds_frames_of_every_turn_of_the_face_search() -> None:
    pictures = np.zeros((2, 2, 3), np.uint8)
    look = Look(frames=[Frame(frame_id=i, pts_seconds=float(i), image_hwc=pictures, scale=1.0) for i in range(96)], boxes=[[]] * 96)

    parts = [[frame.frame_id for frame in look.part(k, 3).frames] for k in range(3)]

    assert sorted(chain(*parts)) == list(range(96))
    for part in parts:
        assert len(part) == 32
        assert all(b - a <= 5 for a, b in pairwise(part))
        assert [sum(number % 3 == turn for number in part) for turn in range(3)] in ([11, 11, 10], [11, 10, 11], [10, 11, 11])
