"""The scores of every face track that is long enough to say something."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .aggregate import MIN_TRACK_CROPS, quality_weight
from .batching import Share
from .bundle import Bundle
from .detectors import Precision, is_track_bundle
from .engine import Engine
from .faces.track import follow
from .judging import Look, Scored
from .structs import CropScore, FaceBox


def score_tracks(
    look: Look,
    engine: Engine,
    bundles: Sequence[Bundle],
    *,
    sharpness_of: str,
    deadline: float,
    cancel: threading.Event | None,
    exact: bool = False,
    share: Share | None = None,
) -> Scored:
    """Follow the faces of a look and put their scores together.

    Args:
        look: frames, faces, crops, and the logits of the detectors of single crops.
        engine: the models.
        bundles: whose scores are wanted.
        sharpness_of: name of the one whose crops say how sharp a face is.
        deadline: monotonic time by which scoring must be done.
        cancel: set it to stop early.
        exact: compute the logits of single crops again in fp32.
        share: the video's part of the device.
    """
    number_of = {id(box): (box.frame_id, number) for kept in look.boxes for number, box in enumerate(kept)}
    members = [
        (track.track_id, box, look.crops[number_of[id(box)]])
        for track in follow(look.frames, look.boxes)
        if len(track.boxes) >= MIN_TRACK_CROPS
        for box in track.boxes
    ]
    logits: list[dict[str, float]] = [{} for _ in members]
    seconds: dict[str, float] = {}
    for bundle in bundles:
        started = time.monotonic()
        crops = [cuts[bundle.name][0] for _, _, cuts in members]
        if is_track_bundle(bundle):
            values = _track_logits(engine, bundle, [(track_id, box) for track_id, box, _ in members], crops)
        elif exact:
            scored = engine.logits(bundle.name, crops, deadline=deadline, cancel=cancel, exact=True, share=share)
            values = {i: float(value) for i, value in enumerate(scored)}
        else:
            values = {i: look.logits[number_of[id(box)]][bundle.name] for i, (_, box, _) in enumerate(members)}
        for i, value in values.items():
            logits[i][bundle.name] = value
        seconds[bundle.name] = look.waited.get(bundle.name, 0.0) + time.monotonic() - started
    scores = [
        CropScore(
            track_id=track_id,
            pts_seconds=box.pts_seconds,
            logits=logits[i],
            weight=quality_weight(confidence=box.confidence, side_px=box.side_px, sharpness=cuts[sharpness_of][1]),
            side_px=box.side_px,
            xyxy=(float(box.xyxy[0]), float(box.xyxy[1]), float(box.xyxy[2]), float(box.xyxy[3])),
        )
        for i, (track_id, box, cuts) in enumerate(members)
    ]
    crops_of = {(track_id, box.pts_seconds): {bundle.name: cuts[bundle.name][0] for bundle in bundles} for track_id, box, cuts in members}
    precision: dict[str, Precision] = {bundle.name: "fp32" if exact else engine.precision(bundle.name) for bundle in bundles}
    return Scored(scores=scores, crops=crops_of, seconds=seconds, precision=precision)


def _track_logits(
    engine: Engine, bundle: Bundle, faces: Sequence[tuple[int, FaceBox]], crops: Sequence[NDArray[np.uint8]]
) -> dict[int, float]:
    """Logits of a detector of tracks by number of the crop; crops of tracks that are too short for it are left out."""
    out: dict[int, float] = {}
    for track_id in sorted({track_id for track_id, _ in faces}):
        members = [i for i, (other, _) in enumerate(faces) if other == track_id]
        points = [faces[i][1].landmarks_in_crop(bundle.crop.margin) for i in members]
        values = engine.track_logits(bundle.name, [crops[i] for i in members], points)
        if values is not None:
            out |= {i: float(value) for i, value in zip(members, values, strict=True)}
    return out
