"""Reads the ledger's append-only event log and says which promises were broken (a small Jepsen-style checker)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

TERMINAL = ("verdict", "same_verdict", "failed", "poisoned")
WRITES = ("verdict", "same_verdict", "failed", "retried", "released", "expired", "poisoned")


def broken_promises(events: Iterable[dict[str, Any]], *, accepted: Iterable[str] | None = None) -> list[str]:
    """Check a history.

    Promises: every job is submitted first and once; a claim only happens while nobody holds the job and with a higher fence;
    every write carries the holder's owner and fence; exactly one terminal event per job, the last of its lease; nothing but
    deliveries follows it.

    Args:
        events: rows of the event log in order.
        accepted: ledger IDs that must have ended.

    Returns:
        One sentence per broken promise; empty when all hold.
    """
    checker = _Checker()
    for event in events:
        checker.read(event)
    expected = checker.submitted if accepted is None else set(accepted)
    return checker.broken + [f"{job}: accepted but never ended" for job in sorted(expected - set(checker.ended))]


class _Checker:
    """The state of every job while its history is read."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.submitted: set[str] = set()
        self.ended: dict[str, str] = {}
        self._holder: dict[str, tuple[str, int] | None] = {}
        self._fence: dict[str, int] = defaultdict(int)

    def read(self, event: dict[str, Any]) -> None:
        job, kind = event["ledger_id"], event["kind"]
        here = f"{kind} of {job} (seq {event['seq']})"
        if kind == "submitted":
            self._promise(job not in self.submitted, f"{here}: submitted twice")
            self.submitted.add(job)
            return
        self._promise(job in self.submitted, f"{here}: never submitted")
        if kind in ("delivered", "undelivered"):
            self._promise(job in self.ended, f"{here}: published before the job ended")
            return
        self._promise(job not in self.ended, f"{here}: after the job had ended with {self.ended.get(job)}")
        self._promise(kind == "claimed" or kind in WRITES, f"{here}: unknown kind")
        if kind == "claimed":
            self._claim(event, here)
        else:
            self._write(event, here)

    def _claim(self, event: dict[str, Any], here: str) -> None:
        job = event["ledger_id"]
        self._promise(self._holder.get(job) is None, f"{here}: claimed while {self._holder.get(job)} held it")
        self._promise(event["fence"] > self._fence[job], f"{here}: fence {event['fence']} is not above {self._fence[job]}")
        self._fence[job] = event["fence"]
        self._holder[job] = (event["owner"], event["fence"])

    def _write(self, event: dict[str, Any], here: str) -> None:
        job = event["ledger_id"]
        writer = (event["owner"], event["fence"])
        self._promise(self._holder.get(job) == writer, f"{here}: written by {writer} while {self._holder.get(job)} held it")
        self._holder[job] = None
        if event["kind"] in TERMINAL:
            self.ended[job] = event["kind"]

    def _promise(self, kept: bool, sentence: str) -> None:
        if not kept:
            self.broken.append(sentence)


def terminal_counts(events: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Terminal events per job."""
    counts: dict[str, int] = defaultdict(int)
    for event in events:
        if event["kind"] in TERMINAL:
            counts[event["ledger_id"]] += 1
    return counts
