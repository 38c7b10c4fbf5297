"""Settings and data of the supervised studies: balanced batches and whole evaluation splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from detect_core.nets.autogan import Upsampler

from .augment import AugmentConfig, augment_pairs, degrade_as_ffpp
from .device import Placed
from .errors import ConfigError, DataError
from .face_pack import PACK_MARGIN, FacePack, FaceRow
from .geometry import chance, random_views, view
from .loop import Batch
from .measure import Origin
from .recipe import pack_hash
from .run_key import ADDED_LATER
from .schedule import Optimiser, Rates
from .simulators.blends import reconstruct

SPLITS: Final = ("train", "valid", "test")
_PART: Final = 64


@dataclass(frozen=True, slots=True)
class ClassifySettings:
    """Of one supervised run."""

    net: str = "cnn5"
    net_options: str = "{}"
    """JSON of the net's keyword arguments."""
    size_px: int = 64
    margin: float = 1.3
    value_range: Literal["signed", "unit"] = "signed"
    """What the net sees: -1..1 or 0..1."""
    fakes: Literal["dataset", "reconstruction"] = "dataset"
    """The data's own fakes, or reconstructions of the reals by an autoencoder."""
    through_autogan: bool = False
    """Pass both classes through an autoencoder first (the AutoGAN study's claim)."""
    upsampler: Upsampler = "nearest"
    num_blocks: int = 1
    autogan_steps: int = 900
    autogan_ngf: int = 16
    sources: tuple[str, ...] = ()
    """Sources to take; by default every one that has both classes in training, so that a source cannot give the label away."""
    steps: int = 1000
    batch: int = 32
    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    augment: float = 0.5
    """0 for none (as most studies), 1 for full strength."""
    patience: int = 0
    """Validations without a lower log-loss after which the run ends with its best weights; 0 runs to the end."""
    svm: bool = False
    """Also fit PCA and a polynomial SVM on the embeddings, and ship that instead of the sigmoid head."""
    init_weights: str = ""
    """File with weights to start from (ImageNet weights that the user has); scratch when empty."""
    trained: Literal["all", "head"] = "all"
    """`head` freezes everything in front of the last layers."""
    warmup_head_steps: int = 0
    """Steps with everything but the head frozen before all of it is trained."""
    seed: int = 0
    bf16: bool = True
    rates: Rates = field(default="cosine", metadata=ADDED_LATER)
    degrade: Literal["", "ffpp"] = field(default="", metadata=ADDED_LATER)
    """`ffpp`: mirror, Gaussian blur and JPEG of usual FaceForensics++ training in place of our augmentation."""

    def __post_init__(self) -> None:
        if not 1.0 <= self.margin <= PACK_MARGIN:
            raise ConfigError(f"a margin of {self.margin:g} was asked for, faces are cut to {PACK_MARGIN:g}; give 1 to {PACK_MARGIN:g}")


