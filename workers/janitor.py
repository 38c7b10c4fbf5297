"""Keeps the promise: expired leases are taken back, due rows dispatched, webhooks delivered, old rows retired, queues gauged.

Any number of janitors may run; one leads by a lease in the ledger, on the database's clock.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Final

import redis
import structlog

from .broker import Dispatcher
from .clock_watch import ClockWatch
from .errors import BrokerFullError, LedgerError, WorkerError
from .gauges import QueueGauges
from .ledger import Ledger
from .ledger.schema import ISOLATE, POISONED
from .messages import JobFacts, failure_body
from .metrics import Metrics
from .probes import LoopWatch
from .settings import Settings
from .webhooks import WebhookSender

log = structlog.get_logger(__name__)

_LEADERSHIP: Final = "janitor"
_EXPIRE_SECONDS: Final = 1.0
_GAUGE_SECONDS: Final = 5.0
_RETIRE_SECONDS: Final = 3600.0
_RETIRE_PAGE: Final = 500
_RETIRE_AGAIN_SECONDS: Final = 1.0
_FORGET_SECONDS: Final = 60.0
_TROUBLE_SECONDS: Final = 1.0
_FAULT_SECONDS: Final = 5.0
_PAGE: Final = 200
_RAISED_SHARE: Final = 8
"""One in so many places of a lane's queue is for old videos of the lane below; the others stay its own."""


