"""The MTCNN cascade with every stage batched over all pictures and candidates, without Python per candidate.

Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks". The three
nets and their weights are those of the facenet-pytorch wheel; what differs from its loop is how candidates are cut:
one `roi_align` over all pictures instead of one slice and one resize each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
import torch.nn.functional
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

_FACTOR: Final = 0.709
"""Scale step of the pyramid; its square is one half."""
_CELL: Final = 12
"""Side of what the proposal net sees."""
_THRESHOLDS: Final = (0.6, 0.7, 0.7)
_MAX_CANDIDATES_PER_PICTURE: Final = 300
"""Proposals that go on per picture: texture full of almost-faces must not starve the neighbours."""
_CONTAINED: Final = np.float32(0.7)
"""Share of the smaller of two boxes that lies in both, above which they show one face."""

_BATCH_STEP: Final = 16
"""Candidates are filled up to a multiple of this: matrix kernels treat the odd rest of a batch another way, and a box would depend on the
other videos in its batch. Filled up, it is the same bits alone and among others (measured: 4 is not enough here, 16 is)."""


class StageNet(Protocol):
    """A net of the cascade."""

    def __call__(self, x_BCHW: Tensor) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class CascadeNets:
    """Proposal, refinement and output net, in eval mode on one device."""

    proposal: StageNet
    refinement: StageNet
    output: StageNet


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Boxes over several pictures."""

    xyxy: Tensor
    """(K, 4) float pixels."""
    probability: Tensor
    """(K,)"""
    picture: Tensor
    """(K,) picture number, int64."""
    landmarks: Tensor | None = None
    """(K, 5, 2) after the output net."""

    def at(self, index: Tensor) -> Candidates:
        """The chosen rows."""
        landmarks = None if self.landmarks is None else self.landmarks[index]
        return Candidates(self.xyxy[index], self.probability[index], self.picture[index], landmarks)


def find(nets: CascadeNets, pictures_NCHW: Tensor, *, min_face_px: float) -> Candidates:
    """Run the whole cascade.

    Args:
        nets: the three nets, channels last.
        pictures_NCHW: (N, 3, H, W) uint8 RGB, channels last.
        min_face_px: smallest face that is looked for, in pixels of the pictures.
    """
    proposals = _propose(nets, pictures_NCHW, min_face_px=min_face_px)
    pixels = pictures_NCHW.float().contiguous()  # as roi_align reads it
    return _finish(nets, pixels, _reject(nets, pixels, proposals))


def refine(nets: CascadeNets, pictures_NCHW: Tensor, xyxy: Tensor, picture: Tensor) -> Candidates:
    """Let the output net pull expected boxes onto the faces there, twice; one row per expected box, none dropped.

    Args:
        nets: the three nets, channels last.
        pictures_NCHW: (N, 3, H, W) uint8 RGB, channels last.
        xyxy: (K, 4) expected boxes.
        picture: (K,) picture number of each.
    """
    pixels = pictures_NCHW.float().contiguous()  # as roi_align reads it
    expected = Candidates(xyxy, xyxy.new_ones(len(xyxy)), picture)
    for _ in range(2):
        expected = _output(nets, pixels, expected)
    return expected


def _output(nets: CascadeNets, pixels_NCHW: Tensor, candidates: Candidates) -> Candidates:
    """The output net over every candidate: moved box, probability, landmarks."""
    squares = _square(candidates.xyxy)
    shift, points, probability = _filled_up(nets.output, _patches(pixels_NCHW, squares, candidates.picture, size_px=48))
    width, height = _sides(squares)
    landmarks = torch.stack([points[:, :5] * width[:, None] + squares[:, :1], points[:, 5:] * height[:, None] + squares[:, 1:2]], dim=2)
    return Candidates(_shifted(squares, shift), probability[:, 1], candidates.picture, landmarks)


def _finish(nets: CascadeNets, pixels_NCHW: Tensor, candidates: Candidates) -> Candidates:
    """Final boxes, probabilities and landmarks; overlapping boxes are merged."""
    if len(candidates.xyxy) == 0:
        return Candidates(candidates.xyxy, candidates.probability, candidates.picture, candidates.xyxy.new_zeros((0, 5, 2)))
    found = _output(nets, pixels_NCHW, candidates)
    found = found.at(torch.nonzero(found.probability > _THRESHOLDS[2]).squeeze(1))
    found = found.at(batched_nms(found.xyxy, found.probability, found.picture, 0.7))
    return found.at(_not_contained(found))


