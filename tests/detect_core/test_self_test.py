"""A worker that checks itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detect_core.calibration import DEFAULT_SET, BundleSet, load_bundle_set
from detect_core.engine import Engine
from detect_core.errors import BundleIntegrityError
from detect_core.self_test import golden_document, golden_path, procedural_picture, run_self_test


@pytest.fixture(scope="module")
def bundle_set() -> BundleSet:
    return load_bundle_set()


def test_the_shipped_set_gives_the_numbers_it_was_shipped_with(bundle_set: BundleSet) -> None:
    report = run_self_test(bundle_set, golden_path(DEFAULT_SET))

    assert report.passed, report.sentence
    assert report.checks[0].what == "decoding a procedural clip"
    assert len(report.checks) == 1 + len(bundle_set.bundles)


def test_a_net_that_computes_other_numbers_is_noticed(bundle_set: BundleSet) -> None:
    engine = Engine(bundle_set)
    name, detector = next(iter(engine.detectors.items()))
    original = detector.logits
    detector.logits = lambda crops: original(crops) + 0.1  # type: ignore[method-assign]
    try:
        report = run_self_test(bundle_set, golden_path(DEFAULT_SET), engine=engine)
    finally:
        engine.close()

    assert not report.passed
    assert f"logits of {name}" in report.sentence


def test_expected_numbers_of_other_bundles_are_refused(bundle_set: BundleSet, tmp_path: Path) -> None:
    document = golden_document(bundle_set)
    logits = dict(document["logits"])  # type: ignore[call-overload]
    logits.pop(bundle_set.bundles[0].sha256)
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**document, "logits": logits}))

    with pytest.raises(BundleIntegrityError, match=bundle_set.bundles[0].name):
        run_self_test(bundle_set, path)
    with pytest.raises(BundleIntegrityError, match="calibrate"):
        run_self_test(bundle_set, tmp_path / "missing.json")


def test_procedural_pictures_are_the_same_everywhere() -> None:
    picture = procedural_picture(3, 64)

    assert np.array_equal(picture, procedural_picture(3, 64))
    assert picture.std() > 20
    assert not np.array_equal(picture, procedural_picture(4, 64))
