"""Puts the parts together: what ingest, janitor, API and `veriframe up` are made of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import redis

from .broker import RedisDispatcher, check_access, connect, require_no_eviction, wait_for
from .errors import WorkerError
from .ingest import Ingest
from .intake import Intake
from .janitor import Janitor
from .ledger import Ledger
from .metrics import Metrics
from .probes import LoopWatch, Probes, serve_probes
from .processes import new_owner
from .settings import Settings

_REPLY_SECONDS: Final = 1.5
"""A submit is answered with 202 or 503 in about this time even when the network to the broker is frozen."""


@dataclass(frozen=True, slots=True)
class Control:
    """The control side of the service on one broker and one ledger."""

    settings: Settings
    client: redis.Redis
    ledger: Ledger
    dispatcher: RedisDispatcher
    intake: Intake
    metrics: Metrics
    owner: str

    def make_ingest(self) -> Ingest:
        """One reader of inbox and stream."""
        return Ingest(
            self.client,
            self.ledger,
            self.intake,
            metrics=self.metrics,
            owner=self.owner,
            batch=self.settings.ingest_batch,
            stream_idle_seconds=self.settings.stream_idle_seconds,
        )

    def make_janitor(self) -> Janitor:
        """One janitor; it leads when no other one does."""
        return Janitor(self.ledger, self.dispatcher, client=self.client, settings=self.settings, metrics=self.metrics, owner=self.owner)


@contextmanager
def open_control(settings: Settings, *, broker_url: str, wait_seconds: float = 60.0, ledger: Ledger | None = None) -> Iterator[Control]:
    """Open broker and ledger for the control side.

    Raises:
        BrokerUnavailableError: no broker after `wait_seconds`.
        BrokerPolicyError: the broker may evict keys.
        SettingsError, LedgerSchemaError, LedgerUnavailableError: the ledger cannot be used.
    """
    client = connect(broker_url, reply_seconds=_REPLY_SECONDS)
    try:
        wait_for(client, seconds=wait_seconds)
        require_no_eviction(client)
        check_access(client, broker_url, strict=settings.broker_strict, is_private=settings.broker_private_network)
        ledger = ledger or Ledger.open(settings.resolved_ledger_url, sqlite_synchronous=settings.sqlite_synchronous)
        metrics = Metrics()
        metrics.prepare_control()
        dispatcher = RedisDispatcher(client, bound=settings.dispatch_bound)
        intake = Intake(ledger, dispatcher, metrics=metrics, resend_seconds=settings.resend_seconds, backlog_limit=settings.backlog_limit)
        try:
            yield Control(settings, client, ledger, dispatcher, intake, metrics, new_owner())
        finally:
            ledger.close()
    finally:
        client.close()


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_frame: stop.set())
    return stop


def _serve_probes(control: Control, watch: LoopWatch) -> None:
    """`/metrics`, `/startupz`, `/livez` and `/readyz` of a process without an API, when `VERIFRAME_METRICS_PORT` is set. Raises `PortInUseError`."""
    settings = control.settings
    if settings.metrics_port:
        # live: its loop turns, which it also does while broker or ledger are away; one that hangs on a dead connection is started again
        probes = Probes(is_ready=lambda: _reaches_both(control), is_live=lambda: watch.is_live)
        serve_probes(probes, host=settings.api_host, port=settings.metrics_port, metrics=control.metrics)


def _reaches_both(control: Control) -> bool:
    try:
        control.dispatcher.check()
        control.ledger.count_waiting()
    except WorkerError:
        return False
    return True


def run_ingest(settings: Settings, *, broker_url: str, ledger: Ledger | None = None) -> None:
    """Read the inbox until a signal says stop."""
    stop = stop_on_signals()
    with open_control(settings, broker_url=broker_url, ledger=ledger) as control:
        ingest = control.make_ingest()
        _serve_probes(control, ingest.watch)
        ingest.run(stop)


def run_janitor(settings: Settings, *, broker_url: str, ledger: Ledger | None = None) -> None:
    """Run a janitor until a signal says stop."""
    stop = stop_on_signals()
    with open_control(settings, broker_url=broker_url, ledger=ledger) as control:
        janitor = control.make_janitor()
        _serve_probes(control, janitor.watch)
        janitor.run(stop)
