"""Every metric of the service in one constructor. Names, labels and buckets: notes on operations; all start with `veriframe_`.

Labels are bounded: never a video ID, URL, tenant or exception text. Series that alerts watch exist from the start with the value 0
(`prepare_worker`, `prepare_control`): a counter that appears with its first event has no rate for it.
"""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

import detect_core
from detect_core.options import HARDWARE_OUTCOMES
from detect_core.structs import VerdictWord

from .messages import INBOX_LANES

# a second series per counter and histogram that nothing here asks for
disable_created_metrics()  # type: ignore[no-untyped-call]

# whole videos: half a second for a short clip up to half an hour for a long one on a CPU
_VIDEO: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
# waiting: healthy is near zero, so the low end is fine-grained
_WAIT: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
# one stage of one video: a warm batch takes a millisecond, a long decode a minute
_STAGE: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# one batch: a millisecond on a GPU, seconds on a loaded CPU
_INFER: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
# powers of two: shows at a glance whether batching across videos works
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# drift shows as a change of shape, so the whole range in even steps
_SCORE: Final = tuple(step / 20 for step in range(1, 21))
# media seconds per wall second: 1 = real time
_RATIO: Final = (0.1, 0.25, 0.5, 1, 2, 5, 10, 25, 50)
# share of a batch's places that are taken: eighths, as batches are powers of two
_FILL: Final = tuple(step / 8 for step in range(1, 9))

OWN_FAILURES: Final = (
    "INTERNAL",
    "DETECTOR_ERROR",
    "MODEL_UNAVAILABLE",
    "DECODE_TIMEOUT",
    "DECODE_RESOURCE_LIMIT",
    "FETCH_TIMEOUT",
    "memory",
)
"""Reasons of failures that are ours, not the file's; the failure ratio of the alerts counts these."""

FETCH_FAILURES: Final = ("FETCH_NOT_FOUND", "FETCH_NOT_ALLOWED", "FETCH_TIMEOUT")
"""Reasons with which a video never arrived. One is its producer's affair; most of them at once is the media store's."""

REJECTIONS: Final = ("INVALID_MESSAGE", "INVALID_VIDEO_ID", "UNKNOWN_VERSION", "UNKNOWN_TASK")
"""Codes of messages that are no enqueue request."""

DOORS: Final = ("http", "queue", "stream", "cli")
DISPATCH_LANES: Final = ("urgent", "isolate", "default", "bulk")
STAGES: Final = ("fetch", "decode", "detect", "crop", "classify", "aggregate", "store")
"""Stages of one video, in order."""


