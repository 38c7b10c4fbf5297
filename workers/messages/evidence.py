"""`evidence/1`: what a verdict rests on, laid out for a chart and its player. Made from a stored `verdict/1`, so it can never differ from it.

Samples are columns, not rows: a chart takes them as they are. A job without a verdict has an evidence object too, with a
state and nothing measured. The JSON Schema is published as `evidence-1.schema.json`; a test keeps both equal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .verdict import EvidencePart, ModelPart, Probability, SegmentPart, State, VerdictBody, WorstPart

Box = tuple[float, float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplesPart(_Part):
    """One face at every looked-at moment; the columns have one length."""

    t: list[float] = Field(description="Seconds since the first picture, ascending")
    score: list[Probability] = Field(description="Fused crop score")
    bbox: list[Box] | None = Field(description="x0, y0, x1, y1 in pixels of the upright full-size frame; null for verdicts of older builds")


class TrackEvidencePart(_Part):
    """One followed face."""

    id: int
    p_fake: Probability | None = Field(description="Of this face alone; null when it was too short to be scored")
    time: tuple[float, float]
    window: tuple[float, float] | None = Field(description="The seconds that made p_fake")
    worst: WorstPart | None
    samples: SamplesPart


class FramePart(_Part):
    """The picture that all boxes refer to."""

    width: int
    height: int
    duration: float
    frame_rate: float | None


class ThresholdsPart(_Part):
    """Lines to draw."""

    review: float | None = Field(description="At or above: suspicious")
    fake: float | None = Field(description="At or above: manipulated")


class EvidenceBody(_Part):
    """Everything that a page needs to show why."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["evidence/1"] = Field("evidence/1", alias="schema")
    video_id: str
    job_id: str | None
    revision: int
    state: State
    verdict: Literal["authentic", "suspicious", "manipulated", "inconclusive"] | None
    sentence: str | None
    p_fake: Probability | None
    thresholds: ThresholdsPart | None
    content_sha256: str | None
    bundle_set: str | None
    policy: str | None
    frame: FramePart | None
    tracks: list[TrackEvidencePart] = Field(description="Most suspicious first")
    segments: list[SegmentPart] = Field(description="Stretches that pass the review threshold")
    deciding_track: int | None = Field(
        None,
        description="The track that verdict and p_fake rest on; null when they rest on no single one, and for verdicts of older builds",
    )
    moments: list[EvidencePart] = Field(description="Worst moments: of the window that decided, of the rest of its track, of the others")
    looked_at: Annotated[list[float], Field(description="Every looked-at second, with or without a face")]
    detectors: list[ModelPart]
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """The body as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)


def evidence_body(outcome: VerdictBody) -> EvidenceBody:
    """The evidence of one outcome, complete or not."""
    score, video = outcome.score, outcome.video
    tracks = [
        TrackEvidencePart(
            id=track.id,
            p_fake=track.p_fake,
            time=track.time,
            window=track.window,
            worst=track.worst,
            samples=SamplesPart(
                t=[t for t, _ in track.scores], score=[value for _, value in track.scores], bbox=track.boxes if track.boxes else None
            ),
        )
        for track in sorted(outcome.tracks, key=lambda track: (-(track.p_fake if track.p_fake is not None else -1.0), track.id))
    ]
    return EvidenceBody(
        schema="evidence/1",
        video_id=outcome.video_id,
        job_id=outcome.job_id,
        revision=outcome.revision,
        state=outcome.state,
        verdict=outcome.verdict,
        sentence=outcome.sentence,
        p_fake=score.p_fake if score else None,
        thresholds=ThresholdsPart(review=score.threshold_review, fake=score.threshold) if score else None,
        content_sha256=outcome.content_sha256,
        bundle_set=outcome.bundle_set,
        policy=score.policy if score else None,
        frame=FramePart(width=video.width, height=video.height, duration=video.duration, frame_rate=video.frame_rate) if video else None,
        tracks=tracks,
        segments=outcome.segments,
        deciding_track=outcome.deciding_track,
        moments=outcome.evidence,
        looked_at=outcome.sampling.pts if outcome.sampling else [],
        detectors=outcome.models,
        created_at=outcome.created_at,
    )
