"""Celery on Redis with every safety setting it has and no ledger: what the storm is compared with."""

from __future__ import annotations

import os
import time

from celery import Celery

app = Celery("bare", broker=os.environ.get("CHAOS_BROKER", ""))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    visibility_timeout=8,
    broker_transport_options={"visibility_timeout": 8, "unacked_restore_interval": 2, "unacked_restore_throttle": 1},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task(name="bare.screen", ignore_result=True)
def screen(*, video_id: str) -> None:
    time.sleep(0.05)
    descriptor = os.open(os.environ["CHAOS_DONE"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{video_id}\n".encode())
    os.close(descriptor)


if __name__ == "__main__":
    app.Worker(
        pool_cls="threads",
        concurrency=4,
        queues=["bare"],
        loglevel="WARNING",
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        quiet=True,
    ).start()
