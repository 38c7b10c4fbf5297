"""`verdict/1`: the one JSON shape of an outcome, for the API, webhooks and `veriframe scan --json`.

The JSON Schema generated from these models is published as `verdict-1.schema.json`; a test keeps both equal.
`p_fake` is P(fake) in [0, 1] and null unless it was measured; `error` is there only when the job failed.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from detect_core import structs

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
State = Literal["queued", "processing", "complete", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorPart(_Part):
    """Why a job failed."""

    code: str
    message: str
    retryable: bool


class ScorePart(_Part):
    """The calibrated score and the thresholds it was held against."""

    p_fake: Probability | None
    ci: tuple[Probability, Probability] | None = None
    calibration: str
    threshold: float | None = Field(description="At or above: manipulated")
    threshold_review: float | None = Field(description="At or above, but below threshold: suspicious")
    policy: str


class WorstPart(_Part):
    """The moment of a track that speaks loudest."""

    t: float = Field(description="Seconds")
    bbox: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 in pixels of the upright full-size frame")
    score: Probability
    thumb: str | None = Field(description="Small JPEG, base64; null unless asked for")
    detector: str | None = Field(None, description="The detector that spoke loudest at this moment")


class TrackPart(_Part):
    """One followed face."""

    id: int
    frames: int
    p_fake: Probability | None
    time: tuple[float, float]
    worst: WorstPart | None
    scores: list[tuple[float, float]] = Field(default_factory=list, description="(seconds, fused crop score) over time")
    boxes: list[tuple[float, float, float, float]] = Field(
        default_factory=list, description="Face box per entry of scores, to a tenth of a pixel; empty in verdicts of older builds"
    )
    window: tuple[float, float] | None = Field(None, description="First and last second of the window that made p_fake")


class SegmentPart(_Part):
    """A stretch of a track that passes the review threshold."""

    start: float
    end: float
    peak: float
    track: int


class EvidencePart(WorstPart):
    """One of the moments that speak for the verdict."""

    track: int


class SamplingPart(_Part):
    """Which moments were looked at."""

    policy: str
    requested: int
    decoded: int
    faces: int
    seed: int = 0
    pts: list[float]


class ModelPart(_Part):
    """What one detector did."""

    name: str
    version: str
    sha256: str | None
    p_fake: Probability | None
    state: Literal["scored", "not_loaded", "no_crops"]
    ms: int
    precision: Literal["fp32", "bf16"] = Field("fp32", description="What its net was computed in; scores of the two differ by up to 0.01")


class VideoPart(_Part):
    """What was measured about the file."""

    width: int
    height: int
    duration: float
    codec: str
    container: str
    frame_rate: float | None
    rotation: int


class CostPart(_Part):
    """What the verdict cost."""

    gpu_s: float
    cpu_s: float


class VerdictBody(_Part):
    """One outcome, complete or not."""

    schema_: Literal["verdict/1"] = Field("verdict/1", alias="schema")
    video_id: str
    job_id: str | None = Field(None, description="The job that this outcome answers")
    content_sha256: str | None = None
    phash: str | None = None
    state: State
    revision: int = 1
    supersedes: int | None = None
    verdict: Literal["authentic", "suspicious", "manipulated", "inconclusive"] | None = None
    sentence: str | None = Field(None, description="One sentence for people")
    reason_codes: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    error: ErrorPart | None = None
    score: ScorePart | None = None
    video: VideoPart | None = None
    tracks: list[TrackPart] = Field(default_factory=list)
    segments: list[SegmentPart] = Field(default_factory=list)
    deciding_track: int | None = Field(
        None, description="The track that verdict and score rest on; null when they rest on no single one, and in verdicts of older builds"
    )
    evidence: list[EvidencePart] = Field(
        default_factory=list, description="Worst moments: of the window that decided, of the rest of its track, of the others"
    )
    sampling: SamplingPart | None = None
    models: list[ModelPart] = Field(default_factory=list)
    bundle_set: str | None = None
    timing_ms: dict[str, int] = Field(default_factory=dict, description="queue, fetch, total and every stage of the screening")
    cost: CostPart | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)
    worker: str | None = None
    ffmpeg: str | None = None
    runtime: dict[str, str] | None = Field(None, description="Versions, device and threads that computed this outcome")
    trace_id: str | None = None
    created_at: str

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """The body as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What the service knows about a job beside the verdict itself."""

    video_id: str
    job_id: str | None = None
    content_sha256: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    worker: str | None = None
    trace_id: str | None = None
    timing_ms: dict[str, int] = field(default_factory=dict)
    created_at: str | None = None

    def shared_fields(self) -> dict[str, Any]:
        """The fields every body carries."""
        return {
            "video_id": self.video_id,
            "job_id": self.job_id,
            "content_sha256": self.content_sha256,
            "attributes": self.attributes,
            "worker": self.worker,
            "trace_id": self.trace_id,
            "created_at": self.created_at or datetime.now(UTC).isoformat(timespec="milliseconds"),
        }


def _moment(evidence: structs.Evidence) -> dict[str, Any]:
    thumb = base64.b64encode(evidence.thumbnail_jpeg).decode() if evidence.thumbnail_jpeg else None
    return {"t": evidence.pts_seconds, "bbox": evidence.xyxy, "score": evidence.score, "detector": evidence.detector, "thumb": thumb}


def _track(track: structs.TrackScore) -> TrackPart:
    return TrackPart(
        id=track.track_id,
        frames=track.num_crops,
        p_fake=track.p_fake,
        time=track.time_seconds,
        worst=WorstPart(**_moment(track.worst)) if track.worst is not None else None,
        scores=[(float(t), float(s)) for t, s in track.scores],
        boxes=[(round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1)) for x0, y0, x1, y1 in track.boxes],
        window=track.window_seconds,
    )


def verdict_body(verdict: structs.Verdict, *, job: JobFacts) -> VerdictBody:
    """Express one finished screening as `verdict/1`."""
    video = verdict.video
    stages = {name: round(seconds * 1000) for name, seconds in verdict.stage_seconds.items()}
    runtime: dict[str, str] | None = verdict.extra.get("runtime")
    return VerdictBody(
        **job.shared_fields(),
        state="complete",
        verdict=verdict.verdict,
        sentence=verdict.sentence,
        reason_codes=list(verdict.reason_codes),
        warnings=list(dict.fromkeys((*video.warnings, *verdict.warnings))),
        score=ScorePart(
            p_fake=verdict.p_fake,
            calibration=verdict.calibration,
            threshold=verdict.t_fake,
            threshold_review=verdict.t_review,
            policy=verdict.policy,
        ),
        video=VideoPart(
            width=video.width_px,
            height=video.height_px,
            duration=video.duration_seconds,
            codec=video.codec,
            container=video.container,
            frame_rate=video.frame_rate,
            rotation=video.rotation_degrees,
        ),
        tracks=[_track(track) for track in verdict.tracks],
        segments=[SegmentPart(start=s.start_seconds, end=s.end_seconds, peak=s.peak, track=s.track_id) for s in verdict.segments],
        deciding_track=verdict.deciding_track,
        evidence=[EvidencePart(track=each.track_id, **_moment(each)) for each in verdict.evidence],
        sampling=SamplingPart(
            policy=verdict.sampling.policy,
            requested=verdict.sampling.num_requested,
            decoded=verdict.sampling.num_decoded,
            faces=verdict.sampling.num_faces,
            pts=list(verdict.sampling.pts_seconds),
        ),
        models=[
            ModelPart(
                name=d.name,
                version=d.version,
                sha256=d.sha256,
                p_fake=d.p_fake,
                state=d.state,
                ms=round(d.seconds * 1000),
                precision=d.precision,
            )
            for d in verdict.detectors
        ],
        bundle_set=verdict.bundle_set,
        timing_ms={**stages, **job.timing_ms},
        cost=CostPart(gpu_s=float(verdict.extra.get("gpu_seconds", 0.0)), cpu_s=verdict.cpu_seconds),
        ffmpeg=runtime.get("ffmpeg") if runtime else None,
        runtime=runtime,
    )


def failure_body(*, code: str, message: str, retryable: bool, job: JobFacts) -> VerdictBody:
    """Express a named failure as `verdict/1`: no verdict word, no score."""
    return VerdictBody(
        **job.shared_fields(),
        state="failed",
        error=ErrorPart(code=code, message=message, retryable=retryable),
        timing_ms=job.timing_ms,
    )


def pending_body(*, state: Literal["queued", "processing"], job: JobFacts) -> VerdictBody:
    """Express a job that has no outcome yet."""
    return VerdictBody(**job.shared_fields(), state=state)


def answer_to_job(body: dict[str, Any], *, job_id: str, attributes: dict[str, Any], trace_id: str | None) -> dict[str, Any]:
    """A verdict on record as the answer to one job: equal files are judged once, and each job that asked has facts of its own."""
    return {**body, "job_id": job_id, "attributes": attributes, "trace_id": trace_id}
