"""A real worker process with the hash detector injected: `python -m tests.chaos.worker_process`. Settings come from VERIFRAME_*."""

from __future__ import annotations

import os
import sys

from tests.chaos.screener import HashScreener
from workers.embedded import resolve_broker_url
from workers.errors import WorkerError
from workers.lifecycle import run_worker
from workers.logs import configure_logs
from workers.settings import load_settings


def main() -> int:
    settings = load_settings()
    configure_logs(level=settings.log_level, component="worker")
    work_seconds = float(os.environ.get("CHAOS_WORK_SECONDS", "0.005"))
    child_every = int(os.environ.get("CHAOS_CHILD_EVERY", "40"))
    try:
        return run_worker(
            settings,
            broker_url=resolve_broker_url(settings),
            screener_factory=lambda _settings, _metrics: HashScreener(work_seconds=work_seconds, child_every=child_every),
        )
    except WorkerError as err:
        print(f"{err.code}: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
