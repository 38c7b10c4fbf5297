"""What the Grafana board shows. One idea per panel; the first row says whether we keep up, the second what holds us back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the name of its lines."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `limit` draws the value from which on it is red."""

    title: str
    why: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    limit: float | None = None
    stack: bool = False
    width: int = 6


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one headline."""

    title: str
    panels: Sequence[Panel] = field(default_factory=tuple)


def _quantile(share: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


def _mean(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}_sum[$__rate_interval])) / sum by ({by}) (rate({metric}_count[$__rate_interval]))"


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


KEEPING_UP: Final = Row(
    "Are we keeping up?",
    [
        Panel(
            "Oldest waiting video",
            "Lanes with a promise. Red: the promise is broken for that video.",
            "s",
            [Query('max(queue:veriframe_queue_oldest_message_age_seconds:leader{queue!="bulk"})')],
            "stat",
            300,
            width=4,
        ),
        Panel(
            "Late videos, 1 h",
            "Share of videos that took more than 300 s from intake to verdict. The budget is 1 %.",
            "percentunit",
            [Query("veriframe:late_videos:ratio_rate1h")],
            "stat",
            0.01,
            width=4,
        ),
        Panel(
            "Time to clear the backlog",
            "Predicted worker-seconds that wait or run, over ready workers.",
            "s",
            [Query("veriframe:queue_drain_seconds:predicted")],
            "stat",
            300,
            width=4,
        ),
        Panel("Workers ready", "Workers that take videos now.", "short", [Query("veriframe:workers_ready:sum")], "stat", width=4),
        Panel(
            "Workers busy",
            "Share of ready workers that hold a video. Near 1 with a backlog: add workers. Low with a backlog: look below.",
            "percentunit",
            [Query("sum(avg_over_time(instance:veriframe_worker_busy:bool[5m])) / clamp_min(veriframe:workers_ready:sum, 1)")],
            "stat",
            width=4,
        ),
        Panel(
            "Cost of a video",
            "Seconds of one worker per video, last 30 minutes. What the autoscaler calculates with.",
            "s",
            [Query("veriframe:worker_seconds_per_video:avg30m")],
            "stat",
            width=4,
        ),
        Panel(
            "Intake and outcome",
            "Videos per second in and out. Out below in: the backlog grows.",
            "ops",
            [
                Query("sum(rate(veriframe_videos_enqueued_total[$__rate_interval]))", "taken in"),
                Query("sum(rate(veriframe_videos_processed_total[$__rate_interval]))", "ended"),
            ],
        ),
        Panel(
            "Waiting and running",
            "Videos per lane, from the leading janitor; `stream`: events that ingest has not read yet.",
            "short",
            [
                Query("queue:veriframe_queue_length:leader", "{{queue}} waiting"),
                Query("queue:veriframe_queue_in_flight:leader", "{{queue}} running"),
            ],
        ),
        Panel(
            "Age of the oldest",
            "Per lane, in the ledger or the inbox, and of the event stream.",
            "s",
            [Query("queue:veriframe_queue_oldest_message_age_seconds:leader", "{{queue}}")],
            limit=300,
        ),
        Panel(
            "Intake to verdict",
            "End-to-end seconds of finished videos.",
            "s",
            [
                Query(_quantile(0.5, "veriframe_video_end_to_end_seconds"), "p50"),
                Query(_quantile(0.95, "veriframe_video_end_to_end_seconds"), "p95"),
                Query(_quantile(0.99, "veriframe_video_end_to_end_seconds"), "p99"),
            ],
            limit=300,
        ),
    ],
)

HOLDS_BACK: Final = Row(
    "What holds us back?",
    [
        Panel(
            "Seconds of a video by stage",
            "Wall clock per ended video. The thickest layer is the brake.",
            "s",
            [Query("stage:veriframe_stage_seconds_per_video:rate15m", "{{stage}}")],
            stack=True,
        ),
        Panel(
            "CPU by stage",
            "Cores used by the threads that drive videos, their decode children and the device's thread; torch's pool only in the panel of processes.",
            "short",
            [Query(_rate("veriframe_stage_cpu_seconds_total", "stage"), "{{stage}}")],
            stack=True,
        ),
        Panel(
            "Waiting and being judged",
            "p95 of waiting for a worker and of the work itself. Waiting grows first: too few workers.",
            "s",
            [
                Query(_quantile(0.95, "veriframe_video_queue_wait_seconds"), "waiting p95"),
                Query(_quantile(0.95, "veriframe_video_processing_duration_seconds"), "working p95"),
            ],
        ),
        Panel(
            "Work waiting",
            "Predicted worker-seconds that wait or still run, from duration, size and faces: what the autoscaler sees.",
            "s",
            [Query("veriframe:queue_work_seconds:predicted", "work")],
        ),
        Panel(
            "Waiting for the device",
            "Pictures and crops in front of the device, per worker. 0 beside running videos: it starves, feed it. Hundreds: it is the brake.",
            "short",
            [Query("veriframe_crops_waiting and on (job, instance) veriframe_worker_ready == 1", "{{instance}}")],
        ),
        Panel(
            "Batch fill",
            "Taken share of a batch. Near 0 on a GPU means that batching across videos does not happen: raise VERIFRAME_CONCURRENCY.",
            "percentunit",
            [Query(_mean("veriframe_batch_fill_ratio", "model"), "{{model}}")],
        ),
        Panel(
            "Wait in a batch",
            "p95 of the oldest item's wait. High: the device is the brake.",
            "s",
            [Query(_quantile(0.95, "veriframe_batch_wait_seconds", "model"), "{{model}}")],
        ),
        Panel(
            "One batch on the device",
            "p95 per net.",
            "s",
            [Query(_quantile(0.95, "veriframe_inference_duration_seconds", "model, device"), "{{model}} {{device}}")],
        ),
        Panel(
            "Device time per minute of video",
            "Seconds of the device for a minute of video. Rises with faces per video and with each further detector.",
            "s",
            [Query("veriframe:device_seconds_per_video_minute:rate15m", "device")],
        ),
        Panel(
            "GPU",
            "Use of the device and of its decoder, from DCGM; empty without GPUs.",
            "percent",
            [Query("DCGM_FI_DEV_GPU_UTIL", "gpu {{gpu}}"), Query("DCGM_FI_DEV_DEC_UTIL", "decoder {{gpu}}")],
        ),
    ],
)

PIPELINE: Final = Row(
    "Throughput",
    [
        Panel("Frames", "Frames decoded and looked at, per second.", "ops", [Query("veriframe:frames_decoded:rate5m", "frames")]),
        Panel(
            "Faces",
            "Faces found and crops scored, per second.",
            "ops",
            [
                Query("veriframe:faces_detected:rate5m", "found"),
                Query(_rate("veriframe_faces_scored_total", "model"), "scored by {{model}}"),
            ],
        ),
        Panel(
            "Speed against real time",
            "Media seconds per wall second, median of videos.",
            "short",
            [Query(_quantile(0.5, "veriframe_video_realtime_ratio"), "p50")],
        ),
        Panel(
            "In flight per worker",
            "Videos that each worker holds.",
            "short",
            [
                Query(
                    "veriframe_worker_in_flight > 0 or veriframe_worker_in_flight and on (job, instance) veriframe_worker_ready == 1",
                    "{{instance}}",
                )
            ],
        ),
    ],
)

VERDICTS: Final = Row(
    "Verdicts",
    [
        Panel(
            "Verdicts",
            "Per second; `none` are videos that could not be judged.",
            "ops",
            [Query("verdict:veriframe_videos_processed:rate5m", "{{verdict}}")],
            stack=True,
        ),
        Panel(
            "Share of verdicts, 6 h",
            "Of videos that were judged.",
            "percentunit",
            [Query("verdict:veriframe_videos_processed:share6h", "{{verdict}}")],
            limit=None,
            stack=True,
        ),
        Panel(
            "Face scores",
            "Quantiles of the fused score of face crops. Real uploads stay low; a rising p50 is drift or a flood of fakes.",
            "percentunit",
            [
                Query(_quantile(0.1, "veriframe_face_score"), "p10"),
                Query(_quantile(0.5, "veriframe_face_score"), "p50"),
                Query(_quantile(0.9, "veriframe_face_score"), "p90"),
            ],
        ),
        Panel(
            "Drift",
            "Population stability index, 6 hours against 7 days, of the verdicts and of the scores of faces. Above 0.2 uploads or detectors changed.",
            "short",
            [Query("veriframe:verdict_mix:psi", "verdicts"), Query("model:veriframe_face_score:psi", "scores of {{model}}")],
            limit=0.2,
        ),
        Panel(
            "Self-test",
            "Largest distance from the expected numbers, as a share of what is allowed. bf16 on a CPU: about 25 %. At 100 % the worker drains.",
            "percentunit",
            [Query("max by (model) (veriframe_self_test_drift)", "{{model}}")],
            limit=0.75,
        ),
        Panel(
            "Waiting for people",
            "Age of the oldest verdict in the review queue. Red: it waits for a day.",
            "s",
            [Query("max(veriframe_review_queue_oldest_age_seconds and on (job, instance) veriframe_reconciler_leader == 1)", "oldest")],
            limit=86400,
        ),
        Panel(
            "Decisions of people, 6 h",
            "Beside the word of the verdict. Manipulated and clean is a false alarm.",
            "short",
            [Query("sum by (verdict, decision) (increase(veriframe_verdict_reviews_total[6h]))", "{{verdict}}: {{decision}}")],
            stack=True,
        ),
        Panel(
            "Failures by reason",
            "Per second. DECODE_*, INTERNAL, DETECTOR_ERROR, MODEL_UNAVAILABLE and FETCH_TIMEOUT are ours, the rest is the file's fault.",
            "ops",
            [Query(_rate("veriframe_video_failures_total", "stage, reason") + " > 0", "{{stage}} {{reason}}")],
            stack=True,
        ),
    ],
)

RELIABILITY: Final = Row(
    "Reliability",
    [
        Panel("Jobs by state", "All rows of the ledger.", "short", [Query("state:veriframe_ledger_jobs:leader", "{{state}}")]),
        Panel(
            "Leases that ran out, jobs sent again",
            "Per second. Leases run out when workers die; `sent` is every dispatch of the reconciler.",
            "ops",
            [
                Query("sum(rate(veriframe_leases_expired_total[$__rate_interval])) or vector(0)", "expired"),
                Query(_rate("veriframe_reconciler_resent_total", "queue"), "sent {{queue}}"),
            ],
        ),
        Panel(
            "Copies without effect, tries repeated",
            "Per second and reason.",
            "ops",
            [
                Query(_rate("veriframe_video_duplicates_skipped_total", "reason"), "copy {{reason}}"),
                Query(_rate("veriframe_video_retries_total", "reason"), "retry {{reason}}"),
            ],
        ),
        Panel(
            "Given up",
            "Dead letters and rejected messages per second and code.",
            "ops",
            [
                Query(_rate("veriframe_dead_letters_total", "code"), "{{code}}"),
                Query(_rate("veriframe_messages_rejected_total", "source, code"), "rejected {{source}} {{code}}"),
            ],
        ),
        Panel(
            "Webhooks",
            "Tries per second and outcome.",
            "ops",
            [Query(_rate("veriframe_webhook_deliveries_total", "outcome"), "{{outcome}}")],
        ),
        Panel(
            "Oldest undelivered event",
            "Age in the outbox.",
            "s",
            [Query("max(veriframe_outbox_oldest_age_seconds and on (job, instance) veriframe_reconciler_leader == 1)", "age")],
            limit=300,
        ),
        Panel("Janitors that lead", "Always 1.", "short", [Query("sum(veriframe_reconciler_leader)", "leaders")]),
        Panel(
            "Alerts that fire",
            "By name.",
            "short",
            [Query('sum by (alertname, severity) (ALERTS{alertstate="firing", alertname=~"Veriframe.*"})', "{{alertname}} ({{severity}})")],
        ),
    ],
)

MACHINES: Final = Row(
    "API, broker, processes",
    [
        Panel(
            "API requests",
            "Per second and status.",
            "reqps",
            [Query(_rate("veriframe_http_requests_total", "status"), "{{status}}")],
            stack=True,
        ),
        Panel(
            "API answer time",
            "p95 per route.",
            "s",
            [Query(_quantile(0.95, "veriframe_http_request_duration_seconds", "route"), "{{route}}")],
        ),
        Panel(
            "Broker memory",
            "Used, of the limit at which it refuses writes.",
            "percentunit",
            [Query("redis_memory_used_bytes / (redis_memory_max_bytes > 0)", "{{instance}}")],
            limit=0.7,
        ),
        Panel(
            "Memory of processes",
            "Resident bytes. A line that only climbs is a leak.",
            "bytes",
            [Query("process_resident_memory_bytes", "{{job}} {{instance}}")],
        ),
        Panel("CPU of processes", "Cores.", "short", [Query("rate(process_cpu_seconds_total[$__rate_interval])", "{{job}} {{instance}}")]),
        Panel("Open files", "Descriptors per process.", "short", [Query("process_open_fds", "{{job}} {{instance}}")]),
        Panel(
            "Time since the last finished stage",
            "Of workers that hold a video. Grows without end for a stuck one.",
            "s",
            [
                Query(
                    "time() - max by (job, instance) (veriframe_worker_last_progress_timestamp_seconds) and on (job, instance) veriframe_worker_in_flight > 0",
                    "{{instance}}",
                )
            ],
            limit=600,
        ),
        Panel(
            "Versions",
            "Processes per version, workers per loaded bundle. Two lines for one bundle name: a roll-out is under way, or was forgotten.",
            "short",
            [
                Query("count by (version, python) (veriframe_build_info)", "{{version}} on Python {{python}}"),
                Query("count by (model, sha256) (veriframe_model_info)", "{{model}} {{sha256}}"),
            ],
        ),
    ],
)

ROWS: Final = (KEEPING_UP, HOLDS_BACK, PIPELINE, VERDICTS, RELIABILITY, MACHINES)
