"""Decoding in several threads is exact for a sound file; a pass that meets anything odd is thrown away.

What a decoder makes of damage depends on which of its threads came first, and on what its memory held before. So the
video is decoded again from its start, in a fresh child and in one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import av

from ..errors import DecodeDoubtError

if TYPE_CHECKING:
    from .stream import DecodeTally

Frames = Iterator[tuple[float, av.VideoFrame]]
"""(seconds since the first frame, picture), in display order."""


def without_doubt(frames: Frames, *, tally: DecodeTally) -> Frames:
    """The same frames; the last planned one is given once the pass is over, so that nothing odd can follow it.

    Raises:
        DecodeDoubtError: something went wrong in the pass, or a planned frame did not come in its turn.
    """
    given = 0
    try:
        for found in frames:
            _refuse(tally)
            given += 1
            if given < tally.num_planned:
                yield found
    except DecodeDoubtError:
        raise
    except Exception as err:  # if it is the file's fault, one thread, which needs less memory, meets it again and names it
        raise DecodeDoubtError(f"decoding in threads ended with {type(err).__name__} ({err}); decode in one thread") from err
    _refuse(tally)
    if given == 0 or given != tally.num_planned:
        raise DecodeDoubtError(f"decoding in threads gave {given} of {tally.num_planned} pictures; decode in one thread")
    yield found


def _refuse(tally: DecodeTally) -> None:
    if tally.warnings or tally.num_missed:
        met = ", ".join(sorted(tally.warnings)) or f"{tally.num_missed} missing pictures"
        raise DecodeDoubtError(f"decoding in threads met {met}; decode in one thread")
