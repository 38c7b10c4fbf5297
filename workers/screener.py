"""Loads the real detectors for the service; the only module of it that imports the model stack."""

from __future__ import annotations

from .metrics import Metrics
from .screening import Screener
from .settings import Settings


def load_screener(settings: Settings, metrics: Metrics) -> Screener:
    """Load the bundle set on the worker's device and warm it up.

    Raises:
        BundleError: a bundle is missing, changed or does not fit; the worker must not start.
    """
    from detect_core import pipeline
    from detect_core.batching import BatchReport
    from detect_core.calibration import DEFAULT_SET
    from detect_core.options import ScreeningOptions

    def on_batch(report: BatchReport) -> None:
        metrics.batch_size.labels(model=report.lane).observe(report.num_items)
        metrics.batch_wait_seconds.labels(model=report.lane).observe(report.oldest_wait_seconds)
        metrics.inference_seconds.labels(model=report.lane, device=settings.device).observe(report.run_seconds)

    options = ScreeningOptions(thumbnails=settings.evidence_thumbnails, total_seconds=settings.video_soft_seconds)
    return pipeline.Screener.load(settings.bundle_set or DEFAULT_SET, options=options, device=settings.device, on_batch=on_batch)
