"""Every metric of the service in one constructor. Names, labels and buckets: notes on operations; all start with `veriframe_`.

Labels are bounded: never a video ID, URL, tenant or exception text.
"""

from __future__ import annotations

import platform
import resource
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

import detect_core

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
        self.stage_seconds = Histogram(
            "veriframe_stage_duration_seconds",
            "Wall clock of one stage of one video",
            ["stage", "device"],
            buckets=_STAGE,
            registry=registry,
        )
        self.stage_cpu_seconds = Counter("veriframe_stage_cpu_seconds_total", "CPU time of stages", ["stage"], registry=registry)
        self.frames_decoded = Counter("veriframe_frames_decoded_total", "Frames decoded and looked at", registry=registry)
        self.faces_detected = Counter("veriframe_faces_detected_total", "Faces found", registry=registry)
        self.faces_scored = Counter("veriframe_faces_scored_total", "Face crops scored", ["model"], registry=registry)

        # from ONE exporter, the leading janitor: otherwise every worker would report the same queue
        self.queue_oldest_seconds = Gauge(
            "veriframe_queue_oldest_message_age_seconds", "Age of the oldest waiting video", ["queue"], registry=registry
        )
        self.queue_length = Gauge("veriframe_queue_length", "Waiting videos, ledger and inbox", ["queue"], registry=registry)
        self.queue_in_flight = Gauge("veriframe_queue_in_flight", "Leased videos", ["queue"], registry=registry)
        self.ledger_jobs = Gauge("veriframe_ledger_jobs", "Jobs per state", ["state"], registry=registry)
        self.leases_expired = Counter("veriframe_leases_expired_total", "Leases that ran out", ["queue"], registry=registry)
        self.resent = Counter("veriframe_reconciler_resent_total", "Jobs dispatched by the reconciler", ["queue"], registry=registry)
        self.reconciler_leader = Gauge("veriframe_reconciler_leader", "1 in the janitor that leads", registry=registry)
        self.dead_letters = Counter(
            "veriframe_dead_letters_total", "Jobs, messages and events that were given up", ["code"], registry=registry
        )
        self.outbox_oldest_seconds = Gauge("veriframe_outbox_oldest_age_seconds", "Age of the oldest undelivered event", registry=registry)
        self.webhook_deliveries = Counter("veriframe_webhook_deliveries_total", "Webhook tries", ["outcome"], registry=registry)

        self.worker_in_flight = Gauge("veriframe_worker_in_flight", "Videos in flight in this process", registry=registry)
        self.worker_ready = Gauge("veriframe_worker_ready", "1 while this worker takes videos", registry=registry)
        self.last_progress = Gauge(
            "veriframe_worker_last_progress_timestamp_seconds", "When a stage last ended", ["stage"], registry=registry
        )
        self.batch_size = Histogram("veriframe_batch_size", "Crops per batch", ["model"], buckets=_BATCH, registry=registry)
        self.batch_wait_seconds = Histogram(
            "veriframe_batch_wait_seconds", "Oldest crop's wait in its batch", ["model"], buckets=_INFER, registry=registry
        )
        self.inference_seconds = Histogram(
            "veriframe_inference_duration_seconds", "One batch on the device", ["model", "device"], buckets=_INFER, registry=registry
        )
        self.face_score = Histogram("veriframe_face_score", "Fused score of a face crop", ["model"], buckets=_SCORE, registry=registry)
        self.model_info = Gauge("veriframe_model_info", "1", ["model", "sha256"], registry=registry)
        self.build_info = Gauge("veriframe_build_info", "1", ["version", "python"], registry=registry)
        self.build_info.labels(version=detect_core.__version__, python=platform.python_version()).set(1)
        self.http_requests = Counter("veriframe_http_requests_total", "API requests", ["route", "method", "status"], registry=registry)
        self.http_seconds = Histogram(
            "veriframe_http_request_duration_seconds", "API requests", ["route"], buckets=_STAGE, registry=registry
        )


def resident_bytes() -> int:
    """Resident memory of this process now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a proc file, read on every heartbeat
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # no /proc: the peak is the best there is
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
