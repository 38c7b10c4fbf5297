"""The Celery application of the workers. Settings and the reason for each: notes on reliability, section 3.

Only dispatch queues are declared: the public inbox lanes are read by `workers.ingest`, never by Celery, whose fetch loses
messages when a worker is killed.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from celery import Celery
from kombu.entity import Exchange, Queue

from .broker import DISPATCH_LANES, dispatch_queue
from .messages import DISPATCH_TASK
from .settings import Settings

HEALTH_CHECK_SECONDS: Final = 10


def celery_url(broker_url: str) -> str:
    """A broker URL as kombu spells it. A certificate is checked unless the URL says no: kombu alone would not check it."""
    parts = urlsplit(broker_url)
    if parts.scheme == "rediss" and "ssl_cert_reqs=" not in parts.query:
        return urlunsplit(parts._replace(query=f"{parts.query}&ssl_cert_reqs=required".lstrip("&")))
    return broker_url.replace("unix://", "redis+socket://", 1)


def make_app(settings: Settings, *, broker_url: str) -> Celery:
    """Make the application; nothing connects yet."""
    app = Celery("veriframe", broker=celery_url(broker_url), backend=None, set_as_current=False)
    default_exchange = Exchange("", type="direct", durable=True)  # type: ignore[no-untyped-call]
    names = [dispatch_queue(lane) for lane in DISPATCH_LANES]
    queues = [Queue(name, default_exchange, routing_key=name) for name in names]  # type: ignore[no-untyped-call]
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,  # our failures are in the ledger; the broker never loops them
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        visibility_timeout=settings.visibility_timeout_seconds,
        broker_transport_options={
            "visibility_timeout": settings.visibility_timeout_seconds,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": HEALTH_CHECK_SECONDS,
            "queue_order_strategy": "priority",
        },
        result_backend_transport_options={"visibility_timeout": settings.visibility_timeout_seconds},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,  # copies are no-ops here, lost capacity would not be
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_create_missing_queues=False,
        task_queues=queues,
        task_default_queue=dispatch_queue("default"),
        task_routes={DISPATCH_TASK: {"queue": dispatch_queue("default")}},
        task_send_sent_event=False,
        worker_send_task_events=False,
    )
    return app
