"""Signed webhooks after the Standard Webhooks specification; every request goes through the egress guard."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog

from . import tracing
from .egress import checked_address, pinned_request
from .errors import SourceNotAllowedError, WorkerError
from .ledger import Ledger, OutboxEvent, receiver_of
from .metrics import Metrics
from .settings import Settings
from .signatures import secret_bytes, sign

log = structlog.get_logger(__name__)
_MAX_BACKOFF_SECONDS: Final = 3600.0
_ROUND_SECONDS: Final = 0.2
_RECEIVER_SHARE: Final = 0.75
"""Of the places that one receiver may hold: the rest is left to others, however many events wait for it."""


def traceparent_of(event: OutboxEvent) -> str | None:
    """The trace of the job behind an event, as the ledger row carried it."""
    given = json.loads(event.payload).get("trace_id")
    return given if isinstance(given, str) else None


def cloud_event(event: OutboxEvent) -> bytes:
    """The body: a structured CloudEvent whose data is the `verdict/1` object."""
    data = json.loads(event.payload)
    envelope = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": "/veriframe",
        "type": f"io.veriframe.{event.kind}",
        "subject": data.get("video_id"),
        "time": datetime.fromtimestamp(event.created_at, UTC).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


def _is_good(answer: int | Exception) -> bool:
    return isinstance(answer, int) and 200 <= answer < 300


class _Deadline:
    """Cuts a connection that outlives its time: httpx bounds each read alone, and every byte of a slow receiver begins a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.is_over = False

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut whatever connection `trace` has seen when the block takes longer than `seconds`."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Hook of httpcore: remembers the connection as soon as there is one."""
        if event != "connection.connect_tcp.complete":
            return
        with self._lock:
            # a duplicate, because TLS takes the socket itself over; shutting either one down ends both
            self._socket = info["return_value"].get_extra_info("socket").dup()
        if self.is_over:
            self._cut()

    def _cut(self) -> None:
        with self._lock, suppress(OSError):
            self.is_over = True
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


