"""What this process is working on right now: shared by task threads, the heartbeat and the drain."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from .ledger import Claim
from .tracing import OpenSpan

CancelReason = Literal["drain", "lease_lost", "deadline"]


@dataclass(slots=True, eq=False)
class Running:
    """One claimed job in this process."""

    claim: Claim
    delivery_tag: str | None
    started: float = field(default_factory=time.monotonic)
    cancel: threading.Event = field(default_factory=threading.Event)
    cancel_reason: CancelReason | None = None
    stage: str = "fetch"
    span: OpenSpan = OpenSpan(None)  # noqa: RUF009 - frozen, so one for all is right
    """The trace of this try."""

    def stop(self, reason: CancelReason) -> None:
        """Ask the screening to end; the first reason counts."""
        if self.cancel_reason is None:
            self.cancel_reason = reason
        self.cancel.set()


class InFlight:
    """The claimed jobs of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}
        self._num_explaining = 0
        self.draining = threading.Event()

    def add(self, running: Running) -> None:
        """Note a claimed job."""
        with self._lock:
            self._running[running.claim.ledger_id] = running

    def remove(self, running: Running) -> None:
        """Forget a job that ended."""
        with self._lock:
            self._running.pop(running.claim.ledger_id, None)

    def snapshot(self) -> list[Running]:
        """All claimed jobs at this moment."""
        with self._lock:
            return list(self._running.values())

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Note that this thread explains verdicts: work, but no claimed job."""
        with self._lock:
            self._num_explaining += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_explaining -= 1

    @property
    def is_busy(self) -> bool:
        """Whether any thread screens or explains."""
        with self._lock:
            return bool(self._running) or self._num_explaining > 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._running)


class IsolationGate:
    """Videos under which a worker died run alone in their process: if it dies again, nobody else is blamed.

    Normal videos share the gate, a suspect holds it alone. A waiting suspect lets no new normal video in.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._shared = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def enter(self, *, alone: bool) -> Iterator[None]:
        """Wait for the gate and hold it."""
        with self._condition:
            if alone:
                self._waiting += 1
                self._condition.wait_for(lambda: not self._alone and self._shared == 0)
                self._waiting -= 1
                self._alone = True
            else:
                self._condition.wait_for(lambda: not self._alone and self._waiting == 0)
                self._shared += 1
        try:
            yield
        finally:
            with self._condition:
                if alone:
                    self._alone = False
                else:
                    self._shared -= 1
                self._condition.notify_all()
