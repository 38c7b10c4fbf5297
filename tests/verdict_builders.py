"""Verdicts with made-up numbers, for everything that is built on a finished verdict."""

from __future__ import annotations

import math

from detect_core.structs import DetectorReport, Evidence, Sampling, Segment, TrackScore, Verdict, VideoInfo
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import JobFacts, VerdictBody, parse_enqueue, verdict_body

T_REVIEW, T_FAKE = 0.6, 0.81


def made_track(track_id: int, peak: float, *, num_crops: int = 8, seconds: float = 7.0) -> TrackScore:
    """A track whose score rises to `peak` in the middle."""
    times = [round(seconds * i / (num_crops - 1), 6) for i in range(num_crops)]
    scores = [round(peak * (0.2 + 0.8 * math.sin(math.pi * i / (num_crops - 1))), 6) for i in range(num_crops)]
    boxes = [(10.0 + i, 20.0, 90.0 + i, 100.25) for i in range(num_crops)]
    worst = scores.index(max(scores))
    return TrackScore(
        track_id=track_id,
        num_crops=num_crops,
        time_seconds=(times[0], times[-1]),
        p_fake=peak,
        z=0.0,
        worst=Evidence(track_id=track_id, pts_seconds=times[worst], xyxy=boxes[worst], score=scores[worst], detector="blend"),
        scores=tuple(zip(times, scores, strict=True)),
        boxes=tuple(boxes),
        window_seconds=(times[2], times[6]) if num_crops >= 7 else (times[0], times[-1]),
    )


def made_verdict(*, peaks: tuple[float, ...] = (0.3, 0.95), word: str | None = None, bundle_set: str = "default@0123456789ab") -> Verdict:
    """A finished verdict with one track per peak; the word follows from the highest peak unless given."""
    tracks = tuple(made_track(i + 1, peak) for i, peak in enumerate(peaks))
    p_fake = max(peaks, default=None)
    if word is None:
        word = (
            "inconclusive" if p_fake is None else "manipulated" if p_fake >= T_FAKE else "suspicious" if p_fake >= T_REVIEW else "authentic"
        )
    moments = sorted((track.worst for track in tracks if track.worst is not None), key=lambda each: -each.score)
    return Verdict(
        verdict=word,  # type: ignore[arg-type]
        p_fake=p_fake,
        reason_codes=("NO_FACE",) if p_fake is None else ("CROWD_UNCERTAIN",) if word == "inconclusive" else (),
        sentence="made for a test",
        video=VideoInfo(
            width_px=320,
            height_px=240,
            duration_seconds=7.04,
            num_packets=176,
            num_keyframes=3,
            codec="h264",
            container="mp4",
            pixel_format="yuv420p",
            rotation_degrees=0,
            frame_rate=25.0,
        ),
        sampling=Sampling(
            policy="uniform", num_requested=8, num_decoded=8, num_faces=8 * len(peaks), pts_seconds=tuple(float(i) for i in range(8))
        ),
        tracks=tracks,
        segments=tuple(
            Segment(track_id=track.track_id, start_seconds=2.0, end_seconds=6.0, peak=track.p_fake)
            for track in tracks
            if track.p_fake is not None and track.p_fake >= T_REVIEW
        ),
        detectors=(
            DetectorReport(name="blend", version="1", sha256="ab" * 32, state="scored", p_fake=p_fake, seconds=0.04)
            if p_fake is not None
            else DetectorReport(name="blend", version="1", sha256="ab" * 32, state="no_crops"),
            DetectorReport(name="xception", version="", sha256=None, state="not_loaded"),
        ),
        evidence=tuple(moments),
        bundle_set=bundle_set,
        policy="two-thresholds/4",
        t_review=T_REVIEW,
        t_fake=T_FAKE,
        calibration="platt-test",
        stage_seconds={"decode": 0.5},
        cpu_seconds=1.5,
    )


def made_body(video_id: str = "vid_1", *, content_sha256: str = "c" * 64, job_id: str = "f" * 32, **options: object) -> VerdictBody:
    """The same as `verdict/1`."""
    facts = JobFacts(video_id=video_id, job_id=job_id, content_sha256=content_sha256, created_at="2026-11-21T09:00:00.000+00:00")
    return verdict_body(made_verdict(**options), job=facts)  # type: ignore[arg-type]


def put_verdict(
    ledger: Ledger,
    video_id: str,
    *,
    content_sha256: str = "c" * 64,
    source: str | None = None,
    asked_sha256: str | None = None,
    tenant: str = "",
    **options: object,
) -> str:
    """Submit, claim and commit one video; gives its job's ID. `asked_sha256` makes the submission a version of its own."""
    asked = {"source": source, "content_sha256": asked_sha256}
    request = parse_enqueue({"video_id": video_id, **{name: value for name, value in asked.items() if value}})
    job_id = ledger.submit(Submission(request=request, door="http", tenant=tenant)).ledger_id
    claim = ledger.claim(job_id, owner="tester", lease_seconds=60)
    assert isinstance(claim, Claim)
    body = made_body(video_id, content_sha256=content_sha256, job_id=job_id, **options)
    assert body.score is not None
    assert body.verdict is not None
    assert body.bundle_set is not None
    record = VerdictRecord(
        content_sha256=content_sha256,
        bundle_set=body.bundle_set,
        policy=body.score.policy,
        verdict=body.verdict,
        p_fake=body.score.p_fake,
        body=body.to_json(),
    )
    ledger.commit_verdict(claim, verdict=record, urls=[])
    job = ledger.job(job_id)
    assert job is not None
    assert job.state == "VERDICT"
    return job_id