class StudyData:
    """Balanced batches and evaluation images of one run.

    Raises:
        DataError: a class is missing in a split.
    """

    def __init__(self, pack: FacePack, front: nn.Module | None, *, settings: ClassifySettings) -> None:
        self._s = settings
        self._front = Placed(front) if front is not None else None
        self.sha256 = pack_hash(pack)
        if settings.fakes == "dataset":
            both = sources_with_both(pack)
            sources = settings.sources or both
            if (lone := sorted(set(sources) - set(both))) and set(sources) & set(both):
                raise ConfigError(
                    f"tried to learn from {', '.join(lone)}, which have no real and fake faces to train on: beside sources that have both they "
                    f"would never be drawn; with both there are {', '.join(both) or 'none'} (--set sources=...)"
                )
            pack = pack.take([i for i, row in enumerate(pack.rows) if row.source in sources])
        self._real = {split: pack.where(split=split, label=0) for split in SPLITS}
        self._fake = {split: pack.where(split=split, label=1) for split in SPLITS}
        wanted = [*self._real.values(), *(self._fake.values() if settings.fakes == "dataset" else ())]
        if not all(len(part) for part in wanted):
            counts = {
                f"{split} {kind}": len(part[split]) for kind, part in (("real", self._real), ("fake", self._fake)) for split in SPLITS
            }
            raise DataError(f"a split lacks a class: {counts}; give sources with both classes in every split (--set sources=...)")
        self._pick_real, self._pick_fake = _balanced(self._real["train"].rows, self._fake["train"].rows)

    @property
    def train_reals(self) -> FacePack:
        """What autoencoders may learn from."""
        return self._real["train"]

    @property
    def families(self) -> list[str]:
        """What the training fakes are, for the card."""
        if self._s.fakes == "reconstruction":
            return [f"AutoGAN reconstruction ({self._s.upsampler})"]
        return sorted({row.generator or f"{row.source} (generator not named)" for row in self._fake["train"].rows})

    def batch(self, generator: Generator) -> Batch:
        """Half fakes, half reals, fakes first; our augmentation is the same for the i-th of both halves, `degrade` draws each alone."""
        s = self._s
        half = max(1, s.batch // 2)
        work = s.size_px if s.degrade else max(s.size_px, s.size_px * 9 // 8 // 8 * 8)
        real = self._views(self._real["train"], self._pick_real, half, work, generator)
        if s.fakes == "dataset":
            fake = self._views(self._fake["train"], self._pick_fake, half, work, generator)
        else:
            again = self._views(self._real["train"], self._pick_real, half, work, generator) if s.through_autogan else real
            fake = self._reconstructed(again)
        labels = torch.cat([torch.ones(half), torch.zeros(half)])
        if s.degrade == "ffpp":
            return Batch(self._seen(degrade_as_ffpp(torch.cat([fake, real]), generator)), labels)
        plain = AugmentConfig()
        config = AugmentConfig(**{k: v * s.augment for k, v in asdict(plain).items()}) if s.augment < 1 else plain
        real, fake, _ = augment_pairs(real, fake, real[:, :1], size_px=s.size_px, config=config, generator=generator)
        return Batch(self._seen(torch.cat([fake, real])), labels)

    def listed(self, split: str, *, most: int | None = None) -> tuple[NDArray[np.int64], tuple[Origin, ...]]:
        """Labels and origins of a split in the order of `images`, fakes first."""
        real, fake = self._chosen(split, most)
        made = self._s.fakes == "reconstruction"
        origins = [Origin(r.source, "autogan_reconstruction" if made else r.generator or "unnamed", r.group, r.file) for r in fake.rows]
        origins += [Origin(r.source, "", r.group, r.file) for r in real.rows]
        return np.array([1] * len(fake) + [0] * len(real)), tuple(origins)

    def images(self, split: str, *, most: int | None = None) -> Iterator[Tensor]:
        """A split as the net sees it, in parts: a large split at full size would not fit in memory as floats.

        Args:
            split: its name.
            most: at most about this many, both classes thinned alike.
        """
        real, fake = self._chosen(split, most)
        made = self._s.fakes == "reconstruction"
        for pack, rebuild in ((fake, made), (real, False)):
            for i in range(0, len(pack), _PART):
                chosen = torch.arange(i, min(i + _PART, len(pack)))
                part, _ = view(pack, chosen, size_px=self._s.size_px, margin=self._s.margin)
                yield self._seen(self._reconstructed(part) if rebuild else part)

    def _chosen(self, split: str, most: int | None) -> tuple[FacePack, FacePack]:
        real = self._real[split]
        fake = real if self._s.fakes == "reconstruction" else self._fake[split]
        step = 1 if most is None else -(-(len(real) + len(fake)) // most)
        return (real, fake) if step == 1 else (real.take(range(0, len(real), step)), fake.take(range(0, len(fake), step)))

    def _views(self, pack: FacePack, weights: Tensor, count: int, side: int, generator: Generator) -> Tensor:
        indices = torch.multinomial(weights.to(generator.device), count, replacement=True, generator=generator)
        margin = self._s.margin
        if self._s.degrade:
            flip = chance(count, 0.5, generator)
            return view(pack, indices, size_px=side, margin=margin, flip=flip)[0]
        return random_views(pack, indices, size_px=side, generator=generator, margins=(margin * 0.95, min(1.6, margin * 1.1)))[0]

    def _reconstructed(self, images: Tensor) -> Tensor:
        if self._front is None:
            raise DataError("fakes=reconstruction needs an autoencoder")
        side = images.shape[-1] // 4 * 4
        return torch.cat([reconstruct(self._front.on(part.device), part, side) for part in torch.split(images, 128)])

    def _seen(self, images: Tensor) -> Tensor:
        if self._s.through_autogan:
            images = self._reconstructed(images)
        return 2 * images - 1 if self._s.value_range == "signed" else images


def sources_with_both(pack: FacePack) -> tuple[str, ...]:
    """Sources that have real and fake training faces."""
    kinds = {(row.source, row.label) for row in pack.rows if row.split == "train"}
    return tuple(sorted(source for source, label in kinds if label and (source, 0) in kinds))


def _balanced(reals: tuple[FaceRow, ...], fakes: tuple[FaceRow, ...]) -> tuple[Tensor, Tensor]:
    """Sampling weights of reals and fakes: both classes draw each source equally often, large sources by the root of their size."""
    num_real, num_fake = Counter(r.source for r in reals), Counter(r.source for r in fakes)
    shared = {source: min(num_real[source], num_fake[source]) ** 0.5 for source in num_real if source in num_fake}

    def weights(rows: tuple[FaceRow, ...], counts: Counter[str]) -> Tensor:
        share = shared or {source: count**0.5 for source, count in counts.items()}
        return torch.tensor([share.get(r.source, 0.0) / counts[r.source] for r in rows])

    return weights(reals, num_real), weights(fakes, num_fake)
