"""`python -m tests.scaling.metrics_cost [--out reports/metrics.json]`: what metrics cost a worker, and how long a scrape takes.

The calls that one real video makes are counted, then the same calls are timed in a loop: timing each call in place would mostly
measure the clock. CPU time, so that a busy machine does not matter.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import prometheus_client

from tests.chaos.report import Report
from workers.bench.clips import make_clip
from workers.ledger import Ledger, Submission
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.probes import Probes, serve_probes
from workers.screener import load_screener
from workers.screening import Screening
from workers.settings import Settings
from workers.sources import ConfiguredSources

SCRAPE_SECONDS = 15.0
LABEL_SETS = 100


@contextmanager
def counted() -> Iterator[Tally[str]]:
    """Counts the calls of prometheus-client in this process, from every thread."""
    calls: Tally[str] = Tally()
    lock = threading.Lock()
    originals: list[tuple[type, str, Any]] = []

    def wrap(cls: type, name: str) -> None:
        original = getattr(cls, name)
        originals.append((cls, name, original))

        def call(self: Any, *args: Any, **options: Any) -> Any:
            with lock:
                calls[name] += 1
            return original(self, *args, **options)

        setattr(cls, name, call)

    for cls, name in (
        (prometheus_client.Counter, "inc"),
        (prometheus_client.Gauge, "set"),
        (prometheus_client.Histogram, "observe"),
        (prometheus_client.metrics.MetricWrapperBase, "labels"),
    ):
        wrap(cls, name)
    try:
        yield calls
    finally:
        for cls, name, original in originals:
            setattr(cls, name, original)


def seconds_per_call() -> dict[str, float]:
    """CPU seconds of each kind of call."""
    metrics = Metrics()
    counter, gauge = metrics.stage_cpu_seconds.labels(stage="decode"), metrics.last_progress.labels(stage="decode")
    histogram = metrics.stage_seconds.labels(stage="decode", device="cpu")
    kinds = {
        "inc": lambda: counter.inc(0.1),
        "set": gauge.set_to_current_time,
        "observe": lambda: histogram.observe(0.1),
        "labels": lambda: metrics.stage_seconds.labels(stage="decode", device="cpu"),
    }
    found = {}
    for name, call in kinds.items():
        rounds = []
        for _ in range(5):
            started = time.thread_time()
            for _ in range(20_000):
                call()
            rounds.append((time.thread_time() - started) / 20_000)
        found[name] = statistics.median(rounds)
    return found


def full_page(label_sets: int) -> Metrics:
    """A worker's metrics with so many label sets of its largest histogram: 18 series each."""
    metrics = Metrics()
    metrics.prepare_worker(model="set@1", detectors=["blend"], device="cpu")
    for i in range(label_sets):
        metrics.stage_seconds.labels(stage="decode", device=f"cuda:{i}").observe(0.1)
    return metrics


def scrape_seconds(metrics: Metrics, *, times: int = 30) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one scrape over HTTP as Prometheus does it; medians."""
    server = serve_probes(Probes(is_ready=lambda: True), host="127.0.0.1", port=0, metrics=metrics)
    wall, cpu = [], []
    headers = {"accept": "application/openmetrics-text;version=1.0.0"}
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", headers=headers, timeout=30) as client:
        for _ in range(times):
            started, cpu_started = time.perf_counter(), time.process_time()
            client.get("/metrics").raise_for_status()
            wall.append(time.perf_counter() - started)
            cpu.append(time.process_time() - cpu_started)
    server.shutdown()
    server.server_close()
    return statistics.median(wall), statistics.median(cpu)


def one_video(folder: Path) -> tuple[Tally[str], float, Metrics]:
    """(calls, CPU seconds without them, metrics) of one 480p upload of ten seconds through the real worker's code."""
    clip = make_clip(folder, height_px=480, seconds=10).path
    clip.rename(folder / "warm.mp4")
    (folder / "measured.mp4").write_bytes((folder / "warm.mp4").read_bytes())
    settings = Settings(media_template=f"{folder}/{{video_id}}.mp4", media_roots=(folder,))
    metrics, ledger = Metrics(), Ledger.in_memory()
    screener = load_screener(settings, metrics)
    screening = Screening(
        ledger=ledger, screener=screener, sources=ConfiguredSources(settings), metrics=metrics, settings=settings, owner="w"
    )

    def run(video_id: str) -> float:
        job = ledger.submit(Submission(request=EnqueueRequest(video_id=video_id), door="cli")).ledger_id
        before = time.process_time()
        if screening.run(job, lane="default") != "verdict":
            raise RuntimeError(f"{video_id} was not judged: the cost of metrics cannot be measured here")
        row = ledger.job(job)
        assert row is not None
        assert row.body is not None
        return time.process_time() - before + row.body["cost"]["cpu_s"]

    run("warm")
    with counted() as calls:
        cpu = run("measured")
    screener.close()
    ledger.close()
    return calls, cpu, metrics


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scaling.metrics_cost", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/metrics.json"))
    options = parser.parse_args()
    report = Report(seed=0, smoke=False)
    with tempfile.TemporaryDirectory(prefix="veriframe-metrics-") as folder:
        calls, cpu, metrics = one_video(Path(folder))
    prices = seconds_per_call()
    spent = sum(prices[name] * count for name, count in calls.items())
    report.add("calls of one video", sum(calls.values()), "calls", goal="", passed=None)
    report.add("CPU of metrics for one video", spent * 1e6, "us", goal="", passed=None)
    report.add("CPU of one video (480p, 10 s, one face)", cpu, "s", goal="", passed=None)
    _wall, real_scrape = scrape_seconds(metrics)
    report.at_most("metrics: share of a worker's CPU, calls and scrapes", 100 * (spent / cpu + real_scrape / SCRAPE_SECONDS), "%", 1.0)
    wall, scrape = scrape_seconds(full_page(LABEL_SETS))
    report.add(f"/metrics with {LABEL_SETS} label sets: CPU", scrape * 1000, "ms", goal="", passed=None)
    report.at_most(f"/metrics with {LABEL_SETS} label sets, over HTTP with gzip", wall * 1000, "ms", 50.0)
    report.detail = {"calls": dict(calls), "seconds_per_call": prices, "real_scrape_cpu_seconds": real_scrape}
    report.write(options.out)
    report.show()
    print(f"Report: {options.out}")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