def _propose(nets: CascadeNets, pictures_NCHW: Tensor, *, min_face_px: float) -> Candidates:
    height, width = pictures_NCHW.shape[2:]
    scale = _CELL / min_face_px
    parts: list[Candidates] = []
    # bytes are resampled ten times faster than floats on a CPU; CUDA has no such kernel
    level = pictures_NCHW if pictures_NCHW.device.type == "cpu" else pictures_NCHW.float()
    while min(height, width) * scale >= _CELL:
        size = (int(height * scale + 1), int(width * scale + 1))
        level = torch.nn.functional.interpolate(level, size=size, mode="bilinear", antialias=True)
        shift_map, face_map = nets.proposal(_normalised(level.float()))
        hits = face_map[:, 1] >= _THRESHOLDS[0]
        picture, row, column = torch.nonzero(hits, as_tuple=True)
        probability = face_map[:, 1][hits]
        shift = shift_map.permute(0, 2, 3, 1)[hits]
        corner = torch.stack([column, row], dim=1).float() * 2
        boxes = torch.cat([(corner + 1) / scale, (corner + _CELL) / scale], dim=1)
        kept = batched_nms(boxes, probability, picture, 0.5)
        parts.append(Candidates(_shifted(boxes, shift)[kept], probability[kept], picture[kept]))
        scale *= _FACTOR
    if not parts:
        empty = torch.zeros(0, device=pictures_NCHW.device)
        return Candidates(empty.reshape(0, 4), empty, empty.long())
    found = Candidates(
        torch.cat([part.xyxy for part in parts]),
        torch.cat([part.probability for part in parts]),
        torch.cat([part.picture for part in parts]),
    )
    found = found.at(batched_nms(found.xyxy, found.probability, found.picture, 0.7))
    return _strongest(found, len(pictures_NCHW))


def _reject(nets: CascadeNets, pixels_NCHW: Tensor, candidates: Candidates) -> Candidates:
    """The refinement net: most proposals end here."""
    if len(candidates.xyxy) == 0:
        return candidates
    squares = _square(candidates.xyxy)
    shift, probability = _filled_up(nets.refinement, _patches(pixels_NCHW, squares, candidates.picture, size_px=24))
    probability = probability[:, 1]
    found = Candidates(_shifted(squares, shift), probability, candidates.picture)
    found = found.at(torch.nonzero(probability > _THRESHOLDS[1]).squeeze(1))
    return found.at(batched_nms(found.xyxy, found.probability, found.picture, 0.7))


def _patches(pixels_NCHW: Tensor, xyxy: Tensor, picture: Tensor, *, size_px: int) -> Tensor:
    """(K, 3, size, size) patches, averaged where they shrink, normalised, channels last."""
    rois = torch.cat([picture[:, None].to(xyxy.dtype), xyxy], dim=1)
    patches: Tensor = roi_align(pixels_NCHW, rois, output_size=size_px, sampling_ratio=2, aligned=True)
    return _normalised(patches).contiguous(memory_format=torch.channels_last)


def _filled_up(net: StageNet, patches: Tensor) -> tuple[Tensor, ...]:
    """What the net says about every patch, in a batch filled up to a multiple of `_BATCH_STEP`."""
    missing = -len(patches) % _BATCH_STEP
    if missing and len(patches):
        filled = torch.cat([patches, patches[-1:].expand(missing, -1, -1, -1)]).contiguous(memory_format=torch.channels_last)
    else:
        filled = patches
    return tuple(values[: len(patches)] for values in net(filled))


def _normalised(pixels: Tensor) -> Tensor:
    """0-255 as the cascade's nets were trained on it."""
    return (pixels - 127.5) * (1 / 128)


def _square(xyxy: Tensor) -> Tensor:
    """Squares around the boxes' centres with the longer side."""
    centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    half = (xyxy[:, 2:] - xyxy[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _shifted(xyxy: Tensor, shift: Tensor) -> Tensor:
    """Boxes moved by regressed fractions of their sides."""
    width, height = _sides(xyxy)
    return xyxy + shift * torch.stack([width, height, width, height], dim=1)


def _sides(xyxy: Tensor) -> tuple[Tensor, Tensor]:
    return xyxy[:, 2] - xyxy[:, 0], xyxy[:, 3] - xyxy[:, 1]


def _strongest(candidates: Candidates, num_pictures: int) -> Candidates:
    counts = torch.bincount(candidates.picture, minlength=num_pictures)
    if len(candidates.picture) == 0 or int(counts.max()) <= _MAX_CANDIDATES_PER_PICTURE:
        return candidates
    order = torch.argsort(candidates.probability, descending=True)
    rank_in_picture = torch.zeros_like(order)
    for picture in range(num_pictures):
        members = order[candidates.picture[order] == picture]
        rank_in_picture[members] = torch.arange(len(members), device=order.device)
    return candidates.at(torch.nonzero(rank_in_picture < _MAX_CANDIDATES_PER_PICTURE).squeeze(1))


def _not_contained(found: Candidates) -> Tensor:
    """(J,) rows whose box does not lie (70 % of the smaller of two) in a more probable kept one of the same picture, most probable first.

    One row operation per kept box, among the boxes of its picture alone: in a batch of crowds all pairs would be millions.
    """
    order = torch.argsort(found.probability, descending=True)
    boxes, pictures = found.xyxy[order].cpu().numpy(), found.picture[order].cpu().numpy()
    kept = np.zeros(len(boxes), np.bool_)
    for picture in np.unique(pictures):
        waiting = np.flatnonzero(pictures == picture)
        while len(waiting):
            best, waiting = waiting[0], waiting[1:]
            kept[best] = True
            waiting = waiting[~(_shared(boxes[best], boxes[waiting]) > _CONTAINED)]
    return order[torch.from_numpy(np.flatnonzero(kept)).to(order.device)]


def _shared(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K,) what `box` (4,) and each of `others` (K, 4) have in common, as a share of the smaller of the two."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    smaller = np.minimum(_area(box[None]), _area(others))
    return np.asarray(np.maximum(inner, 0).prod(axis=1) / np.maximum(smaller, np.float32(1e-6)), np.float32)


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1), np.float32)
