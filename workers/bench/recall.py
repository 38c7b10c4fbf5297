"""Whether the fast face search finds what MTCNN finds at native size, on a folder of videos. Only numbers are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from facenet_pytorch import MTCNN
from numpy.typing import NDArray

from detect_core.faces.detect import SMALLEST_FACE_PX, MtcnnFaceDetector
from detect_core.faces.sparse import SURE, find_sparsely

from .measure import Bench

_NUM_FRAMES: Final = 16
_MIN_FACE_PX: Final = 40.0
_LONG_SIDE_PX: Final = 640
_SAME_FACE: Final = 0.4
_GOOD_BOX: Final = 0.8


def face_recall(bench: Bench, folder: Path, *, num_videos: int) -> None:
    """Rows of recall and of box overlap over evenly chosen videos of `folder`.

    The reference is facenet-pytorch's own MTCNN on native-size frames, smallest face 40 px, faces it is sure of.
    """
    videos = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".mkv", ".webm", ".mov"))
    if not videos:
        bench.say(f"no videos in {folder}: recall is not measured")
        return
    chosen = [videos[i] for i in np.unique(np.linspace(0, len(videos) - 1, min(num_videos, len(videos))).astype(int))]
    bench.say(f"faces found in {len(chosen)} of {len(videos)} videos, against MTCNN at native size ...")
    reference = MTCNN(keep_all=True, min_face_size=int(_MIN_FACE_PX))
    ours = MtcnnFaceDetector()
    num_reference = num_found = num_extra = 0
    overlaps: list[float] = []
    for path in chosen:
        frames = _frames(path)
        small, scale = _shrunk(frames)
        search = partial(ours.find, min_face_px=max(_MIN_FACE_PX / scale, SMALLEST_FACE_PX))
        found = find_sparsely(small, find=search, refine=ours.refine)
        for frame, faces in zip(frames, found, strict=True):
            boxes, probabilities = reference.detect(frame)
            wanted = [
                np.asarray(box, np.float32)
                for box, probability in zip(boxes if boxes is not None else (), probabilities, strict=False)
                if probability is not None and probability >= SURE and max(box[2] - box[0], box[3] - box[1]) > _MIN_FACE_PX
            ]
            have = [face.xyxy * np.float32(scale) for face in faces if face.confidence >= SURE]
            matched = [max((_overlap(box, other) for other in have), default=0.0) for box in wanted]
            num_reference += len(wanted)
            num_found += sum(each >= _SAME_FACE for each in matched)
            num_extra += sum(max((_overlap(box, other) for other in wanted), default=0.0) < _SAME_FACE for box in have)
            overlaps += [each for each in matched if each >= _SAME_FACE]
    bench.detail["recall"] = {
        "videos": len(chosen),
        "frames_each": _NUM_FRAMES,
        "reference_faces": num_reference,
        "found": num_found,
        "found_by_ours_only": num_extra,
        "median_overlap": float(np.median(overlaps)) if overlaps else None,
    }
    bench.row(f"faces over 40 px found, of {num_reference} by native MTCNN", num_found / max(num_reference, 1), "of 1", at_least=0.98)
    bench.row(
        "share of them with boxes of overlap 0.8 and more", float(np.mean(np.asarray(overlaps) >= _GOOD_BOX)) if overlaps else 0.0, "of 1"
    )
    bench.row("median overlap of the boxes", float(np.median(overlaps)) if overlaps else 0.0, "", at_least=_GOOD_BOX)


def _frames(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(_NUM_FRAMES, len(every))).astype(int))]


def _shrunk(frames: Sequence[NDArray[np.uint8]]) -> tuple[list[NDArray[np.uint8]], float]:
    height, width = frames[0].shape[:2]
    scale = max(1.0, max(height, width) / _LONG_SIDE_PX)
    size = (round(width / scale), round(height / scale))
    return [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8) for frame in frames], scale


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Intersection over union."""
    inner = float(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod())
    return inner / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - inner, 1e-6)
