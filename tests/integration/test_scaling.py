"""The simulation of large pools: agrees with theory where theory has an answer, and its prices can be measured."""

from __future__ import annotations

import random

import pytest

from tests.scaling.measure import Prices
from tests.scaling.simulate import IN_THE_WAY, Site, largest_pool, simulate, used_shares
from workers.capacity import p95_wait

PRICES = Prices(
    ledger_per_video=0.01,
    ledger_per_renewal=0.001,
    ledger_connection_bytes=5e6,
    ledger_latency_seconds=0.002,
    broker_per_video=0.0005,
    broker_per_idle_second=0.0001,
    broker_connections_per_worker=5,
    broker_commands_per_idle_second=10,
    janitor_per_video=0.002,
    ingest_per_video=0.001,
    series_per_worker=500,
)
FREE = Prices(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_with_free_shared_parts_the_pool_is_an_ordinary_queue():
    rng = random.Random(3)
    services = [(rng.expovariate(0.5), 1.0) for _ in range(2000)]
    mean = sum(seconds for seconds, _share in services) / 2000
    played = simulate(FREE, Site(load=0.8, receiver_seconds=0.0), num_workers=4, services=services, videos=150_000, rng=random.Random(1))
    assert played.p95_wait_seconds == pytest.approx(p95_wait(4, load=3.2, service_seconds=mean), rel=0.15)
    assert max(played.used.values()) == pytest.approx(4 * 6 / 1000)


def test_a_saturated_part_is_named_and_bounds_what_passes():
    outcome = simulate(PRICES, Site(), num_workers=10_000, services=[(2.0, 1.0)], videos=10, rng=random.Random(1))
    assert outcome.p95_wait_seconds is None
    assert outcome.used["ledger cpu"] == pytest.approx((3500 * 0.01 + 10_000 / 15 * 0.001) / 16)
    narrowest = max(outcome.used[part] for part in IN_THE_WAY)
    assert outcome.reached_videos_per_second == pytest.approx(3500 / narrowest)


@pytest.mark.parametrize("part", sorted(used_shares(PRICES, Site(), num_workers=1, videos_per_second=1.0)))
def test_up_to_its_largest_pool_a_part_is_enough_and_not_beyond(part):
    size = largest_pool(PRICES, Site(), part, service_seconds=2.0)
    for num_workers, enough in ((size, True), (size + 1, False)):
        share = used_shares(PRICES, Site(), num_workers=num_workers, videos_per_second=0.35 * num_workers)[part]
        assert (share <= 1.0 + 1e-9) == enough
