"""Another detector beside the set, on the same videos: is it beaten on every column?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detect_core.calibration import Fusion, VideoCalibration

from .calibrate import video_scores
from .metrics import auc, tpr_at_fpr
from .video_scores import DISTORTED, UNDISTORTED, VideoLogits


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of both."""

    what: str
    ours: float
    theirs: float


def beside(videos: Sequence[VideoLogits], calibration: VideoCalibration, *, other: str) -> list[Column]:
    """Every video-level column of the set and of the detector `other`, whose logits stand among the videos' own.

    A video that either cannot score is left out for both, and so is a column for which the material has one class only.
    """
    alone = Fusion(kind="max", offsets={}, weights={})
    members = {name for video in videos for track in video.tracks for name in track.logits} - {other}
    ours = video_scores([_of(video, members) for video in videos], calibration.fusion, calibration.beta)
    theirs = video_scores([_of(video, {other}) for video in videos], alone, 0.0)
    rows = [(video, a, b) for video, a, b in zip(videos, ours, theirs, strict=True) if a is not None and b is not None]

    def column(what: str, chosen: Sequence[tuple[VideoLogits, float, float]]) -> list[Column]:
        labels = [video.label for video, _, _ in chosen]
        if len(set(labels)) < 2:
            return []
        return [Column(what, auc([a for _, a, _ in chosen], labels), auc([b for _, _, b in chosen], labels))]

    true = [row for row in rows if row[0].role in ("real", "fake")]
    labels = [video.label for video, _, _ in true]
    by_generator = [
        each
        for name in sorted({video.generator for video, _, _ in true if video.label})
        for each in column(f"AUC: {name}", [row for row in true if not row[0].label or row[0].generator == name])
    ]
    made = [row for row in rows if row[0].role in ("twin", "simulated")]
    by_family = [
        each
        for name in sorted({video.generator for video, _, _ in made if video.label})
        for each in column(f"AUC: {name}", [row for row in made if not row[0].label or row[0].generator == name])
    ]
    copies = sorted({video.file.split(DISTORTED)[1] for video, _, _ in rows if video.role == "distorted"} - {UNDISTORTED})
    by_copy = [
        each
        for name in copies
        for each in column(f"AUC: {name} copies", [row for row in rows if row[0].file.endswith(f"{DISTORTED}{name}")])
    ]
    labelled = []
    if by_generator:
        labelled = [
            *column("AUC: all labelled fakes", true),
            Column("AUC: mean over generators", *(float(np.mean([getattr(c, side) for c in by_generator])) for side in ("ours", "theirs"))),
            Column("TPR at 1 % FPR", tpr_at_fpr([a for _, a, _ in true], labels, 0.01), tpr_at_fpr([b for _, _, b in true], labels, 0.01)),
        ]
    return [*labelled, *by_generator, *by_family, *by_copy]


def _of(video: VideoLogits, names: Collection[str]) -> VideoLogits:
    return replace(video, tracks=[track.of(names) for track in video.tracks])
