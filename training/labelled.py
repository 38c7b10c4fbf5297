"""Batches for expert B: labelled generated faces against untouched ones, beside pairs whose fake is a reconstruction.

Labelled fakes bring true generators, but share nothing with the reals of their batch; reconstructions of the same real
share everything but the decoder's traces. Mixed, the first cannot teach their source's look alone; and where a source has
both, a labelled fake mostly stands beside a real of its own source, which looks alike but for the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .augment import AugmentConfig, augment_pairs
from .codec import random_codec
from .errors import ConfigError, DataError
from .face_pack import FacePack, FaceRow
from .filters import only
from .geometry import chance, random_views
from .loop import Batch
from .simulators.base import Reals, Simulator


@dataclass(frozen=True, slots=True)
class MixConfig:
    """How a batch is put together; shares are of its pairs."""

    size_px: int = 160
    work_px: int = 176
    margins: tuple[float, float] = (1.1, 1.6)
    labelled_share: float = 0.45
    matched_share: float = 0.6
    """Share of labelled fakes that stand beside a real of their own source, where it has reals."""
    video_share: float = 0.4
    """Share of reals from video frames, if there are any."""
    precompress: float = 0.35

    def __post_init__(self) -> None:
        shares = (self.labelled_share, self.matched_share, self.video_share)
        if not all(0 <= share <= 1 for share in shares) or self.work_px < self.size_px:
            raise ConfigError(f"a mix needs shares in [0, 1] and work_px >= size_px, got {self}")


class LabelledSource:
    """Draws labelled fakes beside reals, and simulated pairs, all augmented alike.

    Args:
        pack: faces of one split, real and fake.
        simulator: makes the fakes of the other pairs.
        config: shares and sizes.
        augment: what happens to both halves.

    Raises:
        DataError: no labelled fake or no real is in `pack`.
    """

    def __init__(self, pack: FacePack, simulator: Simulator, *, config: MixConfig, augment: AugmentConfig) -> None:
        self.pack, self.simulator, self.config, self.augment = pack, simulator, config, augment
        self.fakes = _weights(pack, lambda row: row.label == 1, by=lambda row: row.generator)
        stills = _weights(pack, lambda row: row.label == 0 and row.kind == "still", by=lambda row: row.source)
        videos = _weights(pack, lambda row: row.label == 0 and row.kind == "video", by=lambda row: row.source)
        share = config.video_share if float(stills.sum()) > 0 else 1.0
        self.reals = stills * (1 - share) + videos * share if float(videos.sum()) > 0 else stills
        if not float(self.fakes.sum()) > 0 or not float(self.reals.sum()) > 0:
            raise DataError(
                f"this recipe needs untouched and generated faces, got {int((self.reals > 0).sum())} real and "
                f"{int((self.fakes > 0).sum())} fake; give a folder whose index labels both"
            )
        self._reals_of = {source: _reals_of(pack, source) for source in {row.source for row in pack.rows if row.label == 1}}

    def draw(self, pairs: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Reals and fakes (B, 3, S, S) in 0..1."""
        config = self.config
        labelled = round(pairs * config.labelled_share)
        simulated = pairs - labelled
        real_rows = torch.multinomial(
            self.reals.to(generator.device), pairs, replacement=pairs > int((self.reals > 0).sum()), generator=generator
        )
        fake_rows = torch.multinomial(self.fakes.to(generator.device), max(labelled, 1), replacement=True, generator=generator)[:labelled]
        real_rows[:labelled] = self._matched(real_rows[:labelled], fake_rows, generator)
        real, points = random_views(self.pack, real_rows, size_px=config.work_px, generator=generator, margins=config.margins)
        fakes = []
        if labelled:
            fakes.append(random_views(self.pack, fake_rows, size_px=config.work_px, generator=generator, margins=config.margins)[0])
        if simulated:
            base = self._precompressed(real[labelled:], generator)
            made = self.simulator(Reals(base, points[labelled:]), generator)
            fakes.append(made.images)
            real = torch.cat([real[:labelled], made.reals])
        masks = torch.zeros(pairs, 1, config.work_px, config.work_px)
        real, fake, _ = augment_pairs(real, torch.cat(fakes), masks, size_px=config.size_px, config=self.augment, generator=generator)
        return real, fake

    def batch(self, pairs: int, generator: Generator) -> Batch:
        """Normalised batch with fakes first."""
        real, fake = self.draw(pairs, generator)
        return Batch(2 * torch.cat([fake, real]) - 1, torch.cat([torch.ones(pairs), torch.zeros(pairs)]), paired=True)

    def _matched(self, real_rows: Tensor, fake_rows: Tensor, generator: Generator) -> Tensor:
        """Some of `real_rows` (B,) replaced by reals of the source of the fake beside them."""
        rows = real_rows.clone()
        chosen = chance(len(fake_rows), self.config.matched_share, generator)
        for i in chosen.nonzero().flatten().tolist():
            weights = self._reals_of[self.pack.rows[int(fake_rows[i])].source]
            if float(weights.sum()) > 0:
                rows[i] = torch.multinomial(weights.to(generator.device), 1, generator=generator)[0]
        return rows

    def _precompressed(self, images: Tensor, generator: Generator) -> Tensor:
        early = chance(len(images), self.config.precompress, generator)
        if int(early.sum()) % 2:
            early[int(early.nonzero()[0])] = False  # the codec works on two equal halves
        return only(images, early, lambda x: random_codec(x, generator=generator, severity=0.7))


def _reals_of(pack: FacePack, source: str) -> Tensor:
    return _weights(pack, lambda row: row.label == 0 and row.source == source, by=lambda row: row.source)


def _weights(pack: FacePack, keep: Callable[[FaceRow], bool], *, by: Callable[[FaceRow], str]) -> Tensor:
    """(N,) sampling weights that sum to 1 or 0: each group counts by the root of its size."""
    sizes: dict[str, int] = {}
    for row in pack.rows:
        if keep(row):
            sizes[by(row)] = sizes.get(by(row), 0) + 1
    weights = torch.tensor([sizes[by(row)] ** -0.5 if keep(row) else 0.0 for row in pack.rows])
    return weights / weights.sum().clamp_min(1e-9)
