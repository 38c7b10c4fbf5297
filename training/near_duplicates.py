"""Pictures that are nearly the same: a perceptual hash of 64 bits, and all pairs that differ in at most a few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import LeakError
from .face_pack import FacePack, FaceRow

MAX_BITS: Final = 4
"""Two hashes this close belong to the same picture, re-encoded, resized or lightly edited."""
_CHUNKS: Final = (13, 13, 13, 13, 12)
"""Hashes that differ in at most 4 bits agree in at least one of 5 chunks."""


def perceptual_hash(image_hwc: NDArray[np.uint8]) -> int:
    """64 bits: signs of the low frequencies of the grey 32x32 picture, about their median. A flat picture hashes to 0."""
    grey = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:9, :9].ravel()[1:65]
    if float(np.abs(low).max()) < 1e-3:
        return 0
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def near_pairs(hashes: Sequence[int], *, max_bits: int = MAX_BITS) -> list[tuple[int, int]]:
    """Index pairs (i < j) of hashes that differ in at most `max_bits` (at most 4) bits."""
    values = np.array(hashes, np.uint64)
    pairs: set[tuple[int, int]] = set()
    shift = 64
    for width in _CHUNKS:
        shift -= width
        buckets: dict[int, list[int]] = defaultdict(list)
        for i, chunk in enumerate(((values >> np.uint64(shift)) & np.uint64((1 << width) - 1)).tolist()):
            buckets[chunk].append(i)
        for members in buckets.values():
            rows = np.array(members)
            for position, i in enumerate(members[:-1]):
                others = rows[position + 1 :]
                near = np.bitwise_count(values[others] ^ values[i]) <= max_bits
                pairs.update((i, int(j)) for j in others[near])
    return sorted(pairs)


def check_near_duplicates(pack: FacePack, *, max_bits: int = MAX_BITS) -> None:
    """Refuse nearly equal crops in two splits, unless they are of one group (frames of one video are alike).

    Raises:
        LeakError: names the first pair.
    """
    hashes = [perceptual_hash(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in pack.images]
    leaks = [(pack.rows[i], pack.rows[j]) for i, j in near_pairs(hashes, max_bits=max_bits) if _leaks(pack.rows[i], pack.rows[j])]
    if leaks:
        one, other = leaks[0]
        raise LeakError(
            f"{len(leaks)} nearly equal faces stand in two splits, first {one.file} ({one.split}) and {other.file} ({other.split}); "
            "build the manifest again without given splits, or take one of each pair out"
        )


def _leaks(one: FaceRow, other: FaceRow) -> bool:
    return one.split != other.split
