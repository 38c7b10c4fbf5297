"""How detectors are joined: what one finds is not outvoted, what two find is more, and one wild crop is bounded."""

from __future__ import annotations

import pytest

from detect_core.calibration import LEAK, LOGIT_CLIP, Fusion

EVIDENCE = Fusion(kind="evidence_sum", offsets={"a": 0.5}, weights={"a": 2.0, "b": 1.0})


def test_evidence_adds_up() -> None:
    assert EVIDENCE.fuse({"a": 1.0, "b": 2.0}) == pytest.approx(2.5 + 2.0)


def test_a_detector_that_finds_nothing_takes_hardly_anything_back() -> None:
    assert EVIDENCE.fuse({"a": 1.0, "b": -5.0}) == pytest.approx(2.5 - 5.0 * LEAK)
    assert Fusion(kind="weighted_sum", offsets={"a": 0.5}, weights=EVIDENCE.weights).fuse({"a": 1.0, "b": -5.0}) == pytest.approx(-2.5)


def test_more_evidence_never_means_a_lower_score() -> None:
    values = [EVIDENCE.fuse({"a": a / 4, "b": 1.0}) for a in range(-40, 41)]
    assert values == sorted(values)


def test_every_part_is_bounded() -> None:
    assert EVIDENCE.fuse({"a": 1e9, "b": 1e9}) == 2 * LOGIT_CLIP
    assert EVIDENCE.fuse({"a": -1e9, "b": -1e9}) == pytest.approx(-2 * LEAK * LOGIT_CLIP)
    assert Fusion(kind="max", offsets={}, weights={}).fuse({"a": 1e9}) == LOGIT_CLIP


def test_a_detector_that_did_not_score_is_left_out() -> None:
    assert EVIDENCE.fuse({"b": 2.0}) == 2.0


def test_the_loudest_is_the_one_with_the_largest_part() -> None:
    assert EVIDENCE.loudest({"a": 0.5, "b": 1.4}) == "a"
    assert EVIDENCE.loudest({"a": 0.4, "b": 1.4}) == "b"
