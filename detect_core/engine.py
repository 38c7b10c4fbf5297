"""The models of one device behind one micro-batcher: face detector and detectors, shared by all videos of a process."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .batching import BatchReport, MicroBatcher, Pending, Share
from .bundle import Bundle
from .calibration import BundleSet
from .detectors import Detector, Precision, PrecisionWish, is_track_bundle, load_detector, load_track_detector
from .detectors.runtime import without_tf32
from .faces.detect import FaceDetector, FoundFace, MtcnnFaceDetector
from .faces.sparse import find_sparsely

_FACE_LANE = "face_detector"
_REFINE_LANE = "face_refiner"
_FACE_BATCH = 16
_CROP_BATCH = {"cpu": 16, "cuda": 64}
"""On a CPU larger batches are no faster, cost memory and hold the neighbours up; the face search loses a third in batches of 4 (11.5 against 8.3 ms a frame)."""
_EXACT = "exact"


class Engine:
    """Loads every model once and runs them in one device thread."""

    def __init__(
        self,
        bundle_set: BundleSet,
        *,
        device: str = "cpu",
        precision: PrecisionWish = "fp32",
        compiled: bool = False,
        face_detector: FaceDetector | None = None,
        on_batch: Callable[[BatchReport], None] | None = None,
    ) -> None:
        """Load the models.

        Args:
            bundle_set: verified bundles.
            device: torch device that this process owns.
            precision: of the detectors; `auto` takes bf16 where the device is fast at it and a probe's scores hold.
            compiled: let TorchInductor compile the detectors' nets.
            face_detector: another face detector than MTCNN.
            on_batch: called after every batch, for metrics.

        Raises:
            BundleError: weights are missing, changed or do not fit.
        """
        without_tf32(torch.device(device))  # a face box must not hang on the card either
        self.face_detector = face_detector or MtcnnFaceDetector(device=device)
        self.detectors: dict[str, Detector] = {
            bundle.name: load_detector(bundle, device=device, precision=precision, compiled=compiled)
            for bundle in bundle_set.bundles
            if not is_track_bundle(bundle)
        }
        self.track_detectors = {bundle.name: load_track_detector(bundle) for bundle in bundle_set.bundles if is_track_bundle(bundle)}
        kind = device.split(":", maxsplit=1)[0]
        crop_batch = _CROP_BATCH.get(kind, 64)
        gather_seconds = 0.01 if device.startswith("cuda") else 0.0
        self.batcher = MicroBatcher(gather_seconds=gather_seconds, on_batch=on_batch)
        self.batcher.add_lane(_FACE_LANE, self._find_faces, max_batch=_FACE_BATCH)
        self.batcher.add_lane(_REFINE_LANE, self._refine_faces, max_batch=_FACE_BATCH)
        for name, detector in self.detectors.items():
            self.batcher.add_lane(name, _scorer(detector), max_batch=crop_batch)
            if detector.precision != "fp32":
                self.batcher.add_lane(f"{name}:{_EXACT}", _exact_scorer(detector.bundle, device=device), max_batch=crop_batch)

    @property
    def is_exact(self) -> bool:
        """Whether every detector scores in fp32, as it was calibrated."""
        return all(detector.precision == "fp32" for detector in self.detectors.values())

    def precision(self, name: str) -> Precision:
        """The precision that detector `name` scores in."""
        return self.detectors[name].precision if name in self.detectors else "fp32"

    def find_faces(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        min_face_px: float,
        deadline: float,
        cancel: threading.Event | None,
        before: Sequence[FoundFace] | None = None,
        share: Share | None = None,
    ) -> list[list[FoundFace]]:
        """Faces on consecutive small pictures of one video; shares batches with other videos of the same size.

        `before` is what was found on the picture just before them, `share` the video's part of the device.
        """
        return find_sparsely(
            images,
            before=before,
            find=lambda batch: self.batcher.submit(
                _FACE_LANE, [(image, min_face_px) for image in batch], deadline=deadline, cancel=cancel, share=share
            ),
            refine=lambda items: self.batcher.submit(_REFINE_LANE, items, deadline=deadline, cancel=cancel, share=share),
        )

    def logits(
        self,
        name: str,
        crops: Sequence[NDArray[np.uint8]],
        *,
        deadline: float,
        cancel: threading.Event | None,
        exact: bool = False,
        share: Share | None = None,
    ) -> NDArray[np.float32]:
        """(N,) temperature-scaled logits of detector `name`; in fp32 whatever the engine's precision when `exact`."""
        lane = f"{name}:{_EXACT}" if exact and self.precision(name) != "fp32" else name
        return np.asarray(self.batcher.submit(lane, crops, deadline=deadline, cancel=cancel, share=share), np.float32)

    def start_logits(
        self,
        name: str,
        crops: Sequence[NDArray[np.uint8]],
        *,
        deadline: float,
        cancel: threading.Event | None,
        share: Share | None = None,
    ) -> Pending:
        """Queue `crops` for detector `name`; call what is returned to wait for the N logits."""
        return self.batcher.start(name, crops, deadline=deadline, cancel=cancel, share=share)

    def track_logits(
        self, name: str, crops: Sequence[NDArray[np.uint8]], landmarks: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32] | None:
        """(N,) logits of a detector that looks at a whole track, or None where it is too short. Runs in the caller's thread."""
        return self.track_detectors[name].track_logits(crops, landmarks)

    def close(self) -> None:
        """Stop the device thread."""
        self.batcher.close()

    def _find_faces(self, items: list[tuple[NDArray[np.uint8], float]]) -> list[list[FoundFace]]:
        """Pictures of one size and one smallest face go through the cascade together."""
        groups: dict[tuple[int, int, float], list[int]] = defaultdict(list)
        for i, (image, min_face_px) in enumerate(items):
            groups[image.shape[0], image.shape[1], round(min_face_px, 1)].append(i)
        found: list[list[FoundFace]] = [[] for _ in items]
        for (_height, _width, min_face_px), members in groups.items():
            results = self.face_detector.find([items[i][0] for i in members], min_face_px=min_face_px)
            for i, faces in zip(members, results, strict=True):
                found[i] = faces
        return found

    def _refine_faces(self, items: list[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> list[list[FoundFace | None]]:
        """Pictures of one size are refined together."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, (image, _) in enumerate(items):
            groups[image.shape].append(i)
        faces: list[list[FoundFace | None]] = [[] for _ in items]
        for members in groups.values():
            for i, refined in zip(members, self.face_detector.refine([items[i] for i in members]), strict=True):
                faces[i] = refined
        return faces


def _exact_scorer(bundle: Bundle, *, device: str) -> Callable[[list[NDArray[np.uint8]]], Sequence[float]]:
    """The same detector in fp32, loaded when it is first asked: few videos come so close to a threshold."""
    loaded: list[Detector] = []

    def run(crops: list[NDArray[np.uint8]]) -> Sequence[float]:
        if not loaded:
            loaded.append(load_detector(bundle, device=device))
        return [float(value) for value in loaded[0].logits(crops)]

    return run


def _scorer(detector: Detector) -> Callable[[list[NDArray[np.uint8]]], Sequence[float]]:
    return lambda crops: [float(value) for value in detector.logits(crops)]
