"""Hive, asynchronous task of API v2: one output entry per looked-at moment, one polygon per face, two classes that add up to one."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from ..messages import VerdictBody

_SUCCESS: Final = "0"


def hive_task(outcome: VerdictBody) -> dict[str, Any]:
    """A task: only its ID while it waits, its status once it has ended.

    `meta.score` would be the face detector's confidence; a verdict does not keep it, so it is null. Verdicts of older builds
    hold no boxes: their polygons are left out.
    """
    if outcome.state in ("queued", "processing"):
        return {"task_id": outcome.job_id or outcome.video_id}
    video = outcome.video
    media: dict[str, Any] = {"type": "VIDEO", "filename": outcome.video_id}
    if video is not None:
        media |= {"width": video.width, "height": video.height, "duration": video.duration}
    code, message = (outcome.error.code, outcome.error.message) if outcome.error else (_SUCCESS, "SUCCESS")
    response = {
        "input": {
            "id": outcome.job_id,
            "model": "veriframe_deepfake",
            "model_version": outcome.bundle_set,
            "hash": outcome.content_sha256,
            "media": media,
        },
        "output": _output(outcome),
    }
    return {
        "task_id": outcome.job_id or outcome.video_id,
        "status": [{"status": {"code": code, "message": message}, "response": response}],
        "from_cache": False,
    }


def _output(outcome: VerdictBody) -> list[dict[str, Any]]:
    faces: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for track in outcome.tracks:
        for (seconds, score), box in zip(track.scores, track.boxes, strict=False):
            faces[round(seconds, 6)].append(_polygon(track.id, box, score))
    moments = {round(seconds, 6) for seconds in (outcome.sampling.pts if outcome.sampling else [])}
    return [{"time": seconds, "bounding_poly": faces[seconds]} for seconds in sorted(moments | faces.keys())]


def _polygon(track_id: int, box: tuple[float, float, float, float], score: float) -> dict[str, Any]:
    left, top, right, bottom = box
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return {
        "vertices": [{"x": x, "y": y} for x, y in corners],
        "dimensions": {"left": left, "top": top, "right": right, "bottom": bottom},
        "classes": [{"class": "yes_deepfake", "score": score}, {"class": "no_deepfake", "score": 1.0 - score}],
        "meta": {"type": "face", "score": None, "id": track_id},
    }
