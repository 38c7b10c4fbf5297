"""Face detectors behind one protocol. Only this file imports facenet-pytorch.

MTCNN: Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks".
Its weights come inside the facenet-pytorch wheel, so it works offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..structs import FaceBox, Frame
from .cascade import CascadeNets, find, refine

SMALLEST_FACE_PX: Final = 20.0
"""On the searched picture. MTCNN's proposal net looks at 12 px; it was published with 20 as the smallest face."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """One face in the pixels of the picture that was searched."""

    xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    confidence: float


class FaceDetector(Protocol):
    """Finds faces in pictures of one size."""

    name: str

    def find(self, images: Sequence[NDArray[np.uint8]], *, min_face_px: float) -> list[list[FoundFace]]:
        """Find faces in (H, W, 3) RGB uint8 pictures, all of the same size.

        Args:
            images: the pictures.
            min_face_px: faces with a shorter longer side need not be found, in pixels of the pictures.
        """
        ...

    def refine(self, items: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> list[list[FoundFace | None]]:
        """Look for faces at expected places only.

        Args:
            items: (picture, (K, 4) expected boxes) pairs; the pictures have one size.

        Returns:
            Per picture and expected box the face there, or None.
        """
        ...


class MtcnnFaceDetector:
    """The MTCNN cascade of facenet-pytorch's weights, batched over pictures and candidates."""

    name = "mtcnn/facenet-pytorch-2.5.3"

    def __init__(self, *, device: str = "cpu") -> None:
        """Load the cascade's weights from the installed wheel."""
        from facenet_pytorch import MTCNN

        # channels last: three times faster pooling and convolutions on a CPU
        nets = MTCNN(keep_all=True, device=device).to(memory_format=torch.channels_last)
        self._nets = CascadeNets(proposal=nets.pnet, refinement=nets.rnet, output=nets.onet)
        self._device = torch.device(device)

    def find(self, images: Sequence[NDArray[np.uint8]], *, min_face_px: float) -> list[list[FoundFace]]:
        found: list[list[FoundFace]] = [[] for _ in images]
        if not images:
            return found
        with torch.inference_mode():
            pictures_NHWC = torch.from_numpy(np.stack(images)).to(self._device)
            faces = find(self._nets, pictures_NHWC.permute(0, 3, 1, 2), min_face_px=max(float(min_face_px), 12.0))
            boxes, points = faces.xyxy.cpu().numpy(), faces.landmarks.cpu().numpy() if faces.landmarks is not None else np.zeros((0, 5, 2))
            probabilities, pictures = faces.probability.cpu().numpy(), faces.picture.cpu().numpy()
        for xyxy, landmarks, probability, picture in zip(boxes, points, probabilities, pictures, strict=True):
            found[int(picture)].append(FoundFace(xyxy=xyxy, landmarks=landmarks, confidence=float(probability)))
        return found

    def refine(self, items: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> list[list[FoundFace | None]]:
        if not items:
            return []
        with torch.inference_mode():
            pictures_NHWC = torch.from_numpy(np.stack([image for image, _ in items])).to(self._device)
            boxes = torch.from_numpy(np.concatenate([expected for _, expected in items])).to(self._device)
            counts = torch.tensor([len(expected) for _, expected in items], device=self._device)
            picture = torch.arange(len(items), device=self._device).repeat_interleave(counts)
            faces = refine(self._nets, pictures_NHWC.permute(0, 3, 1, 2), boxes, picture)
            xyxy, points, probability = faces.xyxy.cpu().numpy(), faces.landmarks, faces.probability.cpu().numpy()
            assert points is not None
            landmarks = points.cpu().numpy()
        found: list[list[FoundFace | None]] = [[] for _ in items]
        for row, number in enumerate(picture.tolist()):
            found[number].append(FoundFace(xyxy=xyxy[row], landmarks=landmarks[row], confidence=float(probability[row])))
        return found


def boxes_in_full_size(
    frame: Frame, faces: Sequence[FoundFace], *, min_face_px: float, min_confidence: float, max_faces: int
) -> list[FaceBox]:
    """Carry faces found on a small frame over to the full-size picture; keep the largest that are sure enough."""
    boxes = []
    for face in faces:
        xyxy = face.xyxy * np.float32(frame.scale)
        side = float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]))
        if (
            face.confidence >= min_confidence
            and side >= min_face_px
            and np.isfinite(xyxy).all()
            and xyxy[2] > xyxy[0]
            and xyxy[3] > xyxy[1]
        ):
            boxes.append(
                FaceBox(
                    frame_id=frame.frame_id,
                    pts_seconds=frame.pts_seconds,
                    xyxy=xyxy,
                    landmarks=face.landmarks * np.float32(frame.scale),
                    confidence=min(max(face.confidence, 0.0), 1.0),
                )
            )
    boxes.sort(key=lambda box: -box.side_px)
    return boxes[:max_faces]
