"""Keeps Celery's consumer honest: a worker that is alive but no longer fetches is made to reconnect, then to exit.

The threads pool can stop fetching silently after a broker outage (open-wearables #1543 and our own broker kill tests).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
import structlog

from .broker import dispatch_queue, translated
from .errors import BrokerError
from .screening import Screening

log = structlog.get_logger(__name__)
_PAUSE_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 10.0
"""Idle for this long beside a queue that has messages: reconnect."""

HOPELESS_SECONDS: Final = 60.0
"""Still idle after this: exit, a supervisor starts a fresh process."""


class ConsumerWatch:
    """Reconnects the consumer of one worker."""

    def __init__(self, screening: Screening, *, client: redis.Redis, lanes: Sequence[str], on_hopeless: Callable[[], None]) -> None:
        self._screening = screening
        self._client = client
        self._queues = [dispatch_queue(lane) for lane in lanes]
        self._on_hopeless = on_hopeless
        self._worker: Any = None
        self._lock = threading.Lock()
        self._reconnected_at = float("-inf")
        self._seen = -1
        self._silent_since: float | None = None

    def watch(self, worker: Any) -> None:
        """Begin with a Celery worker that is about to start."""
        self._worker = worker

    def on_lost_acknowledgement(self, channel: object) -> None:
        """Told by a request whose acknowledgement failed; any thread.

        Only the present connection's failures count: videos that were running when the consumer reconnected end on the old one
        and cannot be acknowledged any more, and reconnecting for them would never end.
        """
        consumer = getattr(self._worker, "consumer", None)
        current = getattr(getattr(consumer, "task_consumer", None), "channel", None)
        if current is channel:
            self.reconnect()

    def reconnect(self) -> None:
        """Make the consumer drop its connection and start again with free prefetch slots; safe from any thread."""
        consumer = getattr(self._worker, "consumer", None)
        with self._lock:
            if consumer is None or consumer.hub is None or time.monotonic() - self._reconnected_at < _PAUSE_SECONDS:
                return
            self._reconnected_at = time.monotonic()
        log.warning("consumer_reconnects", note="an acknowledgement did not reach the broker or nothing is fetched")
        consumer.hub.call_soon(_lose_connection)

    def look(self) -> None:
        """One look, from the heartbeat: idle beside a filled queue is not right."""
        received, busy = self._screening.num_received, self._screening.in_flight.is_busy
        now = time.monotonic()
        if busy or received != self._seen or not self._has_messages():
            self._seen, self._silent_since = received, None
            return
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since > HOPELESS_SECONDS:
            log.error("consumer_hopeless", note="the process drains and exits, its supervisor restarts it")
            self._on_hopeless()
        elif now - self._silent_since > SILENT_SECONDS:
            self.reconnect()

    def _has_messages(self) -> bool:
        try:
            with translated():
                return any(self._client.llen(queue) for queue in self._queues)
        except BrokerError:
            return False


def _lose_connection() -> None:
    """Runs in Celery's event loop, where a connection error leads to its ordinary reconnect."""
    raise ConnectionResetError("an acknowledgement did not reach the broker")
