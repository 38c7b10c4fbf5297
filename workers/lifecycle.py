"""A worker process from start to end: load, warm, heartbeat, drain, exit.

Celery's own limits and cold shutdown do not work with its threads pool, so deadlines and drain are ours:
SIGTERM -> nothing new is claimed -> running videos may finish for `drain_seconds` -> the rest is cancelled and handed back ->
the process is gone after `exit_seconds`, whatever hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import redis
import structlog
from celery import signals
from celery.exceptions import CPendingDeprecationWarning

from .app import make_app
from .broker import check_access, connect, dispatch_queue, require_no_eviction, wait_for
from .consumer_watch import ConsumerWatch
from .decode_sandbox import require_sandbox, sandbox_facts, usable_hardware
from .errors import WorkerError
from .explaining import Explaining
from .in_flight import Running
from .ledger import Ledger
from .metrics import Metrics, resident_bytes
from .probes import Probes, serve_probes
from .processes import new_owner
from .screening import Screener, Screening
from .settings import Settings
from .sources import ConfiguredSources, Sources
from .tasks import register

log = structlog.get_logger(__name__)

EXIT_STUCK: Final = 70
"""Exit status after a thread that could not be stopped (EX_SOFTWARE)."""

_UNACKED_INDEX: Final = "unacked_index"
_POLL_SECONDS: Final = 0.1
_HAND_BACK_SECONDS: Final = 5.0
"""For a ledger that is slow: a stuck process leaves after this time whatever it says, a draining one begins as long before its end."""


def renew_deliveries(client: redis.Redis, tags: list[str], *, now: float) -> None:
    """Tell kombu's visibility timeout that these deliveries are alive. Its internal key, hence one function and a tripwire test.

    Only saves needless copies: the ledger turns every copy into a no-op anyway.
    """
    if tags:
        client.zadd(_UNACKED_INDEX, dict.fromkeys(tags, now), xx=True)


class WorkerLife:
    """Heartbeat, deadlines and drain around one `Screening`."""

    def __init__(
        self, screening: Screening, *, ledger: Ledger, client: redis.Redis, metrics: Metrics, settings: Settings, owner: str
    ) -> None:
        self._screening = screening
        self._in_flight = screening.in_flight
        self._ledger = ledger
        self._client = client
        self._metrics = metrics
        self._settings = settings
        self._owner = owner
        self._stopped = threading.Event()
        self._ticked = time.monotonic()
        self._drain_started: float | None = None
        self._renewing = threading.Lock()
        self._handing_back = threading.Event()
        self.consumer = ConsumerWatch(screening, client=client, lanes=settings.dispatch_lanes, on_hopeless=signal_self)

    def start(self) -> None:
        """Start the heartbeat."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        self._metrics.worker_in_flight.set_function(lambda: len(self._in_flight))
        self._metrics.heartbeat.set_to_current_time()
        self._metrics.worker_ready.set(1)

    def finish(self) -> None:
        """Drain, wait for the task threads, then stop the heartbeat.

        A cold shutdown returns from Celery while threads still run; their leases must be renewed until they hand them back.
        """
        self.drain()
        self._wait_idle(until=time.monotonic() + self._settings.exit_seconds)
        self.stop()

    def stop(self) -> None:
        """Stop the heartbeat; last thing before exit."""
        self._stopped.set()
        self._metrics.worker_ready.set(0)

    @property
    def is_live(self) -> bool:
        """Whether the heartbeat thread ticks."""
        return time.monotonic() - self._ticked < max(10.0, self._settings.heartbeat_seconds * 3)

    @property
    def is_ready(self) -> bool:
        """Whether this worker takes videos."""
        if self._in_flight.draining.is_set():
            return False
        try:
            self._ledger.count_waiting()
            return bool(self._client.ping())
        except (WorkerError, redis.RedisError):
            return False

    def drain(self) -> None:
        """Begin the drain; returns at once."""
        if self._drain_started is None:
            self._drain_started = time.monotonic()
            self._in_flight.draining.set()
            self._metrics.worker_ready.set(0)
            _leave_after(self._settings.exit_seconds, status=0)
            threading.Thread(target=self._drain, name="drain", daemon=True).start()

    # --- heartbeat

    def _beat(self) -> None:
        while not self._stopped.wait(self._settings.heartbeat_seconds):
            self._ticked = time.monotonic()
            self._metrics.heartbeat.set_to_current_time()
            running = self._in_flight.snapshot()
            try:
                self._renew(running)
            except WorkerError as err:
                log.warning("heartbeat_failed", code=err.code, note="tried again at the next beat")
            self._enforce_deadlines(running)
            self._watch_memory()
            self.consumer.look()

    def _renew(self, running: list[Running]) -> None:
        if not running:
            return
        ids = [job.claim.ledger_id for job in running]
        with self._renewing:
            if self._handing_back.is_set():
                return
            held = self._ledger.renew(self._owner, ledger_ids=ids, lease_seconds=self._settings.lease_seconds)
        for job in running:
            if held.get(job.claim.ledger_id) != job.claim.fence and job in self._in_flight.snapshot():
                job.stop("lease_lost")
        if self._settings.renew_deliveries:
            with contextlib.suppress(redis.RedisError, OSError):
                renew_deliveries(self._client, [job.delivery_tag for job in running if job.delivery_tag], now=time.time())

    def _enforce_deadlines(self, running: list[Running]) -> None:
        now = time.monotonic()
        for job in running:
            age = now - job.started
            if age > self._settings.video_soft_seconds:
                job.stop("deadline")
            if age > self._settings.video_hard_seconds:
                self._leave_stuck(job)

    def _leave_stuck(self, stuck: Running) -> None:
        """A thread cannot be killed: hand the neighbours back unharmed and exit; the guilty lease runs out and is counted."""
        log.error("stuck", ledger_id=stuck.claim.ledger_id, stage=stuck.stage, note="the process exits, its supervisor restarts it")
        self._in_flight.draining.set()
        _leave_after(_HAND_BACK_SECONDS, status=EXIT_STUCK)
        self._hand_back([job for job in self._in_flight.snapshot() if job is not stuck], why="stuck neighbour")
        os._exit(EXIT_STUCK)

    def _watch_memory(self) -> None:
        limit = self._settings.memory_limit_bytes
        if limit and not self._in_flight.draining.is_set() and resident_bytes() > limit:
            log.warning("memory_limit", resident_bytes=resident_bytes(), limit_bytes=limit, note="drains and exits for a restart")
            signal_self()

    # --- drain

    def _drain(self) -> None:
        started = time.monotonic()
        log.info("draining", in_flight=len(self._in_flight))
        self._wait_idle(until=started + self._settings.drain_seconds)
        for job in self._in_flight.snapshot():
            job.stop("drain")
        self._wait_idle(until=started + self._settings.exit_seconds - min(_HAND_BACK_SECONDS, self._settings.exit_seconds / 4))
        left = self._in_flight.snapshot()
        if left:
            log.warning("exit_forced", left=len(left))
            self._hand_back(left, why="drain")

    def _wait_idle(self, *, until: float) -> None:
        while len(self._in_flight) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def _hand_back(self, jobs: list[Running], *, why: str) -> None:
        self._handing_back.set()
        # a renewal takes the same rows in its own order: each would wait for the other until the database says so, and that is too late
        waited_out = self._renewing.acquire(timeout=_HAND_BACK_SECONDS / 2)
        try:
            self._ledger.release_all([job.claim for job in jobs], why=why)
        except WorkerError as err:
            log.warning("hand_back_failed", code=err.code, left=len(jobs), note="their leases run out")
        finally:
            if waited_out:
                self._renewing.release()


