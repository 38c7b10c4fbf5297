"""The Celery edge: thin tasks around `Screening.run` and `Explaining.run`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, Task
from celery.exceptions import Reject
from celery.worker.request import Request

from .broker import lane_of_queue
from .errors import LedgerUnavailableError
from .explaining import Explaining
from .messages import DISPATCH_TASK, EXPLAIN_TASK
from .messages.celery_wire import DISPATCH_VERSION
from .screening import DrainingError, Screening

log = structlog.get_logger(__name__)
_LEDGER_PAUSE_SECONDS = 1.0


def watched_request(on_lost: Callable[[object], None]) -> type[Request]:
    """A Celery request that reports an acknowledgement which did not reach the broker.

    Celery only logs "Couldn't ack". The delivery then holds its prefetch slot for ever; once all slots are held nothing waits on
    the broker connection any more, so its loss is never noticed and the worker silently stops (measured with `-P threads`).
    """

    class WatchedRequest(Request):  # type: ignore[misc]
        def __init__(self, message: Any, **options: Any) -> None:
            super().__init__(message, **options)
            # Celery acknowledges later, in its event loop, through these two methods of the message
            message.ack = watched(message.ack, message.channel)
            message.reject = watched(message.reject, message.channel)

    def watched(settle: Callable[..., None], channel: object) -> Callable[..., None]:
        def call(*args: Any, **options: Any) -> None:
            try:
                settle(*args, **options)
            except Exception:
                on_lost(channel)
                raise

        return call

    return WatchedRequest


def register(app: Celery, screening: Screening, explaining: Explaining, *, on_lost: Callable[[object], None]) -> None:
    """Give the application its tasks, bound to this process.

    Args:
        app: the application.
        screening: runs the jobs.
        explaining: shows people why.
        on_lost: told, from any thread, on which channel an acknowledgement did not reach the broker.
    """

    def run(self: Task, *, ledger_id: str, schema_version: int) -> None:
        if schema_version != DISPATCH_VERSION:
            log.error("unknown_dispatch_version", schema_version=schema_version, note="another build's message; the ledger sends again")
            return
        delivery: dict[str, Any] = self.request.delivery_info or {}
        tag = (self.request.properties or {}).get("delivery_tag")
        try:
            screening.run(ledger_id, lane=lane_of_queue(delivery.get("routing_key") or ""), delivery_tag=tag)
        except DrainingError as err:
            raise Reject(str(err), requeue=True) from err
        except LedgerUnavailableError as err:
            time.sleep(_LEDGER_PAUSE_SECONDS)  # not acknowledged: the message stays until the ledger is back
            raise Reject(str(err), requeue=True) from err

    def explain(*, ledger_id: str, schema_version: int) -> None:
        if schema_version != DISPATCH_VERSION:
            log.error("unknown_dispatch_version", schema_version=schema_version, note="another build's message; the person asks again")
            return
        if screening.in_flight.draining.is_set():
            raise Reject("this worker drains", requeue=True)
        explaining.run(ledger_id)

    requests = watched_request(on_lost)
    app.task(run, name=DISPATCH_TASK, bind=True, ignore_result=True, shared=False, Request=requests)
    app.task(explain, name=EXPLAIN_TASK, ignore_result=True, shared=False, Request=requests)
