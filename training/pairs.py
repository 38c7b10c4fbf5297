"""Batches of pairs for expert A: each fake beside the real that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .augment import AugmentConfig, augment_pairs
from .codec import random_codec
from .errors import ConfigError, DataError
from .face_pack import FacePack
from .filters import only
from .geometry import chance, random_views
from .loop import Batch
from .simulators.base import Fakes, Reals, Simulator

MIN_PER_FAMILY = 2
"""A cross blend needs a donor, so no family gets a single face."""


@dataclass(frozen=True, slots=True)
class PairConfig:
    """How pairs are drawn."""

    size_px: int = 144
    work_px: int = 160
    """Fakes are made a little larger than the net wants; the final crop hides the grid of the simulated codec."""
    margins: tuple[float, float] = (1.15, 1.6)
    precompress: float = 0.35
    """Share of reals that were compressed before the fake is made."""
    video_share: float = 0.45
    """Share of reals that come from video frames, if there are any."""


class PairSource:
    """Draws reals, sends each to one simulator, augments both halves alike."""

    def __init__(
        self, pack: FacePack, simulators: Sequence[tuple[Simulator, float]], *, config: PairConfig, augment: AugmentConfig
    ) -> None:
        if not simulators or min(weight for _, weight in simulators) <= 0:
            raise ConfigError("a pair source needs at least one simulator, each with a positive share")
        if any(row.label for row in pack.rows):
            raise ConfigError("a pair source makes its own fakes: give it real faces only")
        self.pack = pack
        self.simulators = tuple(simulator for simulator, _ in simulators)
        self.shares = torch.tensor([weight for _, weight in simulators])
        self.config = config
        self.augment = augment
        self.weights = _weights(pack, config.video_share)

    def draw(self, pairs: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Reals, fakes (B, 3, S, S) in 0..1, masks (B, 1, S, S) and the family of each pair."""
        config = self.config
        if pairs > int((self.weights > 0).sum()):
            raise DataError(
                f"a batch of {pairs} pairs needs as many real faces, split {self.pack.rows[0].split!r} has {int((self.weights > 0).sum())}; "
                "lower the batch (--set pairs=...) or give more faces"
            )
        indices = torch.multinomial(self.weights.to(generator.device), pairs, replacement=False, generator=generator)
        images, landmarks = random_views(self.pack, indices, size_px=config.work_px, generator=generator, margins=config.margins)
        early = chance(pairs, config.precompress, generator)
        if int(early.sum()) % 2:
            early[int(early.nonzero()[0])] = False  # the codec works on two equal halves
        images = only(images, early, lambda x: random_codec(x, generator=generator, severity=0.7))
        reals = Reals(images, landmarks)
        kinds = self._families(pairs, generator)
        outs: list[Fakes] = []
        order: list[Tensor] = []
        families: list[str] = []
        for kind, simulator in enumerate(self.simulators):
            members = (kinds == kind).nonzero().flatten()
            if len(members):
                outs.append(simulator(reals.take(members), generator))
                order.append(members)
                families += [simulator.family] * len(members)
        back = torch.cat(order).argsort()
        stacked = [torch.cat(parts)[back] for parts in ([o.reals for o in outs], [o.images for o in outs], [o.masks for o in outs])]
        real, fake, mask = augment_pairs(*stacked, size_px=config.size_px, config=self.augment, generator=generator)
        return real, fake, mask, [families[i] for i in back.tolist()]

    def batch(self, pairs: int, generator: Generator) -> Batch:
        """Normalised batch with fakes first; reals have empty masks."""
        real, fake, mask, _ = self.draw(pairs, generator)
        labels = torch.cat([torch.ones(pairs), torch.zeros(pairs)])
        return Batch(2 * torch.cat([fake, real]) - 1, labels, torch.cat([mask, torch.zeros_like(mask)]), paired=True)

    def _families(self, pairs: int, generator: Generator) -> Tensor:
        kinds = torch.multinomial(self.shares.to(generator.device), pairs, replacement=True, generator=generator)
        counts = torch.bincount(kinds, minlength=len(self.shares))
        for kind in ((counts > 0) & (counts < MIN_PER_FAMILY)).nonzero().flatten().tolist():
            kinds[kinds == kind] = int(self.shares.argmax())
        return kinds


def _weights(pack: FacePack, video_share: float) -> Tensor:
    """Stills and video frames at their shares; inside each kind every source group counts by the root of its size."""
    weights = torch.zeros(len(pack))
    kinds = {row.kind for row in pack.rows}
    for kind in sorted(kinds):
        rows = [i for i, row in enumerate(pack.rows) if row.kind == kind]
        sizes: dict[str, int] = {}
        for i in rows:
            sizes[pack.rows[i].source] = sizes.get(pack.rows[i].source, 0) + 1
        values = torch.tensor([sizes[pack.rows[i].source] ** -0.5 for i in rows])
        share = 1.0 if len(kinds) == 1 else (video_share if kind == "video" else 1 - video_share)
        weights[rows] = values / values.sum() * share
    return weights
