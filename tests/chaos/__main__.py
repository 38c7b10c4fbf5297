"""`python -m tests.chaos [--smoke] [--only NAME ...] [--seed N] [--out reports/chaos.json]`: prints a table, exits 1 if a goal is missed."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import crashes, drain, outages, poison, real, storm
from tests.chaos.report import Report


def scenarios(report: Report, rng: random.Random, *, smoke: bool) -> dict[str, Callable[[], Any]]:
    """All scenarios at full or smoke size."""
    if smoke:
        return {
            "storm": lambda: _storm(report, rng, jobs=300, workers=3, ingests=2, janitors=2, children=2, quiet=100, warm=100),
            "crashes": lambda: crashes.crash_points(report, rng, per_point=2),
            "broker-kill": lambda: outages.broker_kills(report, rng, kills=2),
            "drain": lambda: drain.sigterm_under_load(report, rng, drain_seconds=1.0, exit_seconds=10.0, job_seconds=4.0),
        }
    return {
        "storm": lambda: _storm(report, rng, jobs=10_000, workers=50, ingests=10, janitors=10, children=25, quiet=2000, warm=500),
        "bare": lambda: storm.without_ledger(report, rng, jobs=10_000, kills=50),
        "crashes": lambda: crashes.crash_points(report, rng, per_point=20),
        "poison": lambda: poison.poison_among_good(report, rng, good=1000, poisons=100),
        "broker-kill": lambda: outages.broker_kills(report, rng, kills=10),
        "client-kill": lambda: outages.client_kills(report, rng, kills=20),
        "broker-full": lambda: outages.broker_full(report),
        "cuts": lambda: outages.network_cuts(report, rng, cuts=20, shortest=5.0, longest=30.0),
        "slow": lambda: outages.slow_network(report, seconds=20.0),
        "drain": lambda: drain.sigterm_under_load(report, rng, drain_seconds=20.0, exit_seconds=40.0, job_seconds=60.0),
        "real": lambda: real.effect_parity(report, rng, clips=20),
    }


def _storm(report: Report, rng: random.Random, *, quiet: int, warm: int, **sizes: int) -> None:
    verdicts = storm.kill_storm(report, rng, **sizes)
    storm.quiet_run(report, verdicts, jobs=quiet, warm=warm)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="the short form, under 90 s")
    parser.add_argument("--only", nargs="*", help="scenarios to run")
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument("--out", type=Path, default=Path("reports/chaos.json"))
    options = parser.parse_args()
    report = Report(seed=options.seed, smoke=options.smoke)
    for name, run in scenarios(report, random.Random(options.seed), smoke=options.smoke).items():
        if options.only and name not in options.only:
            continue
        print(f"chaos: {name} (seed {options.seed}) ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        run()
        report.detail.setdefault("scenario_seconds", {})[name] = round(time.monotonic() - started, 1)
        report.write(options.out)
    report.show()
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
