"""`python -m tests.browser [--verdicts N] [--only NAME ...] [--out reports/dashboard.json]`: the figures of the dashboard, and screenshots.

queue: page times with many verdicts on SQLite and Postgres. submit: latency of POST /v1/videos at a steady rate against a real API
process. look: what axe finds on every page, and a picture of each in `reports/dashboard/`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the builders that tests share

from tests.browser import looks, page_times, submit_times
from tests.chaos.report import Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description=__doc__)
    parser.add_argument("--verdicts", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=200, help="submits per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to submit")
    parser.add_argument("--only", nargs="*", choices=("queue", "submit", "look"))
    parser.add_argument("--out", type=Path, default=Path("reports/dashboard.json"))
    options = parser.parse_args()
    report = Report(seed=0, smoke=False)
    parts: dict[str, Callable[[], None]] = {
        "queue": lambda: page_times.measure(report, num_verdicts=options.verdicts),
        "submit": lambda: submit_times.measure(report, rate=options.rate, seconds=options.seconds),
        "look": lambda: looks.measure(report, folder=options.out.parent / "dashboard"),
    }
    for name, run in parts.items():
        if options.only and name not in options.only:
            continue
        print(f"dashboard: {name} ...", file=sys.stderr, flush=True)
        run()
        report.detail.setdefault("load_average", {})[name] = round(os.getloadavg()[0], 1)
        report.write(options.out)
    report.show()
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
