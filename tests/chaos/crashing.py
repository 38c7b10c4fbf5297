"""Worker and janitor processes that kill themselves at a named point: `python -m tests.chaos.crashing worker|janitor`.

`CHAOS_CRASH=after-claim:3` means: SIGKILL right after the third claim. The points are put in by subclassing and injecting
the product's interfaces; the product itself knows nothing of them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from kombu.message import Message

from tests.chaos.screener import HashScreener
from workers.embedded import resolve_broker_url
from workers.ledger import Claim, ClaimRefused, Ledger, OutboxEvent, VerdictRecord
from workers.lifecycle import run_worker
from workers.logs import configure_logs
from workers.services import run_janitor
from workers.settings import load_settings

WORKER_POINTS = ("claim", "decode", "score", "commit", "ack")


class CrashPoint:
    """Dies at the n-th time a point is passed."""

    def __init__(self, spec: str) -> None:
        self._point, _, times = spec.partition(":")
        self._left = int(times or "1")
        self._lock = threading.Lock()

    def at(self, point: str) -> None:
        if point == self._point:
            with self._lock:
                self._left -= 1
                if self._left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)


class CrashingLedger(Ledger):
    """The real ledger with points before and after its writes."""

    crash: CrashPoint

    def claim(self, ledger_id: str, *, owner: str, lease_seconds: float) -> Claim | ClaimRefused:
        self.crash.at("before-claim")
        outcome = super().claim(ledger_id, owner=owner, lease_seconds=lease_seconds)
        if isinstance(outcome, Claim):
            self.crash.at("after-claim")
        return outcome

    def commit_verdict(self, claim: Claim, *, verdict: VerdictRecord, urls: list[str]) -> bool:
        self.crash.at("before-commit")
        is_new = super().commit_verdict(claim, verdict=verdict, urls=urls)
        self.crash.at("after-commit")
        return is_new

    def due_events(self, **which: Any) -> list[OutboxEvent]:
        events = super().due_events(**which)
        if events:
            self.crash.at("before-outbox")
        return events

    def delivered(self, taken: Sequence[OutboxEvent]) -> None:
        if taken:
            self.crash.at("after-outbox")  # the receivers have them, the ledger does not know yet
        super().delivered(taken)


def _crash_around_ack(crash: CrashPoint) -> None:
    """Celery acknowledges in its event loop, through the message."""
    acknowledge = Message.ack

    def crashing(self: Any, multiple: bool = False) -> None:
        crash.at("before-ack")
        acknowledge(self, multiple=multiple)
        crash.at("after-ack")

    Message.ack = crashing


def main() -> int:
    settings = load_settings()
    configure_logs(level=settings.log_level, component=sys.argv[1])
    crash = CrashPoint(os.environ.get("CHAOS_CRASH", ""))
    ledger = CrashingLedger.open(settings.resolved_ledger_url)
    ledger.crash = crash
    if sys.argv[1] == "janitor":
        run_janitor(settings, broker_url=resolve_broker_url(settings), ledger=ledger)
        return 0
    _crash_around_ack(crash)
    return run_worker(
        settings,
        broker_url=resolve_broker_url(settings),
        screener_factory=lambda _settings, _metrics: HashScreener(work_seconds=0.01, child_every=0, at=crash.at),
        ledger=ledger,
    )


if __name__ == "__main__":
    sys.exit(main())
