"""Writes what can be derived: `env.example`, the Kubernetes rule object, the dashboard. `python deploy/generate.py [--check]`.

With `--check` nothing is written; the exit status is 1 when a file differs from what its source says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
sys.path.insert(0, str(DEPLOY))
sys.path.insert(0, str(DEPLOY.parent))

from generators import board, env, rules  # noqa: E402

FILES: dict[str, Callable[[], str]] = {
    "env.example": env.render,
    "k8s/base/prometheus-rule.yml": rules.render,
    "grafana/dashboards/veriframe.json": board.render,
}


def stale() -> list[str]:
    """Files that differ from their source."""
    return [name for name, render in FILES.items() if not (DEPLOY / name).is_file() or (DEPLOY / name).read_text() != render()]


def main() -> int:
    """Write all files, or only compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a file is stale")
    found = stale()
    if parser.parse_args().check:
        for name in found:
            sys.stderr.write(f"deploy/{name} is stale: run python deploy/generate.py\n")
        return 1 if found else 0
    for name in found:
        (DEPLOY / name).write_text(FILES[name]())
        sys.stdout.write(f"wrote deploy/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
