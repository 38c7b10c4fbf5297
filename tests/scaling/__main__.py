"""`python -m tests.scaling [--bench reports/bench.json] [--mix file.csv] [--out reports/scaling.json]`: 1 to 10,000 workers on measured prices."""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import asdict
from pathlib import Path

from tests.chaos.report import Report
from tests.scaling.measure import measure
from tests.scaling.simulate import Site, largest_pool, simulate, used_shares
from workers.capacity import Upload, read_bench, read_mix

SIZES = (1, 10, 100, 1000, 10_000)
MIX = (Upload(0.6, 15, 480, 1), Upload(0.25, 45, 720, 2), Upload(0.1, 120, 1080, 1), Upload(0.05, 20, 1080, 5))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scaling", description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("reports/bench.json"))
    parser.add_argument("--mix", type=Path)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--videos", type=int, default=600, help="to measure the prices with")
    parser.add_argument("--play", type=int, default=100_000, help="videos per simulated size")
    parser.add_argument("--out", type=Path, default=Path("reports/scaling.json"))
    options = parser.parse_args()
    kind, mix = read_bench(options.bench), read_mix(options.mix) if options.mix else MIX
    print("scaling: measuring what a video and an idle worker cost ledger, broker and janitor ...", file=sys.stderr, flush=True)
    prices, site = measure(videos=options.videos, idle_seconds=10.0), Site()
    report = Report(seed=options.seed, smoke=False)
    for name, value in asdict(prices).items():
        scaled = value * 1000 if name.startswith(("ledger_per", "broker_per", "janitor", "ingest", "ledger_latency")) else value
        report.add(f"price: {name}", scaled, "ms" if scaled != value else "", goal="", passed=None)
    services = [(kind.seconds(upload), upload.share) for upload in mix]
    mean = sum(seconds * share for seconds, share in services) / sum(share for _seconds, share in services)
    report.add(f"worker-seconds per video ({kind.name})", mean, "s", goal="", passed=None)
    for size in SIZES:
        played = max(options.play, 3 * size)
        outcome = simulate(prices, site, num_workers=size, services=services, videos=played, rng=random.Random(options.seed))
        report.detail.setdefault("sizes", []).append(asdict(outcome))
        wait = "grows" if outcome.p95_wait_seconds is None else outcome.p95_wait_seconds
        full = [f"{part} {share:.0%}" for part, share in sorted(outcome.used.items(), key=lambda pair: -pair[1]) if share > 0.7]
        report.add(f"{size} workers: videos per second at {site.load:.0%}", outcome.videos_per_second, "1/s", goal="", passed=None)
        report.add(
            f"{size} workers: waiting p95 ({'full: ' + ', '.join(full) if full else 'nothing above 70 %'})", wait, "s", goal="", passed=None
        )
    for part in used_shares(prices, site, num_workers=1, videos_per_second=1.0):
        report.add(f"{part}: enough up to", largest_pool(prices, site, part, service_seconds=mean), "workers", goal="", passed=None)
    report.detail["prices"], report.detail["site"] = asdict(prices), asdict(site)
    report.write(options.out)
    report.show()
    print(f"Report: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