def _leave_after(seconds: float, *, status: int) -> None:
    """End this process then, whatever hangs: a thread, a connection, the ledger that jobs are handed back to."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


def signal_self() -> None:
    """Ask this process to drain, as an operator would."""
    os.kill(os.getpid(), signal.SIGTERM)


def run_worker(
    settings: Settings,
    *,
    broker_url: str,
    screener_factory: Callable[[Settings, Metrics], Screener],
    ledger: Ledger | None = None,
    sources: Sources | None = None,
) -> int:
    """Run one worker process until it is told to stop.

    Args:
        settings: all settings.
        broker_url: the broker in use.
        screener_factory: loads the detectors; called once, before anything is taken.
        ledger: the ledger; opened from the settings when None.
        sources: where media come from; the configured ones when None.

    Returns:
        The exit status.

    Raises:
        SettingsError, SandboxError, BrokerPolicyError, LedgerSchemaError, BundleError: the worker must not start like this.
    """
    level = require_sandbox(settings)
    owner = new_owner()
    client = connect(broker_url)
    wait_for(client, seconds=60.0)
    require_no_eviction(client)
    check_access(client, broker_url, strict=settings.broker_strict, is_private=settings.broker_private_network)
    ledger = ledger or Ledger.open(
        settings.resolved_ledger_url, sqlite_synchronous=settings.sqlite_synchronous, pool_size=settings.concurrency + 2
    )
    ledger.warm(settings.concurrency + 1)
    metrics = Metrics()
    metrics.decode_sandbox.labels(level=level).set(1)
    if settings.hardware_decode != "off":
        metrics.prepare_hardware_decode(settings.hardware_decode, in_use=usable_hardware(settings))
    lives: list[WorkerLife] = []  # empty while the bundles load: not started, not ready, but alive
    if settings.metrics_port:
        probes = Probes(
            is_started=lambda: bool(lives),
            is_live=lambda: all(life.is_live for life in lives),
            is_ready=lambda: bool(lives) and lives[0].is_ready,
            facts=lambda: sandbox_facts(settings),
        )
        serve_probes(probes, host=settings.api_host, port=settings.metrics_port, metrics=metrics)
    screener = screener_factory(settings, metrics)
    sources = sources or ConfiguredSources(settings)
    screening = Screening(
        ledger=ledger,
        screener=screener,
        sources=sources,
        metrics=metrics,
        settings=settings,
        owner=owner,
    )
    life = WorkerLife(screening, ledger=ledger, client=client, metrics=metrics, settings=settings, owner=owner)
    app = make_app(settings, broker_url=broker_url)
    explaining = Explaining(ledger=ledger, sources=sources, settings=settings, in_flight=screening.in_flight)
    register(app, screening, explaining, on_lost=life.consumer.on_lost_acknowledgement)

    def on_shutdown(**_signal: Any) -> None:
        life.drain()

    signals.worker_shutting_down.connect(on_shutdown, weak=False)
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)  # a setting of ours that Celery plans to change
    life.start()
    lives.append(life)
    try:
        worker = app.Worker(
            pool_cls="threads",
            concurrency=settings.concurrency,
            queues=[dispatch_queue(lane) for lane in settings.dispatch_lanes],
            hostname=f"veriframe-{owner}",
            loglevel=settings.log_level.upper(),
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=True,
            quiet=True,
        )
        life.consumer.watch(worker)
        log.info("worker_starts", owner=owner, concurrency=settings.concurrency, lanes=list(settings.dispatch_lanes))
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        life.finish()
        signals.worker_shutting_down.disconnect(on_shutdown)
        screener.close()
        ledger.close()
        log.info("worker_ended", owner=owner)
