"""Pictures that are nearly the same: a perceptual hash of 64 bits, and all pairs that differ in at most a few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import LeakError
from .face_pack import FacePack

NearRule = Literal["warn", "refuse", "drop"]
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


def cross_split_pairs(pack: FacePack, *, max_bits: int = MAX_BITS) -> list[tuple[int, int]]:
    """Index pairs of nearly equal crops that stand in two splits. Flat crops look like each other and say nothing."""
    hashes = [perceptual_hash(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in pack.images]
    telling = [i for i, value in enumerate(hashes) if value]
    pairs = ((telling[i], telling[j]) for i, j in near_pairs([hashes[i] for i in telling], max_bits=max_bits))
    return [(i, j) for i, j in pairs if pack.rows[i].split != pack.rows[j].split]


def settle_near_duplicates(pack: FacePack, rule: NearRule, say: Callable[[str], None]) -> tuple[FacePack, str]:
    """Look for nearly equal crops in two splits and do what `rule` says.

    Args:
        pack: all faces of a run.
        rule: `warn` tells and keeps all of them, `drop` leaves out the side that is learned from, `refuse` stops.
        say: is told.

    Returns:
        The pack and, when there was something, words for the description of the material.

    Raises:
        LeakError: `refuse`, and there is a pair; names the first.
    """
    pairs = cross_split_pairs(pack)
    if not pairs:
        return pack, ""
    one, other = (pack.rows[i] for i in pairs[0])
    found = f"{len(pairs)} pairs of nearly equal faces stand in two splits, first {one.file} ({one.split}) and {other.file} ({other.split})"
    if rule == "refuse":
        raise LeakError(f"{found}; take one of each pair out, or let --near-duplicates drop leave the training side out")
    if rule == "warn":
        say(f"warning: {found}; figures on held-out faces are that much too good. --near-duplicates drop leaves the training side out")
        return pack, f"{len(pairs)} nearly equal pairs across splits"
    order = ("train", "valid", "test")
    dropped = {min(pair, key=lambda i: order.index(pack.rows[i].split)) for pair in pairs}
    say(f"left out {len(dropped)} faces: {found}")
    return pack.take([i for i in range(len(pack)) if i not in dropped]), f"{len(dropped)} left out as nearly equal to held-out ones"
