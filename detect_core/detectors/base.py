"""What every detector can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .runtime import Precision


class Detector(Protocol):
    """Scores crops that were cut as its bundle's crop specification says. Owned by one thread."""

    bundle: Bundle

    @property
    def precision(self) -> Precision:
        """The precision it scores in."""
        ...

    def logits(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Score crops.

        Args:
            crops: (S, S, 3) RGB uint8 pictures, S = `bundle.crop.size_px`.

        Returns:
            (N,) temperature-scaled logits; > 0 leans fake.

        Raises:
            DetectorError: the net gave a value that is not finite.
        """
        ...
