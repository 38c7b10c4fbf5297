"""A pool of 1 to 10,000 workers on one ledger, one broker and one leading janitor, from measured prices: where does it saturate?

Two answers per size: the share of each part that the load uses (sums, exact), and the waiting that follows (a simulation of the
queues in a row, first come, first served, Poisson arrivals, service times drawn from the measured mix).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.scaling.measure import Prices


@dataclass(frozen=True)
class Site:
    """What the shared parts run on. Assumptions, not measurements."""

    ledger_cores: int = 16
    ledger_connections: int = 1000
    """What one Postgres takes without a pooler in front of it."""
    slots: int = 4
    """Videos in flight per worker; its connection pool is two larger."""
    heartbeat_seconds: float = 15.0
    receiver_seconds: float = 0.02
    """Of the platform that takes webhooks."""
    webhook_parallel: int = 16
    webhook_page: int = 32
    """Events that the janitor takes and marks in one transaction each."""
    dispatch_page: int = 200
    dispatch_pause_seconds: float = 0.05
    """Between two pages of a busy janitor."""
    scrape_seconds: float = 15.0
    prometheus_samples_per_second: float = 500_000.0
    """What one Prometheus is commonly run at."""
    load: float = 0.7


@dataclass(frozen=True)
class Outcome:
    """One size of the pool."""

    num_workers: int
    videos_per_second: float
    used: dict[str, float]
    """Share of each part's capacity; 1 and more: it is the brake."""
    reached_videos_per_second: float
    """What passes through the narrowest part that a video goes through."""
    p95_wait_seconds: float | None
    """Waiting from intake to the start of the work; None when a part is saturated and waiting grows without end."""


def used_shares(prices: Prices, site: Site, *, num_workers: int, videos_per_second: float) -> dict[str, float]:
    """Demand over capacity of every shared part."""
    renewals = num_workers / site.heartbeat_seconds
    return {
        "ledger cpu": (videos_per_second * prices.ledger_per_video + renewals * prices.ledger_per_renewal) / site.ledger_cores,
        "ledger connections": num_workers * (site.slots + 2) / site.ledger_connections,
        "broker cpu": videos_per_second * prices.broker_per_video + num_workers * prices.broker_per_idle_second,
        "broker connections": num_workers * prices.broker_connections_per_worker / 10_000,
        "janitor cpu": videos_per_second * prices.janitor_per_video,
        "webhook sender": videos_per_second
        * (site.receiver_seconds / site.webhook_parallel + 2 * prices.ledger_latency_seconds / site.webhook_page),
        "dispatch pages": videos_per_second * site.dispatch_pause_seconds / site.dispatch_page,
        "one ingest": videos_per_second * prices.ingest_per_video,
        "one prometheus": num_workers * prices.series_per_worker / site.scrape_seconds / site.prometheus_samples_per_second,
    }


IN_THE_WAY = ("ledger cpu", "broker cpu", "one ingest")
"""Parts that a video passes before its work begins; the others delay its webhook or do not start at all."""


def largest_pool(prices: Prices, site: Site, part: str, *, service_seconds: float) -> int:
    """Workers up to which a part is enough; demand is proportional to the pool."""
    one = used_shares(prices, site, num_workers=1, videos_per_second=site.load / service_seconds)[part]
    return int(1 / one) if one > 0 else 10**9


def simulate(
    prices: Prices, site: Site, *, num_workers: int, services: Sequence[tuple[float, float]], videos: int, rng: random.Random
) -> Outcome:
    """Play one size.

    Args:
        prices: measured.
        site: what the shared parts run on.
        num_workers: size of the pool.
        services: (seconds of one worker, share) of each kind of upload.
        videos: how many to play, after a tenth of warm-up.
        rng: the arrivals' randomness.
    """
    total = sum(share for _seconds, share in services)
    mean = sum(seconds * share for seconds, share in services) / total
    rate = site.load * num_workers / mean
    used = used_shares(prices, site, num_workers=num_workers, videos_per_second=rate)
    narrowest = max(used[part] for part in IN_THE_WAY)
    if narrowest >= 1:
        return Outcome(num_workers, rate, used, rate / narrowest, None)
    renewals = num_workers / site.heartbeat_seconds * prices.ledger_per_renewal / site.ledger_cores
    polling = num_workers * prices.broker_per_idle_second
    stages = [  # (servers, seconds of one video), slowed down by what the part does beside videos
        (1, prices.ingest_per_video),
        (1, prices.broker_per_video / (1 - polling)),
        (site.ledger_cores, prices.ledger_per_video / (1 - renewals)),
    ]
    arrivals: list[float] = []
    now = 0.0
    for _ in range(videos):
        now += rng.expovariate(rate)
        arrivals.append(now)
    ready = arrivals
    for servers, seconds in stages:
        ready = _pass(ready, servers=servers, seconds=[seconds] * videos)[1]
    work = rng.choices([seconds for seconds, _share in services], weights=[share for _seconds, share in services], k=videos)
    starts, _ends = _pass(ready, servers=num_workers, seconds=work)
    waits = sorted(start - came for start, came in list(zip(starts, arrivals, strict=True))[videos // 10 :])
    return Outcome(num_workers, rate, used, rate, waits[int(0.95 * len(waits))])


def _pass(ready: Sequence[float], *, servers: int, seconds: Sequence[float]) -> tuple[list[float], list[float]]:
    """(starts, ends) of customers at `servers`, first come, first served."""
    free = [0.0] * servers
    starts, ends = [], []
    for came, takes in zip(ready, seconds, strict=True):
        start = max(came, heapq.heappop(free))
        heapq.heappush(free, start + takes)
        starts.append(start)
        ends.append(start + takes)
    return starts, ends
