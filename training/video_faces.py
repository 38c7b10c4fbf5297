"""Face crops of videos, through the same decoder, face detector and tracker that screening uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detect_core.aggregate import quality_weight
from detect_core.bundle import CropSpec
from detect_core.errors import DetectCoreError
from detect_core.faces.detect import FaceDetector, boxes_in_full_size
from detect_core.faces.sparse import find_sparsely
from detect_core.faces.track import follow
from detect_core.judging import Look
from detect_core.options import ScreeningOptions
from detect_core.structs import FaceBox, Frame, VideoInfo
from detect_core.video.decode import CropRequest, DecodeSession

from .errors import DataError
from .face_pack import PACK_MARGIN, PACK_SIDE_PX, FacePack, FaceRow, build_pack
from .split_videos import VideoRow

MIN_TRACK_CROPS: Final = 3


WIDE: Final = CropSpec(size_px=PACK_SIDE_PX, margin=PACK_MARGIN)
"""The crop that packs are made of."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackCrops:
    """The crops of one followed face, in time order."""

    track_id: int
    boxes: tuple[FaceBox, ...]
    images: Mapping[str, tuple[NDArray[np.uint8], ...]]
    """Name of the crop specification -> (S, S, 3) RGB per box."""
    weights: tuple[float, ...]
    """Quality weights, as screening gives them: from the first specification's sharpness."""


def cut_tracks(
    path: Path,
    specs: Mapping[str, CropSpec],
    *,
    detector: FaceDetector,
    options: ScreeningOptions | None = None,
    on_info: Callable[[VideoInfo], None] = lambda _info: None,
) -> list[TrackCrops]:
    """Decode one video, follow its faces and cut crops of every track that is long enough.

    Args:
        path: the video.
        specs: crops wanted of every face, by name.
        detector: finds the faces.
        options: sampling and limits; those of screening by default.
        on_info: told what the file is, as a verdict says it.

    Raises:
        DataError: the video cannot be decoded; the message names it.
    """
    options = options or ScreeningOptions()
    frames: list[Frame] = []
    boxes_per_frame: list[list[FaceBox]] = []
    cuts: dict[tuple[int, str], tuple[NDArray[np.uint8], float]] = {}
    try:
        with path.open("rb") as file, DecodeSession(file, options=options) as session:
            info = session.open()
            more = True
            while more:
                batch, more = session.next_frames(options.num_frames)
                found = _find(batch, detector=detector, options=options)
                keys = [(box, name) for kept in found for box in kept for name in specs]
                requests = [_request(box, specs[name]) for box, name in keys]
                for (box, name), cut in zip(keys, session.cut(requests), strict=True):
                    cuts[id(box), name] = cut
                frames += batch
                boxes_per_frame += found
                if more:
                    session.release()
    except DetectCoreError as err:
        raise DataError(f"{path}: cannot be used for training ({err}); repair it or take its row out of the manifest") from err
    on_info(replace(info, quantiser=Look(frames=frames).quantiser(info.quantiser)))
    first = next(iter(specs))
    tracks = []
    for track in follow(frames, boxes_per_frame):
        if len(track.boxes) >= MIN_TRACK_CROPS:
            images = {name: tuple(cuts[id(box), name][0] for box in track.boxes) for name in specs}
            weights = tuple(
                quality_weight(confidence=box.confidence, side_px=box.side_px, sharpness=cuts[id(box), first][1]) for box in track.boxes
            )
            tracks.append(TrackCrops(track.track_id, track.boxes, images, weights))
    return tracks


def read_videos(
    root: Path,
    rows: Sequence[VideoRow],
    *,
    detector: FaceDetector,
    num_frames: int = 16,
    on_video: Callable[[str, int], None] = lambda _file, _crops: None,
) -> FacePack:
    """Pack the largest track of each video: `num_frames` crops spread over its time."""
    options = ScreeningOptions(num_frames=num_frames)
    crops, landmarks, packed = [], [], []
    for row in rows:
        tracks = cut_tracks(root / row.file, {"wide": WIDE}, detector=detector, options=options)
        if tracks:
            track = max(tracks, key=lambda t: sum(box.side_px for box in t.boxes))
            for box, image in zip(track.boxes, track.images["wide"], strict=True):
                crops.append(image)
                landmarks.append(box.landmarks_in_crop(WIDE.margin))
                packed.append(_row(row, box))
        on_video(row.file, len(tracks[0].boxes) if tracks else 0)
    if not crops:
        raise DataError(f"{root}: none of its {len(rows)} videos shows a face that can be followed; give videos of people")
    return build_pack(crops, landmarks, packed)


def _find(frames: Sequence[Frame], *, detector: FaceDetector, options: ScreeningOptions) -> list[list[FaceBox]]:
    if not frames:
        return []
    min_small_px = max(options.min_face_px / frames[0].scale, 20.0)
    faces = find_sparsely(
        [frame.image_hwc for frame in frames],
        find=lambda images: detector.find(images, min_face_px=min_small_px),
        refine=detector.refine,
    )
    return [
        boxes_in_full_size(
            frame, found, min_face_px=options.min_face_px, min_confidence=options.min_confidence, max_faces=options.max_faces_per_frame
        )
        for frame, found in zip(frames, faces, strict=True)
    ]


def _request(box: FaceBox, spec: CropSpec) -> CropRequest:
    centre = (float(box.xyxy[0] + box.xyxy[2]) / 2, float(box.xyxy[1] + box.xyxy[3]) / 2)
    return CropRequest(
        frame_id=box.frame_id, centre_xy=centre, side=box.side_px * spec.margin, size_px=spec.size_px, native=spec.resample == "native"
    )


def _row(row: VideoRow, box: FaceBox) -> FaceRow:
    return FaceRow(
        file=f"{row.file}@{box.pts_seconds:.3f}",
        source=row.source,
        label=row.label,
        generator=row.generator,
        group=row.group,
        split=row.split,
        kind="video",
        face_px=box.side_px,
    )
