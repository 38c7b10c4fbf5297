"""Loads the real detectors for the service; the only module of it that imports the model stack."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from .decode_sandbox import usable_hardware
from .metrics import Metrics
from .promotion import bundle_set_in_charge
from .screening import Screener
from .settings import Settings

if TYPE_CHECKING:
    from detect_core import pipeline


def load_checked_screener(settings: Settings, metrics: Metrics, *, on_failure: Callable[[], None]) -> Screener:
    """Load the detectors of a worker and have them pass the golden self-test, now and every `self_test_seconds`.

    Args:
        settings: all settings.
        metrics: told how the tests ended.
        on_failure: called when a later test fails.

    Raises:
        BundleError: a bundle is missing, changed or does not fit; the worker must not start.
        SelfTestError: it loads, but computes something else.
    """
    from detect_core.calibration import bundle_set_path

    from .self_check import SelfCheck

    screener = load_screener(settings, metrics)
    check = SelfCheck(screener, bundle_set_path(bundle_set_in_charge(settings)), metrics)
    try:
        check.require()
    except Exception:
        screener.close()
        raise
    check.repeat(every_seconds=settings.self_test_seconds, on_failure=on_failure)
    return screener


def idle_cores() -> int:
    """Threads for the only decoder on this machine; beyond a few its other work is what takes the time."""
    return min(4, len(os.sched_getaffinity(0)))


def load_screener(settings: Settings, metrics: Metrics, *, num_frames: int = 32, alone: bool = False) -> pipeline.Screener:
    """Load the bundle set on the worker's device and warm it up.

    Args:
        settings: all settings.
        metrics: told of every batch.
        num_frames: looks at a video.
        alone: one video is screened at a time, so its decoder may take the cores that would idle.

    Raises:
        BundleError: a bundle is missing, changed or does not fit; the worker must not start.
    """
    from detect_core import pipeline
    from detect_core.batching import BatchReport
    from detect_core.faces.yunet import YunetFaceDetector
    from detect_core.options import DecodeLimits, ScreeningOptions

    def on_batch(report: BatchReport) -> None:
        stage = "detect" if report.lane.startswith("face_") else "classify"
        metrics.stage_cpu_seconds.labels(stage=stage).inc(report.cpu_seconds)
        metrics.batch_fill_ratio.labels(model=report.lane).observe(report.num_items / report.max_batch)
        metrics.batch_size.labels(model=report.lane).observe(report.num_items)
        metrics.batch_wait_seconds.labels(model=report.lane).observe(report.oldest_wait_seconds)
        metrics.inference_seconds.labels(model=report.lane, device=settings.device).observe(report.run_seconds)

    options = ScreeningOptions(
        num_frames=num_frames,
        thumbnails=settings.evidence_thumbnails,
        total_seconds=settings.video_soft_seconds,
        decode=DecodeLimits(hardware_decode=usable_hardware(settings)),
    )
    screener = pipeline.Screener.load(
        bundle_set_in_charge(settings),
        options=options,
        device=settings.device,
        precision=settings.precision,
        compiled=settings.compile_nets,
        shadow=settings.shadow_bundle_set,
        face_detector=YunetFaceDetector(settings.face_model) if settings.face_model is not None else None,
        on_batch=on_batch,
        decode_threads=settings.decode_threads or (idle_cores() if alone else 1),
    )
    loaded = screener.bundle_set
    for bundle in loaded.bundles:
        metrics.model_info.labels(model=bundle.name, version=bundle.version, sha256=bundle.sha256).set(1)
    metrics.prepare_worker(model=loaded.label, detectors=[bundle.name for bundle in loaded.bundles], device=settings.device)
    batcher = screener.engine.batcher
    metrics.crops_waiting.set_function(lambda: batcher.num_waiting)
    if settings.device.startswith("cuda"):
        import torch

        metrics.gpu_allocated_bytes.labels(device=settings.device).set_function(lambda: torch.cuda.memory_allocated(settings.device))
        metrics.gpu_reserved_bytes.labels(device=settings.device).set_function(lambda: torch.cuda.memory_reserved(settings.device))
    return screener
