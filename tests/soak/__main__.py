"""`python -m tests.soak [--minutes 10] [--smoke] [--seed N] [--out reports/soak.json]`: prints a table, exits 1 if a goal is missed."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from tests.chaos.report import Report
from tests.soak.run import Plan, Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of steady load; 120 for the long form")
    parser.add_argument("--smoke", action="store_true", help="some seconds: whether it works, not whether it leaks")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--out", type=Path, default=Path("reports/soak.json"))
    options = parser.parse_args()
    if options.smoke:
        plan = Plan(steady_seconds=4.0, warm_videos=2, warm_rounds=0, calibration_videos=4, every_seconds=0.25, smoke=True)
    else:
        plan = Plan(steady_seconds=options.minutes * 60, warm_videos=12, warm_rounds=3, calibration_videos=40, every_seconds=5.0)
    report = Report(seed=options.seed, smoke=options.smoke)
    soak = Soak(plan, report, random.Random(options.seed))
    try:
        soak.play()
    finally:
        soak.close()
        report.write(options.out)
    report.show()
    print(f"Report: {options.out}")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
