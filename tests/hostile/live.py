"""The corpus through a living system: broker, ledger and one worker whose deaths are counted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from celery import Celery

from hostile.expectations import Expected
from workers.app import celery_url
from workers.settings import load_settings
from workers.up import start_system
from workers.web.app import job_body

WAIT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class LiveSweep:
    """How the files ended."""

    wrong: tuple[str, ...]
    """Files that ended otherwise than expected, or not at all."""
    deaths: int
    """Times that the worker process had to be started again."""


def sweep_live(folder: Path, expected: Sequence[Expected]) -> LiveSweep:
    """Push every file's ID onto the public queue and wait until each has its outcome."""
    with tempfile.TemporaryDirectory(prefix="veriframe-hostile-") as state:
        settings = load_settings(state_dir=Path(state) / "system", media_roots=(folder.resolve(),), metrics_port=0, log_level="error")
        with start_system(settings, worker_log=Path(state) / "worker.log") as system:
            ledger = system.control.ledger
            producer = Celery(broker=celery_url(system.broker_url))
            producer.conf.update(task_serializer="json", broker_connection_retry_on_startup=True)
            ids = {row.file: f"hostile-{number}" for number, row in enumerate(expected)}
            for row in expected:
                source = (folder / row.file).resolve().as_uri()
                producer.send_task("veriframe.screen", kwargs={"video_id": ids[row.file], "source": source}, queue="default")
            producer.close()
            until = time.monotonic() + WAIT_SECONDS
            ends: dict[str, str] = {}
            while len(ends) < len(expected) and time.monotonic() < until:
                time.sleep(0.5)
                for row in expected:
                    job = ledger.latest_job(ids[row.file]) if row.file not in ends else None
                    body = job_body(job) if job is not None else {}
                    if body.get("state") == "complete":
                        ends[row.file] = "verdict"
                    elif body.get("state") == "failed":
                        ends[row.file] = str(body["error"]["code"])
            wrong = tuple(
                f"{row.file}: {ends.get(row.file, 'no outcome')}" for row in expected if ends.get(row.file, "") not in row.outcomes
            )
            return LiveSweep(wrong, system.worker.num_starts - 1)
