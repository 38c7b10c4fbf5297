"""The moments that justify a verdict: worst crops, suspicious stretches, thumbnails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .aggregate import WINDOW, TrackWindow, window_scores
from .calibration import VideoCalibration
from .structs import CropScore, Evidence, Segment, TrackScore

NUM_EVIDENCE = 6
"""Moments in a verdict."""
_THUMBNAIL_QUALITY = 80


def crop_score(z: float, *, calibration: VideoCalibration) -> float:
    """A crop's fused logit on the verdict's probability scale, for charts and rankings."""
    return calibration.probability(z)


def thumbnail_jpeg(image_hwc: NDArray[np.uint8]) -> bytes:
    """A small JPEG of an RGB crop."""
    done, payload = cv2.imencode(".jpg", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY])
    if not done:
        raise ValueError(f"tried to encode a thumbnail of shape {image_hwc.shape}; expected (S, S, 3) uint8")
    return payload.tobytes()


def worst_moments(
    scores: Sequence[CropScore],
    *,
    calibration: VideoCalibration,
    pictures: Mapping[tuple[int, float], NDArray[np.uint8]],
    thumbnails: bool,
    deciding: TrackScore | None = None,
) -> tuple[Evidence, ...]:
    """The highest-scoring crops: those of the window that decided, then of its track, then of all others; each group worst first.

    Another face may hold higher crops: one that cannot be judged, or a single outlier. The evidence is about the face of the verdict.

    Args:
        scores: crop scores of the judged tracks.
        calibration: fuses and calibrates.
        pictures: crop picture by (track_id, pts_seconds).
        thumbnails: whether to attach JPEGs.
        deciding: the track that decided; None: no single one did.
    """

    def rank(score: CropScore) -> tuple[int, float]:
        group = 2
        if deciding is not None and score.track_id == deciding.track_id:
            start, end = deciding.window_seconds or deciding.time_seconds
            group = 0 if start <= score.pts_seconds <= end else 1
        return group, -calibration.fusion.fuse(score.logits)

    return tuple(
        _evidence(score, calibration=calibration, picture=pictures.get((score.track_id, score.pts_seconds)) if thumbnails else None)
        for score in sorted(scores, key=rank)[:NUM_EVIDENCE]
    )


def track_score(track: Sequence[CropScore], window: TrackWindow | None, *, calibration: VideoCalibration) -> TrackScore:
    """One track's line in the verdict."""
    fused = [calibration.fusion.fuse(score.logits) for score in track]
    worst = track[int(np.argmax(fused))]
    return TrackScore(
        track_id=track[0].track_id,
        num_crops=len(track),
        time_seconds=(track[0].pts_seconds, track[-1].pts_seconds),
        p_fake=calibration.probability(window.z) if window else None,
        z=window.z if window else None,
        worst=_evidence(worst, calibration=calibration, picture=None),
        scores=tuple((score.pts_seconds, crop_score(z, calibration=calibration)) for score, z in zip(track, fused, strict=True)),
        boxes=tuple(score.xyxy for score in track),
        window_seconds=(track[window.start].pts_seconds, track[window.stop - 1].pts_seconds) if window else None,
    )


def suspicious_segments(track: Sequence[CropScore], *, calibration: VideoCalibration) -> list[Segment]:
    """Stretches of one track where the window score reaches the review threshold."""
    fused = [calibration.fusion.fuse(score.logits) for score in track]
    windows = window_scores(fused, [score.weight for score in track])
    length = min(WINDOW, len(track))
    segments: list[Segment] = []
    for i, z in enumerate(windows):
        peak = calibration.probability(z)
        if peak < calibration.t_review:
            continue
        start, end = track[i].pts_seconds, track[i + length - 1].pts_seconds
        if segments and start <= segments[-1].end_seconds:
            last = segments[-1]
            segments[-1] = Segment(last.track_id, last.start_seconds, end, max(last.peak, peak))
        else:
            segments.append(Segment(track[0].track_id, start, end, peak))
    return segments


def mean_logits(logits: Sequence[Mapping[str, float]], window: TrackWindow) -> dict[str, float]:
    """Each detector's mean logit over the window of a track, of which `logits` holds every crop's in time order."""
    rows = logits[window.start : window.stop]
    names = set().union(*rows)
    return {name: math.fsum(row[name] for row in rows if name in row) / len(rows) for name in sorted(names)}


def _evidence(score: CropScore, *, calibration: VideoCalibration, picture: NDArray[np.uint8] | None) -> Evidence:
    return Evidence(
        track_id=score.track_id,
        pts_seconds=score.pts_seconds,
        xyxy=score.xyxy,
        score=crop_score(calibration.fusion.fuse(score.logits), calibration=calibration),
        detector=calibration.fusion.loudest(score.logits),
        thumbnail_jpeg=thumbnail_jpeg(picture) if picture is not None else None,
    )
