"""The golden self-test of a worker: at start, in the lane of the device, and again while it works."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from detect_core.bundle import CropSpec, save_bundle
from detect_core.calibration import load_bundle_set
from detect_core.nets import build_net
from detect_core.pipeline import Screener
from detect_core.self_test import golden_document, golden_path
from workers.metrics import Metrics
from workers.self_check import SelfCheck, SelfTestError


@pytest.fixture(scope="module")
def bundle_set(tmp_path_factory) -> Path:
    """A set with one tiny untrained net: it computes always the same, which is all that is asked here."""
    folder = tmp_path_factory.mktemp("set")
    options = {"widths": [8, 8, 16, 16, 16, 24], "num_middle": 1, "middle_repeats": 1}
    torch.manual_seed(0)
    bundle = save_bundle(
        folder / "blend",
        build_net("minixception", **options),
        name="blend",
        version="1",
        detector="blend",
        net="minixception",
        net_options=options,
        crop=CropSpec(size_px=64, margin=1.3),
        temperature=1.0,
        card={"metrics": {}},
    )
    document = {
        "schema": "bundle_set/1",
        "name": "test",
        "bundles": [{"name": "blend", "path": "blend", "sha256": bundle.sha256}],
        "fusion": {"kind": "max", "offsets": {"blend": 0.0}},
        "strategy": "best_window/1",
        "beta": 0.3,
        "platt": {"a": 1.0, "c": 0.0},
        "thresholds": {"t_review": 0.5, "t_fake": 0.9},
        "protocol": {"date": "2026-11-21"},
    }
    path = folder / "set.json"
    path.write_text(json.dumps(document))
    golden_path(path).write_text(json.dumps(golden_document(load_bundle_set(path))))
    return path


@pytest.fixture(scope="module")
def screener(bundle_set):
    loaded = Screener.load(bundle_set)
    yield loaded
    loaded.close()


def outcomes(metrics: Metrics) -> dict[str, float]:
    return {sample.labels["model"]: sample.value for family in metrics.self_test_ok.collect() for sample in family.samples}


def drifts(metrics: Metrics) -> dict[str, float]:
    return {sample.labels["model"]: sample.value for family in metrics.self_test_drift.collect() for sample in family.samples}


def write_golden(path: Path, logits: dict[str, list[float]]) -> None:
    """Replace the expected numbers at once, so that a test that reads meanwhile sees the old or the new ones."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"schema": "golden/1", "logits": logits}))
    fresh.replace(path)


@pytest.fixture
def golden(bundle_set):
    """(path, right numbers, numbers that are half a logit away); the right ones are put back."""
    path = golden_path(bundle_set)
    right = json.loads(path.read_text())["logits"]
    yield path, right, {sha256: [value + 0.5 for value in values] for sha256, values in right.items()}
    write_golden(path, right)


def test_a_good_worker_passes_and_says_so_per_detector(screener, bundle_set):
    metrics = Metrics()
    SelfCheck(screener, bundle_set, metrics).require()
    assert outcomes(metrics) == {"blend": 1.0, "decoding": 1.0}
    assert set(drifts(metrics)) == {"blend", "decoding"}
    assert all(0 <= drift < 0.75 for drift in drifts(metrics).values())


def test_numbers_that_move_within_what_is_allowed_show_as_drift(screener, bundle_set, golden):
    path, right, _wrong = golden
    metrics = Metrics()
    write_golden(path, {sha256: [value + 0.016 for value in values] for sha256, values in right.items()})
    SelfCheck(screener, bundle_set, metrics).require()
    assert outcomes(metrics)["blend"] == 1.0
    assert drifts(metrics)["blend"] == pytest.approx(0.8, abs=0.05)


def test_a_detector_that_computes_something_else_keeps_the_worker_from_starting(screener, bundle_set, golden):
    path, _right, wrong = golden
    metrics = Metrics()
    write_golden(path, wrong)
    with pytest.raises(SelfTestError, match=r"logits of blend: got 0\.5"):
        SelfCheck(screener, bundle_set, metrics).require()
    assert outcomes(metrics) == {"blend": 0.0, "decoding": 1.0}
    assert drifts(metrics)["blend"] == pytest.approx(25, abs=0.1)


def test_a_worker_that_goes_wrong_later_is_told_to_leave(screener, bundle_set, golden):
    path, _right, wrong = golden
    told, metrics = threading.Event(), Metrics()
    check = SelfCheck(screener, bundle_set, metrics)
    check.require()
    write_golden(path, wrong)
    check.repeat(every_seconds=0.05, on_failure=told.set)
    assert told.wait(120)
    assert outcomes(metrics)["blend"] == 0.0


def test_a_set_without_expected_numbers_is_served_and_shows_no_result(screener, bundle_set, tmp_path):
    metrics = Metrics()
    SelfCheck(screener, tmp_path / "set.json", metrics).require()
    assert outcomes(metrics) == {}