class WebhookSender:
    """Delivers outbox events: at least once, the same event ID on every try."""

    def __init__(self, ledger: Ledger, *, settings: Settings, metrics: Metrics) -> None:
        self._ledger = ledger
        self._settings = settings
        self._metrics = metrics
        secrets = [settings.webhook_secret, settings.webhook_secret_previous]
        self._keys = [secret_bytes(secret.get_secret_value()) for secret in secrets if secret is not None]
        # no answer is read to its end, so no connection can be used again
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(trust_env=False, timeout=settings.webhook_seconds, follow_redirects=False, limits=limits)
        self._private_hosts: Collection[str] = settings.webhook_private_hosts
        # one request after the other would bound the whole service at one over the receiver's answer time
        self._pool = ThreadPoolExecutor(settings.webhook_parallel, thread_name_prefix="webhook")
        self._running: dict[Future[int | Exception], OutboxEvent] = {}

    def close(self) -> None:
        """Wait for the running requests, at most `webhook_seconds`, tell the ledger of them and close the connections."""
        self._pool.shutdown(wait=True)
        with suppress(WorkerError):  # what the ledger did not hear of becomes due again
            self.settle_ended()
        self._client.close()

    def deliver_due(self) -> int:
        """Begin what is due and has room, settle what ended within a moment; gives the number of tries under way.

        A slow receiver holds three quarters of the `webhook_parallel` places at most; the others go on beside it.
        """
        room = self._settings.webhook_parallel - len(self._running)
        hold = self._settings.webhook_seconds * 2 + 5
        running = Counter(receiver_of(event.url) for event in self._running.values())
        most = max(1, round(self._settings.webhook_parallel * _RECEIVER_SHARE))
        events = self._ledger.due_events(page=room, hold_seconds=hold, running=running, per_receiver=most) if room else []
        self._running.update({self._pool.submit(self._try, event): event for event in events})
        num_running = len(self._running)
        wait(self._running, timeout=_ROUND_SECONDS)
        self.settle_ended()
        return num_running

    def settle_ended(self) -> None:
        """Tell the ledger of the tries that ended; also for who leads no more, while the events are still held for it."""
        # only the requests run beside each other: the ledger hears of them from one thread, of the good ones in one transaction
        answers = [(self._running.pop(future), future.result()) for future in list(self._running) if future.done()]
        self._taken([event for event, answer in answers if _is_good(answer)])
        for event, answer in answers:
            if not _is_good(answer):
                self._settle(event, answer)

    def deliver(self, event: OutboxEvent) -> bool:
        """Try one event; a failure is postponed with back-off, the last one becomes a dead letter."""
        return self._settle(event, self._try(event))

    def _try(self, event: OutboxEvent) -> int | Exception:
        """Ask the receiver once; its status, or why there is none."""
        with tracing.span(
            "veriframe webhook",
            traceparent=traceparent_of(event),
            kind="CLIENT",
            job_id=event.ledger_id,
            event=event.kind,
            attempt=event.tries,
        ) as opened:
            try:
                status = self._post(event, traceparent=opened.traceparent)
            except Exception as err:  # whatever an address or a receiver brings about is this delivery's failure, and counted as one
                opened.failed(type(err).__name__)
                return err
            opened.note(status=status)
            return status

    def _settle(self, event: OutboxEvent, answer: int | Exception) -> bool:
        if isinstance(answer, SourceNotAllowedError):
            self._give_up(event, code="WEBHOOK_NOT_ALLOWED", message=str(answer))
            return False
        if isinstance(answer, Exception):
            return self._failed(event, type(answer).__name__)
        if _is_good(answer):
            self._taken([event])
            return True
        if answer == 410:
            self._give_up(event, code="WEBHOOK_GONE", message="the receiver answered 410: it wants no more events")
            return False
        return self._failed(event, f"status {answer}")

    def _taken(self, events: list[OutboxEvent]) -> None:
        self._ledger.delivered(events)
        self._metrics.webhook_deliveries.labels(outcome="delivered").inc(len(events))

    def _post(self, event: OutboxEvent, *, traceparent: str | None) -> int:
        body, timestamp = cloud_event(event), int(time.time())
        headers: dict[str, Any] = {
            "content-type": "application/cloudevents+json",
            "user-agent": "veriframe",
            "webhook-id": event.event_id,
            "webhook-timestamp": str(timestamp),
        }
        if tracing.trace_id_of(traceparent) is not None:
            headers["traceparent"] = traceparent
        if self._keys:
            signatures = [sign(body, event_id=event.event_id, timestamp=timestamp, key=key) for key in self._keys]
            headers["webhook-signature"] = " ".join(signatures)
        try:
            url = httpx.URL(event.url)
        except httpx.InvalidURL as err:
            raise SourceNotAllowedError("the webhook address is no URL") from err
        address = checked_address(url, private_hosts=self._private_hosts)
        request = pinned_request(self._client, "POST", url, address=address, headers=headers, content=body)
        deadline, seconds = _Deadline(), self._settings.webhook_seconds
        request.extensions["trace"] = deadline.trace
        try:
            with deadline.within(seconds):
                response = self._client.send(request, stream=True)
                response.close()  # the status is all that counts; a body may be endless
        except httpx.HTTPError as err:
            if deadline.is_over:
                raise httpx.ReadTimeout(f"the receiver did not answer within {seconds:g} s") from err
            raise
        return response.status_code

    def _failed(self, event: OutboxEvent, why: str) -> bool:
        if event.tries >= self._settings.webhook_tries:
            self._give_up(event, code="WEBHOOK_UNDELIVERED", message=f"{event.tries} tries failed, the last one with {why}")
            return False
        pause = min(_MAX_BACKOFF_SECONDS, self._settings.webhook_backoff_seconds * 2 ** (event.tries - 1)) * random.uniform(0.8, 1.2)
        self._ledger.postpone(event, delay_seconds=pause)
        self._metrics.webhook_deliveries.labels(outcome="postponed").inc()
        return False

    def _give_up(self, event: OutboxEvent, *, code: str, message: str) -> None:
        if not self._ledger.give_up(event, code=code, message=message):
            return
        self._metrics.webhook_deliveries.labels(outcome="given_up").inc()
        self._metrics.dead_letters.labels(code=code).inc()
        log.warning("webhook_given_up", event_id=event.event_id, ledger_id=event.ledger_id, code=code, message=message)
