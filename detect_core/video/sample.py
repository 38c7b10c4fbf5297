"""Choose the moments of a video that are looked at. Pure: times in, times out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import median
from typing import Final

from ..errors import OptionError

POLICY: Final = "stratified/4"
"""Name of the rule, recorded in every verdict."""
_LONG_STRATUM_SECONDS: Final = 1.0
_TOLERANCE: Final = 0.4
_LONG_GAP_SECONDS: Final = 1.0
_LONG_GAP: Final = 10.0
"""In usual gaps of the video."""
_SHORT: Final = 1 / 3


def tolerance_seconds(num_frames: int, *, span_seconds: float) -> float:
    """How far a look may move from the middle of its stratum to a frame that is cheaper to decode.

    The middle of a stratum is as good as any other moment of it. Neighbouring looks cannot meet.
    """
    return _TOLERANCE * span_seconds / num_frames


def without_gaps(times: Sequence[float], *, second: float = 1.0) -> list[float]:
    """The times with every gap between two pictures cut to what is usual in the video, or a second.

    A still that is shown for minutes deserves one look, not all that its stretch of time would get: those would crowd
    together beside it and leave the rest unseen.

    Args:
        times: in ascending order, in any unit.
        second: one, in that unit.
    """
    gaps = [after - before for before, after in pairwise(times)]
    longest = max(_LONG_GAP_SECONDS * second, _LONG_GAP * median(gaps)) if gaps else 0.0
    return list(accumulate((min(gap, longest) for gap in gaps), initial=times[0])) if times else []


def long_shown(times: Sequence[float], *, stratum: float) -> list[int]:
    """Indices of the pictures that are not gone before an eye has seen them.

    Those are left out that are shown for less than a third of what half of the time around them is filled with, where
    "around" is one of the equal stretches of time that looks stand for. What is left out fills at most half of any.

    Args:
        times: distinct, in ascending order, in any unit.
        stratum: length of those stretches, in that unit.
    """
    shown = [after - before for before, after in pairwise(times)]
    if not shown or stratum <= 0 or min(shown) >= _SHORT * max(shown):
        return list(range(len(times)))
    shown.append(median(shown))
    kept: list[int] = []
    start = 0
    while start < len(times):
        block = (times[start] - times[0]) // stratum
        end = start
        while end < len(times) and (times[end] - times[0]) // stratum == block:
            end += 1
        begins, ends = times[0] + block * stratum, times[0] + (block + 1) * stratum
        around = range(max(start - 1, 0), end)
        filled = {n: min(times[n] + shown[n], ends) - max(times[n], begins) for n in around}
        usual = min(_half_filled_with({n: part for n, part in filled.items() if part > 0}, shown), stratum)
        kept += [n for n in range(start, end) if shown[n] >= _SHORT * usual]
        start = end
    return kept or list(range(len(times)))


def _half_filled_with(filled: Mapping[int, float], shown: Sequence[float]) -> float:
    """The median of how long pictures are shown, each counted by the time that it fills."""
    left = sum(filled.values()) / 2
    for number in sorted(filled, key=lambda n: shown[n]):
        left -= filled[number]
        if left <= 0:
            return shown[number]
    return 0.0


def is_sparse(num_frames: int, *, span_seconds: float) -> bool:
    """Whether the looks lie so far apart that the way from a key frame to each is most of the cost.

    In denser ones nearly every picture that others refer to is decoded anyway; there only what nothing refers to costs extra.
    """
    return span_seconds / num_frames > _LONG_STRATUM_SECONDS


def sample_indices(num_frames: int, *, times_seconds: Sequence[float]) -> list[int]:
    """Pick `num_frames` indices into sorted presentation times, evenly spread over *time*, the middle of each stratum.

    Equal stretches of time get one frame each, so that a variable frame rate or a burst of frames does not draw the
    looks to itself. Deterministic; no index twice; fewer when the video holds fewer frames.

    Args:
        num_frames: how many looks are wanted.
        times_seconds: presentation times in ascending order.

    Raises:
        OptionError: `num_frames` is not positive.
    """
    if num_frames <= 0:
        raise OptionError(f"tried to sample {num_frames} frames; expected at least 1")
    total = len(times_seconds)
    if total <= num_frames:
        return list(range(total))
    first, last = times_seconds[0], times_seconds[-1]
    stratum = (last - first) / num_frames
    chosen: list[int] = []
    cursor = 0
    for i in range(num_frames):
        middle = first + (i + 0.5) * stratum
        # strata still to come need an index each, so the cursor may not run past them
        limit = total - (num_frames - i)
        while cursor < limit and abs(times_seconds[cursor + 1] - middle) <= abs(times_seconds[cursor] - middle):
            cursor += 1
        chosen.append(cursor)
        cursor += 1
    return chosen


def first_look_of(looks: Sequence[int], count: int | None) -> list[int]:
    """About `count` of the looks, evenly spread; all of them when `count` is None."""
    step = max(1, -(-len(looks) // count)) if count else 1
    return list(looks[step // 2 :: step])
