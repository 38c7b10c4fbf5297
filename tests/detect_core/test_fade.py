"""Compression takes the ground from detectors of fine traces: their scores are corrected, then not heard."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from builders import astronaut_pictures, write_clip
from detect_core.calibration import Fade, Fusion
from detect_core.errors import BundleIntegrityError
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener

FUSION = Fusion(
    kind="evidence_sum",
    offsets={"fine": 0.5, "slow": 0.1},
    weights={"fine": 0.8, "slow": 1.0},
    fades={"fine": Fade(full_until=26.0, none_from=36.0, drift=0.2)},
)


@pytest.mark.parametrize("quantiser", [None, 10.0, 26.0])
def test_up_to_what_the_detectors_were_measured_on_and_where_nobody_knows_nothing_changes(quantiser: float | None) -> None:
    logits = {"fine": 1.0, "slow": -0.4}

    assert FUSION.under(quantiser).fuse(logits) == pytest.approx(FUSION.fuse(logits))


def test_in_between_what_compression_adds_is_taken_back_and_the_rest_counts_less() -> None:
    part = 0.8 * (3.0 - 5 * 0.2) + 0.5

    assert FUSION.under(31.0).fuse({"fine": 3.0}) == pytest.approx(0.5 * part)


@pytest.mark.parametrize("quantiser", [36.0, 51.0])
def test_beyond_it_is_not_heard_and_not_named_while_the_others_stay_as_they_are(quantiser: float) -> None:
    faded = FUSION.under(quantiser)

    assert faded.fuse({"fine": 6.0, "slow": 0.9}) == pytest.approx(1.0)
    assert faded.loudest({"fine": 6.0, "slow": -2.0}) == "slow"
    assert FUSION.loudest({"fine": 6.0, "slow": -2.0}) == "fine"


@pytest.mark.parametrize(("full_until", "none_from", "drift"), [(30.0, 30.0, 0.1), (30.0, 20.0, 0.1), (20.0, 30.0, math.nan)])
def test_a_fade_that_cannot_be_is_refused(full_until: float, none_from: float, drift: float) -> None:
    with pytest.raises(BundleIntegrityError, match="calibrate again"):
        Fade(full_until=full_until, none_from=none_from, drift=drift)


def test_a_maximum_cannot_fade() -> None:
    with pytest.raises(BundleIntegrityError, match="use a sum"):
        Fusion(kind="max", offsets={}, weights={}, fades=FUSION.fades)


def test_a_screening_hears_less_of_them_the_harder_its_video_was_compressed(tmp_path: Path) -> None:
    screener = Screener.load(options=ScreeningOptions(num_frames=8, first_look=None, num_looks_undecided=1))
    names = [bundle.name for bundle in screener.bundle_set.bundles]
    # every part is 1 whatever the nets say, so that only compression can make a difference
    loud = Fusion("weighted_sum", dict.fromkeys(names, 1.0), dict.fromkeys(names, 1e-9), {name: Fade(20.0, 40.0, 0.0) for name in names})
    calibration = replace(screener.bundle_set.calibration, fusion=loud, platt_a=0.1, platt_c=0.0, domain=None, max_quantiser=None)
    screener.bundle_set = replace(screener.bundle_set, calibration=calibration)
    found = {}
    try:
        for quantiser in (10, 30, 45):
            write_clip(tmp_path / "clip.mp4", astronaut_pictures(24), options={"x264-params": f"qp={quantiser}:ipratio=1"})
            with (tmp_path / "clip.mp4").open("rb") as file:
                found[quantiser] = screener.screen(file).tracks[0].z
    finally:
        screener.close()

    assert found[10] > 1
    assert found[30] == pytest.approx(found[10] / 2, abs=0.1)
    assert found[45] == pytest.approx(0.0, abs=1e-3)