class _Every:
    """A job of the janitor with its own pace."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = float("-inf")

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

    def postpone(self, seconds: float) -> None:
        """Not before so many seconds from now."""
        self._next = max(self._next, time.monotonic() + seconds)

    def hasten(self, seconds: float) -> None:
        """Again so many seconds from now, if not earlier."""
        self._next = min(self._next, time.monotonic() + seconds)


def poison_body(row: Any) -> dict[str, Any]:
    """The `verdict/1` object of a video under which workers kept dying."""
    job = JobFacts(
        video_id=row.video_id,
        job_id=row.ledger_id,
        content_sha256=row.content_sha256,
        attributes=json.loads(row.attributes),
        trace_id=row.trace_id,
    )
    message = "worker processes died while they held this video; it is quarantined, an operator can `veriframe requeue` it"
    return failure_body(code=POISONED, message=message, retryable=False, job=job).to_json()


class Janitor:
    """One janitor; `run` loops, `step` does one round if this one leads."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: Dispatcher,
        *,
        client: redis.Redis | None,
        settings: Settings,
        metrics: Metrics,
        owner: str,
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._settings = settings
        self._metrics = metrics
        self._owner = owner
        self._sender = WebhookSender(ledger, settings=settings, metrics=metrics)
        self._leads = threading.Event()
        self._led_at = float("-inf")
        self._expire, self._gauge = _Every(_EXPIRE_SECONDS), _Every(_GAUGE_SECONDS)
        self._retire = _Every(_RETIRE_SECONDS)
        self._gauges = QueueGauges(ledger, client=client, metrics=metrics)
        self._forget = _Every(_FORGET_SECONDS)
        self.watch = LoopWatch()
        self._raised: dict[str, set[str]] = {"urgent": set(), "default": set()}
        self._clock = ClockWatch()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; outages of broker or ledger are waited out, faults of ours are logged and tried again."""
        outbox = threading.Thread(target=self._run_outbox, args=(stop,), name="outbox", daemon=True)
        outbox.start()
        while not stop.is_set():
            self.watch.tick()
            try:
                busy = self.step()
                pause = self._settings.pump_seconds / (5 if busy else 1)
            except WorkerError as err:
                if isinstance(err, LedgerError):
                    # nobody could renew meanwhile: living workers get time to, before their leases count as dead
                    self._expire.postpone(self._settings.lease_seconds / 2)
                log.warning("janitor_waits", code=err.code, message=str(err), note="nothing is lost, it goes on by itself")
                pause = _TROUBLE_SECONDS
            except Exception:  # a bug of ours: nobody would start this thread again, and with it the promise would end
                log.exception("janitor_failed", note="it is tried again")
                pause = _FAULT_SECONDS
            stop.wait(pause)
        outbox.join(timeout=self._settings.webhook_seconds + 1)
        self._sender.close()
        if self._leads.is_set():
            try:
                self._ledger.step_down(_LEADERSHIP, owner=self._owner)
            except WorkerError as err:
                log.warning("leadership_kept", code=err.code, note="it ends by itself")

    def step(self) -> int:
        """One round; gives the number of jobs dispatched, 0 while another janitor leads.

        Raises:
            WorkerError: broker or ledger are away; the next round goes on.
        """
        may_expire = self._expire.is_due() and not self._clock_was_set()
        if not self._lead():
            return 0
        if may_expire:
            self.expire()
        if self._gauge.is_due():
            self._gauges.set_all()
        if self._forget.is_due():
            self._ledger.drop_expired_explanations()
        if self._retire.is_due():
            self._retire_page()
        return self.dispatch()

    def _clock_was_set(self) -> bool:
        """Whether all leases may look dead only because the ledger's clock was set; watched also while another janitor leads."""
        step = self._clock.step_seconds(self._ledger.now())
        if step:
            self._expire.postpone(self._settings.lease_seconds / 2)  # living workers renew by the new time meanwhile
            log.warning("ledger_clock_set", step_seconds=round(step, 1), note="no lease is taken back until living workers renewed theirs")
        return bool(step)

    def _retire_page(self) -> None:
        """Remove one page of what outlived its time; one page at a time, as the ledger takes no other writes meanwhile."""
        retired = [self._ledger.retire(days=self._settings.retention_days, page=_RETIRE_PAGE)]
        if self._settings.verdict_retention_days:
            retired.append(self._ledger.retire_verdicts(days=self._settings.verdict_retention_days, page=_RETIRE_PAGE).verdicts)
        if max(retired) >= _RETIRE_PAGE:
            self._retire.hasten(_RETIRE_AGAIN_SECONDS)

    def _lead(self) -> bool:
        seconds = self._settings.leader_seconds
        if self._leads.is_set() and time.monotonic() - self._led_at < seconds / 3:
            return True
        self._led_at = time.monotonic()
        try:
            leads = self._ledger.lead(_LEADERSHIP, owner=self._owner, seconds=seconds)
        except WorkerError:
            self._leads.clear()
            self._metrics.reconciler_leader.set(0)
            raise
        if leads and not self._leads.is_set():
            log.info("janitor_leads", owner=self._owner)
        (self._leads.set if leads else self._leads.clear)()
        self._metrics.reconciler_leader.set(int(leads))
        return leads

    def expire(self) -> int:
        """Take back jobs whose lease ran out."""
        urls = [self._settings.webhook_url] if self._settings.webhook_url else []
        expired = self._ledger.expire_leases(max_crashes=self._settings.max_crashes, page=_PAGE, urls=urls, poison_body=poison_body)
        for lease in expired:
            self._metrics.leases_expired.labels(queue=lease.lane).inc()
            log.warning("lease_expired", ledger_id=lease.ledger_id, state=lease.state)
            if lease.state == POISONED:
                self._metrics.dead_letters.labels(code=POISONED).inc()
        return len(expired)

    def dispatch(self) -> int:
        """Send due jobs while their queues have room; the oldest first, old ones one lane up."""
        room = self._dispatcher.room()
        settings = self._settings
        wanted = [
            (ISOLATE, ISOLATE, 0.0),
            ("default", "urgent", settings.default_age_limit_seconds),  # few, so before those who would fill the queue without end
            ("urgent", "urgent", 0.0),
            ("bulk", "default", settings.bulk_age_limit_seconds),
            ("default", "default", 0.0),
            ("bulk", "bulk", 0.0),
        ]
        sent = 0
        for route, lane, min_age in wanted:
            jobs = self._ledger.take_due(
                route=route,
                queue=lane,
                page=min(_PAGE, room[lane], _PAGE if route == lane else self._room_for_old(lane)),
                resend_seconds=settings.resend_seconds,
                min_age_seconds=min_age,
            )
            if not jobs:
                continue
            room[lane] -= len(jobs)
            if route != lane:
                self._raised[lane].update(job.ledger_id for job in jobs)
            try:
                self._dispatcher.send([(job.ledger_id, job.queue) for job in jobs])
            except BrokerFullError:
                log.warning("broker_full", note="the rest waits in the ledger")
                raise
            sent += len(jobs)
            self._metrics.resent.labels(queue=lane).inc(len(jobs))
        return sent

    def _room_for_old(self, lane: str) -> int:
        """How many old videos of the lane below may join this queue: in a backlog all of them are old, and would leave it no place of its own."""
        share = max(1, self._settings.dispatch_bound // _RAISED_SHARE)
        raised = self._raised[lane]
        if len(raised) >= share:
            raised &= self._ledger.still_queued(raised)
        return max(0, share - len(raised))

    def _run_outbox(self, stop: threading.Event) -> None:
        """Webhooks in a thread of their own: a slow receiver must not hold up the dispatch."""
        while not stop.is_set():
            tried = 0
            try:
                if self._leads.is_set():
                    tried = self._sender.deliver_due()
                else:
                    self._sender.settle_ended()
            except WorkerError as err:
                log.warning("outbox_waits", code=err.code)
                stop.wait(_TROUBLE_SECONDS)
            except Exception:
                log.exception("outbox_failed", note="it is tried again")
                stop.wait(_FAULT_SECONDS)
            stop.wait(0.01 if tried else 0.2)
