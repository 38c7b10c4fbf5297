"""Faces unlike the calibration's are far away, those like them are near; a broken description is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from detect_core.domain import FEATURES, Domain, appearance
from detect_core.errors import BundleIntegrityError


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[10:210, 120:320])


@pytest.fixture(scope="module")
def domain(face: np.ndarray) -> Domain:
    """Variations of light, colour and sharpness around one portrait."""
    rng = np.random.default_rng(0)
    looks = []
    for _ in range(60):
        varied = np.clip(face * rng.uniform(0.6, 1.3) * rng.uniform(0.9, 1.1, 3) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
        looks.append(appearance([cv2.GaussianBlur(varied, (0, 0), rng.uniform(0.3, 1.5))]))
    sample = np.array(looks)
    made = Domain(mean=sample.mean(axis=0), precision=np.linalg.inv(np.cov(sample.T) + 1e-3 * np.eye(len(FEATURES))), limit=1.0)
    return Domain(mean=made.mean, precision=made.precision, limit=max(made.distance(look) for look in looks))


def test_the_same_face_is_near_whatever_its_size(face: np.ndarray, domain: Domain) -> None:
    for side in (96, 128, 160, 224):
        assert domain.distance(appearance([cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)])) <= domain.limit


@pytest.mark.parametrize("kind", ["green", "negative", "night", "noise"])
def test_what_nobody_measured_is_far(face: np.ndarray, domain: Domain, kind: str) -> None:
    strange = {
        "green": face * np.array([0, 1, 0], np.uint8),
        "negative": 255 - face,
        "night": (face * 0.05).astype(np.uint8),
        "noise": np.random.default_rng(1).integers(0, 256, face.shape, np.uint8),
    }[kind]
    assert domain.distance(appearance([strange])) > domain.limit


def test_a_domain_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BundleIntegrityError, match="calibrate again"):
        Domain(mean=np.zeros(2), precision=np.eye(2), limit=3.0)
    with pytest.raises(BundleIntegrityError, match="finite"):
        Domain(mean=np.full(len(FEATURES), np.nan), precision=np.eye(len(FEATURES)), limit=3.0)
