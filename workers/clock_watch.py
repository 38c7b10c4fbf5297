"""Notices that a clock was set: leases and leadership count on the database's, and a step makes all of them end at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TOLERANCE_SECONDS: Final = 5.0
"""Above what a slow answer, a slewed clock or a leap second amount to; far below half a lease."""


class ClockWatch:
    """Compares a wall clock with this process's monotonic one from look to look."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None

    def step_seconds(self, now: float) -> float:
        """How far the wall clock was set since the last look, forward or back; 0 when it only ran.

        Args:
            now: the wall clock's seconds at this moment.
        """
        offset = now - self._monotonic()
        step = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset
        return step if abs(step) > TOLERANCE_SECONDS else 0.0
