"""The one interface of everything that makes training fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Generator, Tensor

from ..errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Reals:
    """A batch of untouched faces."""

    images: Tensor
    """float32 (B, 3, S, S) RGB in 0..1."""
    landmarks: Tensor
    """(B, 5, 2) in units of the side."""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or self.landmarks.shape != (len(self.images), 5, 2):
            raise DataError(f"reals need images (B, 3, S, S) and landmarks (B, 5, 2), got {self.images.shape} and {self.landmarks.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> Reals:
        """The faces at `indices`."""
        return Reals(self.images[indices], self.landmarks[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Fakes:
    """A batch of fakes, each with the real that it must be told from."""

    images: Tensor
    """float32 (B, 3, S, S) in 0..1."""
    masks: Tensor
    """(B, 1, S, S) in 0..1: how much of each pixel is not the real one."""
    reals: Tensor
    """(B, 3, S, S): the counterpart, which differs from the fake only where the mask is above zero."""
    recipe: dict[str, Any]
    """What was done: family and parameters."""

    def __post_init__(self) -> None:
        batch, _, height, width = self.images.shape
        if self.reals.shape != self.images.shape or self.masks.shape != (batch, 1, height, width):
            raise DataError(
                f"a fake batch needs equal images and reals and masks (B, 1, S, S), got {self.images.shape} and {self.masks.shape}"
            )


class Simulator(Protocol):
    """Makes fakes of one family."""

    family: str

    def __call__(self, reals: Reals, generator: Generator) -> Fakes:
        """Fakes of all the given reals."""
        ...