class Metrics:
    """All metrics of one process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        self.enqueued = Counter("veriframe_videos_enqueued_total", "Videos taken in", ["source", "queue"], registry=registry)
        self.processed = Counter("veriframe_videos_processed_total", "Videos that ended", ["verdict", "queue", "model"], registry=registry)
        self.failures = Counter("veriframe_video_failures_total", "Videos that failed", ["stage", "reason"], registry=registry)
        self.retries = Counter("veriframe_video_retries_total", "Tries that are repeated", ["reason"], registry=registry)
        self.duplicates = Counter("veriframe_video_duplicates_skipped_total", "Copies that changed nothing", ["reason"], registry=registry)
        self.shadow_verdicts = Counter(
            "veriframe_shadow_verdicts_total",
            "Videos that the shadow bundle set judged too, by whether its word was the same",
            ["outcome"],
            registry=registry,
        )
        self.review_precision = Gauge(
            "veriframe_review_precision_ratio",
            "Of the reviewed videos with this word, the share that people called fake",
            ["verdict"],
            registry=registry,
        )
        self.review_labels = Gauge(
            "veriframe_review_labels",
            "Reviewed videos with a label, by the verdict's word and what people said",
            ["verdict", "label"],
            registry=registry,
        )
        self.rejected = Counter(
            "veriframe_messages_rejected_total", "Messages that are no enqueue request", ["source", "code"], registry=registry
        )
        self.processing_seconds = Histogram(
            "veriframe_video_processing_duration_seconds", "Claim to commit", ["queue"], buckets=_VIDEO, registry=registry
        )
        self.queue_wait_seconds = Histogram(
            "veriframe_video_queue_wait_seconds", "Taken in to claimed", ["queue"], buckets=_WAIT, registry=registry
        )
        self.end_to_end_seconds = Histogram(
            "veriframe_video_end_to_end_seconds", "Taken in to verdict stored", ["queue"], buckets=_VIDEO, registry=registry
        )
        self.realtime_ratio = Histogram(
            "veriframe_video_realtime_ratio", "Media seconds per wall second", buckets=_RATIO, registry=registry
        )
        self.media_seconds = Counter("veriframe_media_seconds_total", "Length of the videos that were judged", registry=registry)
        self.stage_seconds = Histogram(
            "veriframe_stage_duration_seconds",
            "Wall clock of one stage of one video",
            ["stage", "device"],
            buckets=_STAGE,
            registry=registry,
        )
        self.stage_cpu_seconds = Counter(
            "veriframe_stage_cpu_seconds_total",
            "CPU time of stages: the video's thread, its decode child and the device's thread",
            ["stage"],
            registry=registry,
        )
        self.frames_sampled = Counter("veriframe_frames_sampled_total", "Frames that were asked for", registry=registry)
        self.frames_decoded = Counter("veriframe_frames_decoded_total", "Frames decoded and looked at", registry=registry)
        self.frames_dropped = Counter("veriframe_frames_dropped_total", "Frames asked for and not seen", ["reason"], registry=registry)
        self.faces_detected = Counter("veriframe_faces_detected_total", "Faces found", registry=registry)
        self.faces_scored = Counter("veriframe_faces_scored_total", "Face crops scored", ["model"], registry=registry)

        # from ONE exporter, the leading janitor: otherwise every worker would report the same queue. `stream` is a queue of these two:
        # events that are not in the ledger yet
        self.queue_oldest_seconds = Gauge(
            "veriframe_queue_oldest_message_age_seconds",
            "Age of the oldest waiting video, ledger or inbox; of the oldest event for `stream`",
            ["queue"],
            registry=registry,
        )
        self.queue_length = Gauge(
            "veriframe_queue_length", "Waiting videos, ledger and inbox; events for `stream`", ["queue"], registry=registry
        )
        self.queue_in_flight = Gauge("veriframe_queue_in_flight", "Leased videos", ["queue"], registry=registry)
        self.queue_work_seconds = Gauge(
            "veriframe_queue_work_seconds",
            "Predicted seconds that waiting and running videos will still be in work, from duration, size and faces",
            ["queue"],
            registry=registry,
        )
        self.ledger_jobs = Gauge("veriframe_ledger_jobs", "Jobs per state", ["state"], registry=registry)
        self.leases_expired = Counter("veriframe_leases_expired_total", "Leases that ran out", ["queue"], registry=registry)
        self.resent = Counter("veriframe_reconciler_resent_total", "Jobs dispatched by the reconciler", ["queue"], registry=registry)
        self.reconciler_leader = Gauge("veriframe_reconciler_leader", "1 in the janitor that leads", registry=registry)
        self.dead_letters = Counter(
            "veriframe_dead_letters_total", "Jobs, messages and events that were given up", ["code"], registry=registry
        )
        self.outbox_oldest_seconds = Gauge("veriframe_outbox_oldest_age_seconds", "Age of the oldest undelivered event", registry=registry)
        self.review_open = Gauge("veriframe_review_queue_length", "Verdicts that wait for a person", registry=registry)
        self.review_oldest_seconds = Gauge(
            "veriframe_review_queue_oldest_age_seconds", "Age of the oldest verdict that waits for a person", registry=registry
        )
        self.reviews = Counter(
            "veriframe_verdict_reviews_total", "Decisions of people, beside the verdict's word", ["decision", "verdict"], registry=registry
        )
        self.webhook_deliveries = Counter("veriframe_webhook_deliveries_total", "Webhook tries", ["outcome"], registry=registry)

        self.worker_in_flight = Gauge("veriframe_worker_in_flight", "Videos in flight in this process", registry=registry)
        self.worker_ready = Gauge("veriframe_worker_ready", "1 while this worker takes videos", registry=registry)
        self.heartbeat = Gauge(
            "veriframe_worker_heartbeat_timestamp_seconds", "When the heartbeat last ticked, busy or not", registry=registry
        )
        self.last_progress = Gauge(
            "veriframe_worker_last_progress_timestamp_seconds", "When a stage last ended", ["stage"], registry=registry
        )
        self.crops_waiting = Gauge(
            "veriframe_crops_waiting", "Pictures and crops that wait for the device; 0 beside running videos: it starves", registry=registry
        )
        self.self_test_ok = Gauge(
            "veriframe_self_test_ok", "1 when the golden self-test of a detector or of decoding last passed", ["model"], registry=registry
        )
        self.self_test_drift = Gauge(
            "veriframe_self_test_drift",
            "Distance from the expected numbers in the last golden self-test, as a share of what is allowed: above 1 it failed",
            ["model"],
            registry=registry,
        )
        self.batch_fill_ratio = Histogram(
            "veriframe_batch_fill_ratio", "Taken places of a batch", ["model"], buckets=_FILL, registry=registry
        )
        self.gpu_allocated_bytes = Gauge(
            "veriframe_gpu_memory_allocated_bytes", "Device memory in use by tensors", ["device"], registry=registry
        )
        self.gpu_reserved_bytes = Gauge(
            "veriframe_gpu_memory_reserved_bytes", "Device memory held by this process", ["device"], registry=registry
        )
        self.batch_size = Histogram("veriframe_batch_size", "Crops per batch", ["model"], buckets=_BATCH, registry=registry)
        self.batch_wait_seconds = Histogram(
            "veriframe_batch_wait_seconds", "Oldest crop's wait in its batch", ["model"], buckets=_INFER, registry=registry
        )
        self.inference_seconds = Histogram(
            "veriframe_inference_duration_seconds", "One batch on the device", ["model", "device"], buckets=_INFER, registry=registry
        )
        self.face_score = Histogram("veriframe_face_score", "Fused score of a face crop", ["model"], buckets=_SCORE, registry=registry)
        self.model_info = Gauge("veriframe_model_info", "1 per loaded bundle", ["model", "version", "sha256"], registry=registry)
        self.decode_sandbox = Gauge(
            "veriframe_decode_sandbox_info", "1 with what the probe of the decode sandbox found", ["level"], registry=registry
        )
        self.hardware_decode = Gauge(
            "veriframe_hardware_decode_info", "1; with VERIFRAME_HARDWARE_DECODE only", ["asked_for", "in_use"], registry=registry
        )
        self.hardware_decodes = Counter(
            "veriframe_hardware_decodes_total",
            "Videos by how they were decoded: on the card, or why in software; with VERIFRAME_HARDWARE_DECODE only",
            ["outcome"],
            registry=registry,
        )
        self.build_info = Gauge("veriframe_build_info", "1", ["version", "python", "torch", "av"], registry=registry)
        self.build_info.labels(
            version=detect_core.__version__, python=platform.python_version(), torch=_installed("torch"), av=_installed("av")
        ).set(1)
        self.http_requests = Counter("veriframe_http_requests_total", "API requests", ["route", "method", "status"], registry=registry)
        self.http_seconds = Histogram(
            "veriframe_http_request_duration_seconds", "API requests", ["route"], buckets=_STAGE, registry=registry
        )

    def prepare_control(self) -> None:
        """Begin the series of ingest, janitor and API at 0."""
        for lane in INBOX_LANES:
            self.leases_expired.labels(queue=lane)
            for door in DOORS:
                self.enqueued.labels(source=door, queue=lane)
        for code in REJECTIONS:
            self.dead_letters.labels(code=code)
            for door in ("queue", "stream"):
                self.rejected.labels(source=door, code=code)
        self.dead_letters.labels(code="POISONED")
        for route in DISPATCH_LANES:
            self.resent.labels(queue=route)
        for outcome in ("delivered", "postponed", "given_up"):
            self.webhook_deliveries.labels(outcome=outcome)
        self.duplicates.labels(reason="dedupe")

    def prepare_hardware_decode(self, asked_for: str, *, in_use: str) -> None:
        """Say whether the card decodes, and begin the series of its outcomes at 0."""
        self.hardware_decode.labels(asked_for=asked_for, in_use=in_use).set(1)
        for outcome in HARDWARE_OUTCOMES:
            self.hardware_decodes.labels(outcome=outcome)

    def prepare_worker(self, *, model: str, detectors: Sequence[str], device: str) -> None:
        """Begin the series of a worker at 0.

        Args:
            model: label of its bundle set.
            detectors: names of the bundles.
            device: torch device.
        """
        for lane in INBOX_LANES:
            for verdict in get_args(VerdictWord):
                self.processed.labels(verdict=verdict, queue=lane, model=model)
            self.processed.labels(verdict="none", queue=lane, model="none")
            for histogram in (self.processing_seconds, self.queue_wait_seconds, self.end_to_end_seconds):
                histogram.labels(queue=lane)
        for stage in STAGES:
            self.stage_cpu_seconds.labels(stage=stage)
        for stage, reason in product(("decode", "classify"), OWN_FAILURES):
            self.failures.labels(stage=stage, reason=reason)
        for reason in FETCH_FAILURES:
            self.failures.labels(stage="fetch", reason=reason)
        for reason in ("terminal", "leased", "not_due", "unknown", "dedupe"):
            self.duplicates.labels(reason=reason)
        self.frames_dropped.labels(reason="not_decoded")
        self.face_score.labels(model=model)
        for name in detectors:
            self.faces_scored.labels(model=name)
            self.inference_seconds.labels(model=name, device=device)

    def expose(self, accept: str | None) -> tuple[bytes, str]:
        """What a scrape gets, and its content type: OpenMetrics (with exemplars) for a reader that asks for it, else plain text."""
        encoder, content_type = choose_encoder(accept or "")
        page: Callable[[CollectorRegistry], bytes] = encoder
        return page(self.registry), content_type


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def resident_bytes() -> int:
    """Resident memory of this process now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a proc file, read on every heartbeat
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # no /proc: the peak is the best there is
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
