"""The detector that looks at a whole track."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detect_core.bundle import Bundle, CropSpec, load_bundle, save_bundle
from detect_core.detectors import is_track_bundle, load_track_detector
from detect_core.detectors.temporal import MIN_LOOKS, NUM_FEATURES, WINDOW, window_features
from detect_core.errors import BundleMismatchError
from detect_core.nets.linear_statistics import LinearStatistics

FACE = np.array([[0.4, 0.42], [0.6, 0.42], [0.5, 0.52], [0.42, 0.62], [0.58, 0.62]], np.float32)


def picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 255, (112, 112, 3), dtype=np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    net = LinearStatistics(NUM_FEATURES)
    with torch.no_grad():
        net.head.weight.fill_(-1.0)  # less change leans fake
        net.head.bias.zero_()
    save_bundle(
        tmp_path / "temporal",
        net,
        name="temporal",
        version="1",
        detector="temporal",
        net="linear_statistics",
        net_options={"num_features": NUM_FEATURES},
        crop=CropSpec(size_px=112, margin=1.6),
        temperature=1.0,
        card={},
    )
    return load_bundle(tmp_path / "temporal")


def test_every_window_of_a_track_is_measured() -> None:
    rng = np.random.default_rng(0)
    features = window_features([picture(rng) for _ in range(10)], [FACE] * 10)

    assert features is not None
    assert features.shape == (10 - WINDOW + 1, NUM_FEATURES)
    assert np.isfinite(features).all()


def test_a_track_of_the_fewest_looks_is_one_window_and_a_shorter_one_says_nothing(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    crops = [picture(rng) for _ in range(MIN_LOOKS)]
    detector = load_track_detector(bundle)

    scored = detector.track_logits(crops, [FACE] * MIN_LOOKS)
    assert scored is not None
    assert scored.shape == (MIN_LOOKS,)
    assert detector.track_logits(crops[1:], [FACE] * (MIN_LOOKS - 1)) is None


def blurred(rng: np.random.Generator) -> np.ndarray:
    low = rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)
    return cv2.resize(low, (112, 112), interpolation=cv2.INTER_CUBIC)


def test_a_photograph_moved_across_the_screen_says_nothing_and_a_changing_face_is_scored(bundle: Bundle) -> None:
    rng = np.random.default_rng(1)
    base = blurred(rng)
    shifted = [np.roll(base, 3 * i, axis=1) for i in range(8)]
    moved = [FACE + np.array([3 * i / 112, 0], np.float32) for i in range(8)]
    detector = load_track_detector(bundle)

    assert detector.track_logits([base] * 8, [FACE] * 8) is None
    assert detector.track_logits(shifted, moved) is None
    assert detector.track_logits([blurred(rng) for _ in range(8)], [FACE] * 8) is not None


def test_a_face_that_changes_less_gets_the_higher_logit_from_a_line_that_says_so(bundle: Bundle) -> None:
    rng = np.random.default_rng(2)
    base = blurred(rng).astype(np.float32)
    others = [blurred(rng).astype(np.float32) for _ in range(8)]

    def logit(strength: float) -> float:
        crops = [np.asarray((1 - strength) * base + strength * other, np.uint8) for other in others]
        values = load_track_detector(bundle).track_logits(crops, [FACE] * 8)
        assert values is not None
        return float(values[0])

    assert logit(0.3) > logit(0.9)


def test_crops_of_another_size_and_crop_bundles_are_refused(bundle: Bundle) -> None:
    assert is_track_bundle(bundle)
    with pytest.raises(BundleMismatchError, match="112"):
        load_track_detector(bundle).track_logits([np.zeros((64, 64, 3), np.uint8)] * 6, [FACE] * 6)
    from detect_core.calibration import load_bundle_set

    with pytest.raises(BundleMismatchError, match="temporal"):
        load_track_detector(next(b for b in load_bundle_set().bundles if not is_track_bundle(b)))
