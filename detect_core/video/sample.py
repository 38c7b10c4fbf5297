"""Choose the moments of a video that are looked at. Pure: times in, times out."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OptionError

POLICY = "stratified/1"
"""Name of the rule, recorded in every verdict."""


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
