"""Sensity, task `face_manipulation` with `explain=true`: a class with its probability, and every face with its worst frame.

The verdict's own word names the class: `real` is what it calls authentic, so that nothing suspicious passes for it, and what it
cannot tell has no result. `class_probability` is that of the class named, not of fake, and below .5 where the thresholds are not
at .5. Face pictures (`fake_face`) are left out: they are face data.
"""

from __future__ import annotations

from typing import Any

from ..messages import VerdictBody
from ..messages.verdict import TrackPart


def sensity_report(outcome: VerdictBody) -> dict[str, Any]:
    """A task's report; without a result while it waits and when nothing was measured."""
    p_fake = outcome.score.p_fake if outcome.score is not None and outcome.verdict != "inconclusive" else None
    report: dict[str, Any] = {
        "id": outcome.job_id or outcome.video_id,
        "event_type": "face_manipulation",
        "status": {"complete": "completed", "failed": "failed"}.get(outcome.state, "processing"),
        "preview": None,
        "no_faces": "NO_FACE" in outcome.reason_codes,
        "result": None,
    }
    if outcome.error is not None:
        report["error"] = f"{outcome.error.code}: {outcome.error.message}"
    elif outcome.state == "complete" and p_fake is None:
        report["error"] = outcome.sentence or ", ".join(outcome.reason_codes)
    if p_fake is not None:
        is_real = outcome.verdict == "authentic"
        rate = outcome.video.frame_rate if outcome.video is not None else None
        report["result"] = {
            "class_name": "real" if is_real else "fake",
            "class_probability": 1.0 - p_fake if is_real else p_fake,
            "explanation": [_face(track, rate) for track in outcome.tracks if track.p_fake is not None and track.worst is not None],
        }
    return report


def _face(track: TrackPart, rate: float | None) -> dict[str, Any]:
    assert track.worst is not None
    sides = [((x1 - x0) + (y1 - y0)) / 2 for x0, y0, x1, y1 in track.boxes or [track.worst.bbox]]
    return {
        "id": track.id,
        "fake_probability": track.p_fake,
        "fake_frame_idx": _frame(track.worst.t, rate),
        "fake_frame_ms": round(1000 * track.worst.t),
        "fake_bbox": list(track.worst.bbox),
        "fake_bbox_average_size": sum(sides) / len(sides),
        "tracks": [
            {"bbox": list(box), "frame_idx": _frame(seconds, rate), "frame_ms": round(1000 * seconds), "frame_rate": rate}
            for (seconds, _score), box in zip(track.scores, track.boxes, strict=False)
        ],
    }


def _frame(seconds: float, rate: float | None) -> int | None:
    """Number of the frame at a constant rate; None for a single picture."""
    return round(seconds * rate) if rate else None
