"""Looks at the processes of a soak every few seconds: memory, descriptors, children, heartbeats, scrapes."""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.fleet import Member, children_of, open_files

_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True)
class Look:
    """One process at one moment."""

    at: float
    rss_bytes: int
    num_files: int
    num_children: int


@dataclass
class Watched:
    """All looks at one process; a restart begins a new one."""

    name: str
    pid: int
    looks: list[Look] = field(default_factory=list)


class Watch:
    """Samples in a thread of its own until `stop`."""

    def __init__(
        self, members: Callable[[], Sequence[Member]], *, every_seconds: float, metrics_ports: Callable[[], dict[str, int]]
    ) -> None:
        self._members, self._every, self._ports = members, every_seconds, metrics_ports
        self.watched: dict[int, Watched] = {}
        self.heartbeat_ages: list[float] = []
        self.scrape_seconds: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def of(self, prefix: str, *, since: float) -> list[Watched]:
        """What was seen of processes since a moment."""
        found = []
        for each in self.watched.values():
            if each.name.startswith(prefix):
                found.append(Watched(each.name, each.pid, [look for look in each.looks if look.at >= since]))
        return found

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            for member in self._members():
                if member.is_alive:
                    self._look(member)
            for name, port in list(self._ports().items()):  # workers come and go meanwhile
                self._scrape(name, port)

    def _look(self, member: Member) -> None:
        pid = member.pid
        try:
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
            look = Look(time.monotonic(), resident, open_files(pid), len(children_of(pid)))
        except (OSError, IndexError):
            return  # it ended in this moment
        self.watched.setdefault(pid, Watched(member.name, pid)).looks.append(look)

    def _scrape(self, name: str, port: int) -> None:
        started = time.monotonic()
        try:
            page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
        except httpx.HTTPError:
            return  # not up yet, or on its way down
        self.scrape_seconds.append(time.monotonic() - started)
        for family in text_string_to_metric_families(page.text):
            if family.name == "veriframe_worker_heartbeat_timestamp_seconds" and name.startswith("worker"):
                ticked = family.samples[0].value
                if ticked:
                    self.heartbeat_ages.append(time.time() - ticked)


def slope_per_hour(looks: Sequence[Look]) -> float:
    """Theil-Sen slope of resident memory in bytes an hour: the median of the slopes of pairs that lie half of the span apart."""
    half = len(looks) // 2
    slopes = [
        (later.rss_bytes - sooner.rss_bytes) / (later.at - sooner.at)
        for sooner, later in zip(looks[: len(looks) - half], looks[half:], strict=False)
        if later.at > sooner.at
    ]
    return statistics.median(slopes) * 3600 if slopes else 0.0


def growth(values: Sequence[float]) -> float:
    """Median of the last quarter less that of the first quarter."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) - statistics.median(values[:quarter]) if values else 0.0
