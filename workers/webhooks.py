"""Signed webhooks after the Standard Webhooks specification; every request goes through the egress guard."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog

from . import tracing
from .egress import checked_address, pinned_request
from .errors import SourceNotAllowedError, WorkerError
from .ledger import Ledger, OutboxEvent
from .metrics import Metrics
from .settings import Settings
from .signatures import secret_bytes, sign

log = structlog.get_logger(__name__)
_MAX_BACKOFF_SECONDS: Final = 3600.0


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


class WebhookSender:
    """Delivers outbox events: at least once, the same event ID on every try."""

    def __init__(self, ledger: Ledger, *, settings: Settings, metrics: Metrics) -> None:
        self._ledger = ledger
        self._settings = settings
        self._metrics = metrics
        secrets = [settings.webhook_secret, settings.webhook_secret_previous]
        self._keys = [secret_bytes(secret.get_secret_value()) for secret in secrets if secret is not None]
        self._client = httpx.Client(trust_env=False, timeout=settings.webhook_seconds, follow_redirects=False)
        self._private_hosts: Collection[str] = settings.webhook_private_hosts
        # one request after the other would bound the whole service at one over the receiver's answer time
        self._pool = ThreadPoolExecutor(settings.webhook_parallel, thread_name_prefix="webhook")

    def close(self) -> None:
        """End the running requests and close the connections."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def deliver_due(self, *, page: int = 32) -> int:
        """Deliver what is due; gives the number of tries made."""
        hold = self._settings.webhook_seconds * 2 + 5
        events = self._ledger.due_events(page=page, hold_seconds=hold)
        # only the requests run beside each other: the ledger hears of them from this thread, of the good ones in one transaction
        answers = list(zip(events, self._pool.map(self._try, events), strict=True))
        self._taken([event for event, answer in answers if _is_good(answer)])
        for event, answer in answers:
            if not _is_good(answer):
                self._settle(event, answer)
        return len(events)

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
            except (httpx.HTTPError, WorkerError) as err:
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
        return self._client.send(request).status_code

    def _failed(self, event: OutboxEvent, why: str) -> bool:
        if event.tries >= self._settings.webhook_tries:
            self._give_up(event, code="WEBHOOK_UNDELIVERED", message=f"{event.tries} tries failed, the last one with {why}")
            return False
        pause = min(_MAX_BACKOFF_SECONDS, self._settings.webhook_backoff_seconds * 2 ** (event.tries - 1)) * random.uniform(0.8, 1.2)
        self._ledger.postpone(event, delay_seconds=pause)
        self._metrics.webhook_deliveries.labels(outcome="postponed").inc()
        return False

    def _give_up(self, event: OutboxEvent, *, code: str, message: str) -> None:
        self._ledger.give_up(event, code=code, message=message)
        self._metrics.webhook_deliveries.labels(outcome="given_up").inc()
        self._metrics.dead_letters.labels(code=code).inc()
        log.warning("webhook_given_up", event_id=event.event_id, ledger_id=event.ledger_id, code=code, message=message)
