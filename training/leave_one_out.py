"""Protocol E1: what a detector makes of a generator that its training left out, generator by generator.

Every generator's pairs are drawn once and shared by all runs, so that the runs differ in nothing but what they leave out.
A clip is several pictures of one held-out video (or one still), faked by one generator, beside the same pictures untouched;
its score is the mean logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Generator, Tensor, nn

from .augment import AugmentConfig, augment_pairs
from .errors import DataError
from .face_pack import FacePack
from .geometry import chance, view
from .loop import Batch, step_generator
from .metrics import auc, tpr_at_fpr
from .pairs import PairConfig, PairSource
from .simulators.base import Reals, Simulator
from .simulators.classical_swap import ClassicalSwap

_DRAWN_TOGETHER: Final = 32
NEVER_TAUGHT: Final[Simulator] = ClassicalSwap()
"""Shown to every training, taught to none."""


@dataclass(frozen=True, slots=True, eq=False)
class PairPool:
    """Kept pairs of one generator, as bytes."""

    generator: str
    reals: Tensor
    """uint8 (N, 3, S, S)."""
    fakes: Tensor
    """uint8 (N, 3, S, S), in the order of `reals`."""
    masks: Tensor
    """uint8 (N, 1, S, S), 255 where nothing of the real is left."""

    def __post_init__(self) -> None:
        if not len(self.reals) == len(self.fakes) == len(self.masks) > 0:
            raise DataError(f"a pool needs as many fakes and masks as reals, got {len(self.reals)}, {len(self.fakes)}, {len(self.masks)}")


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Pairs of clips of one generator."""

    generator: str
    reals: Tensor
    """uint8 (looks, clips, 3, S, S)."""
    fakes: Tensor
    """uint8, the same shape."""


@dataclass(frozen=True, slots=True)
class Cell:
    """How one training fares on one generator."""

    auc: float
    tpr_at_1_percent: float
    num_clips: int


def pool_of(pack: FacePack, simulator: Simulator, *, name: str, pairs: int, size_px: int, seed: int) -> PairPool:
    """Draw `pairs` augmented pairs of one generator from training faces."""
    source = PairSource(pack, [(simulator, 1.0)], config=_config(size_px), augment=AugmentConfig())
    together = min(_DRAWN_TOGETHER, pairs, len(pack))
    drawn = [source.draw(together, step_generator(seed, i))[:3] for i in range(-(-pairs // together))]
    reals, fakes, masks = (torch.cat([_bytes(batch[k]) for batch in drawn])[:pairs] for k in range(3))
    return PairPool(name, reals, fakes, masks)


def batch_of(pools: Sequence[PairPool], pairs: int, generator: Generator) -> Batch:
    """Pairs of all the pools in equal shares, mirrored at random; fakes first."""
    owner = torch.randint(len(pools), (pairs,), generator=generator)
    place = torch.rand(pairs, generator=generator)
    chosen = [(pools[int(k)], int(p * len(pools[int(k)].reals))) for k, p in zip(owner, place, strict=True)]
    mirrored = chance(pairs, 0.5, generator)[:, None, None, None]

    def stacked(field: str) -> Tensor:
        images = torch.stack([getattr(pool, field)[i] for pool, i in chosen]).to(mirrored.device).float() / 255  # pools stay in main memory
        return torch.where(mirrored, images.flip(-1), images)

    reals, fakes, masks = stacked("reals"), stacked("fakes"), stacked("masks")
    labels = torch.cat([torch.ones(pairs), torch.zeros(pairs)])
    return Batch(2 * torch.cat([fakes, reals]) - 1, labels, torch.cat([masks, torch.zeros_like(masks)]), paired=True)


def clip_rows(pack: FacePack, *, looks: int) -> list[list[int]]:
    """Rows of the pack by clip: `looks` spread pictures of each video, or each still by itself where there is no video.

    Raises:
        DataError: there are fewer than two clips.
    """
    videos: dict[str, list[int]] = {}
    for i, row in enumerate(pack.rows):
        if row.kind == "video":
            videos.setdefault(row.file.rpartition("@")[0], []).append(i)
    clips = [[rows[len(rows) * k // looks] for k in range(looks)] for rows in videos.values() if len(rows) >= looks]
    if len(clips) < 2:
        clips = [[i] for i in range(len(pack))]
    if len(clips) < 2:
        raise DataError(f"leaving generators out needs at least two held-out clips or faces, got {len(clips)}; give more data")
    return clips


def clips_of(pack: FacePack, rows: Sequence[Sequence[int]], simulator: Simulator, *, name: str, size_px: int, seed: int) -> Clips:
    """Fake every clip with one generator; one picture of every clip at a time, so that donors are other people."""
    config = _config(size_px)
    reals, fakes = [], []
    for k in range(len(rows[0])):
        generator = step_generator(seed, k)
        images, landmarks = view(pack, torch.tensor([clip[k] for clip in rows]), size_px=config.work_px, margin=1.3)
        made = simulator(Reals(images, landmarks), generator)
        real, fake, _ = augment_pairs(made.reals, made.images, made.masks, size_px=size_px, config=AugmentConfig(), generator=generator)
        reals.append(_bytes(real))
        fakes.append(_bytes(fake))
    return Clips(name, torch.stack(reals), torch.stack(fakes))


def measure(net: nn.Module, clips: Clips) -> Cell:
    """AUC and detection rate of `net` on the pairs of one generator."""
    real, fake = (_clip_scores(net, images) for images in (clips.reals, clips.fakes))
    scores = torch.cat([real, fake]).tolist()
    labels = [0] * len(real) + [1] * len(fake)
    return Cell(round(auc(scores, labels), 4), round(tpr_at_fpr(scores, labels, 0.01), 4), len(real))


def _clip_scores(net: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.stack([net(2 * (look.float() / 255) - 1).float() for look in images]).mean(0)


def _config(size_px: int) -> PairConfig:
    return PairConfig(size_px=size_px, work_px=max(16, size_px * 9 // 8 // 16 * 16))


def _bytes(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().byte()
