"""Golden self-test of a worker: before it takes its first video, and every now and then in the device's own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from detect_core.errors import DetectCoreError
from detect_core.self_test import SelfTest, golden_path, run_self_test

from .errors import WorkerError
from .metrics import Metrics

if TYPE_CHECKING:
    from detect_core.pipeline import Screener

log = structlog.get_logger(__name__)
_LANE: Final = "self_test"
_LIMIT_SECONDS: Final = 300.0


class SelfTestError(WorkerError):
    """Raised when a detector or the decoder gives other numbers than when the bundles were made; the worker must not start."""

    code = "SELF_TEST_FAILED"


class SelfCheck:
    """Runs the golden self-test in the lane of the device, so that it never meets a batch, and tells Prometheus."""

    def __init__(self, screener: Screener, bundle_set: Path, metrics: Metrics) -> None:
        golden = golden_path(bundle_set)
        self.is_possible = golden.is_file()
        """Sets of older trainings have no expected numbers: they are served, and the log says so."""
        self._metrics = metrics
        self._batcher = screener.engine.batcher
        loaded, engine = screener.bundle_set, screener.engine
        self._batcher.add_lane(_LANE, lambda items: [run_self_test(loaded, golden, engine=engine) for _ in items], max_batch=1)

    def check(self) -> SelfTest | None:
        """One run; None when there are no expected numbers. Raises `DetectorError` when the device does not answer."""
        if not self.is_possible:
            log.warning("self_test_impossible", note="no expected numbers beside the bundle set: calibrate it again, that writes them")
            return None
        started = time.monotonic()
        [result] = self._batcher.submit(_LANE, [None], deadline=started + _LIMIT_SECONDS)
        report: SelfTest = result
        for check in report.checks:
            self._metrics.self_test_ok.labels(model=check.subject).set(int(check.passed))
            self._metrics.self_test_drift.labels(model=check.subject).set(check.drift)
        log.info("self_test", passed=report.passed, result=report.sentence, seconds=round(time.monotonic() - started, 2))
        return report

    def require(self) -> None:
        """The run at start.

        Raises:
            SelfTestError: what is loaded here does not compute what it should.
        """
        report = self.check()
        if report is not None and not report.passed:
            raise SelfTestError(f"the self-test failed, this worker would judge wrongly and does not start: {report.sentence}")

    def repeat(self, *, every_seconds: float, on_failure: Callable[[], None]) -> None:
        """Run again and again in a thread of its own, until a run fails or the device is closed."""
        if self.is_possible and every_seconds > 0:
            threading.Thread(target=self._repeat, args=(every_seconds, on_failure), name="self-test", daemon=True).start()

    def _repeat(self, every_seconds: float, on_failure: Callable[[], None]) -> None:
        pause = threading.Event()
        while not pause.wait(every_seconds):
            try:
                report = self.check()
            except DetectCoreError as err:
                log.warning("self_test_not_run", code=err.code, note="the device is closed or busy for minutes")
                continue
            if report is not None and not report.passed:
                log.error("self_test_failed", result=report.sentence, note="the process drains and exits, the next start decides")
                on_failure()
                return
