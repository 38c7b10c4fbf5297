"""The first look lets clear videos go early; all others get the very verdict that they get without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders import astronaut_pictures, moving_pictures, write_clip
from detect_core.calibration import BundleSet
from detect_core.errors import OptionError
from detect_core.options import DecodeLimits, ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.structs import Verdict
from detect_core.video.decode import DecodeSession

WHOLE = ScreeningOptions(num_frames=16)


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "portrait.mp4"
    write_clip(path, astronaut_pictures(40))
    return path


@pytest.fixture(scope="module")
def screener() -> Iterator[Screener]:
    made = Screener.load(options=WHOLE)
    # the portrait is no one's fake: thresholds out of its way, so that only the first look matters here
    made.bundle_set = replace(made.bundle_set, calibration=replace(made.bundle_set.calibration, t_review=0.98, t_fake=0.99))
    yield made
    made.close()


def judged(screener: Screener, path: Path, *, options: ScreeningOptions, clear: float | None) -> Verdict:
    before = screener.bundle_set, screener.options
    screener.bundle_set, screener.options = with_clear(screener.bundle_set, clear), options
    try:
        with path.open("rb") as file:
            return screener.screen(file)
    finally:
        screener.bundle_set, screener.options = before


def with_clear(bundle_set: BundleSet, clear: float | None) -> BundleSet:
    return replace(bundle_set, calibration=replace(bundle_set.calibration, first_look_clear=clear))


def test_a_clear_video_is_let_go_after_the_first_look_and_says_so(screener: Screener, portrait: Path) -> None:
    verdict = judged(screener, portrait, options=replace(WHOLE, first_look=8), clear=0.97)

    assert verdict.verdict == "authentic"
    assert verdict.sampling.num_decoded == verdict.sampling.num_requested == 8
    assert verdict.sampling.policy.endswith("+first_look/3")
    assert "PARTIAL_DECODE" not in verdict.warnings


def test_a_first_look_needs_no_more_memory_than_one_window(screener: Screener, portrait: Path) -> None:
    roomy = judged(screener, portrait, options=replace(WHOLE, first_look=8), clear=0.97)
    tight = judged(screener, portrait, options=replace(WHOLE, first_look=8, decode=DecodeLimits(hold_bytes=1_500_000)), clear=0.97)

    assert tight.sampling == roomy.sampling


def test_a_first_look_decodes_fewer_packets_than_the_whole(portrait: Path) -> None:
    decoded = []
    for first_look in (8, None):
        with portrait.open("rb") as file, DecodeSession(file, options=WHOLE) as session:
            session.open(first_look=first_look)
            session.next_frames(WHOLE.num_frames)
            decoded.append(session.num_packets_decoded)

    assert decoded[0] < decoded[1]


@pytest.mark.parametrize(("clear", "first_look"), [(0.0001, 8), (None, 8), (0.97, None)])
def test_every_other_video_gets_the_verdict_of_the_whole_look(
    screener: Screener, portrait: Path, clear: float | None, first_look: int | None
) -> None:
    plain = judged(screener, portrait, options=WHOLE, clear=None)
    looked = judged(screener, portrait, options=replace(WHOLE, first_look=first_look), clear=clear)

    assert looked.sampling == plain.sampling
    assert looked.sampling.num_decoded == 16
    assert looked.verdict == plain.verdict
    assert looked.p_fake == plain.p_fake


def test_nothing_to_judge_is_never_clear(screener: Screener, tmp_path: Path) -> None:
    write_clip(tmp_path / "none.mp4", moving_pictures(30))
    verdict = judged(screener, tmp_path / "none.mp4", options=replace(WHOLE, first_look=8), clear=0.97)

    assert verdict.reason_codes == ("NO_FACE",)
    assert verdict.sampling.num_decoded == 16


def test_a_look_too_small_for_a_verdict_is_refused() -> None:
    with pytest.raises(OptionError, match="first_look"):
        ScreeningOptions(first_look=4)
    with pytest.raises(OptionError, match="num_looks_undecided"):
        ScreeningOptions(num_looks_undecided=2)
