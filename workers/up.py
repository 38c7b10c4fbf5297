"""`veriframe up`: everything on one machine. Broker, ledger, ingest, janitor and API in this process's care, workers as children."""

from __future__ import annotations

import getpass
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from .broker import DISPATCH_LANES
from .embedded import EmbeddedBroker, require_disk_space, require_free_port
from .errors import PortInUseError, WorkerDiedError
from .processes import SupervisedProcess
from .services import Control, open_control
from .settings import Settings, base_environment
from .terminal import using_path
from .web.app import create_app
from .web.session import LINK_SECONDS, login_address, reviewer_name

log = structlog.get_logger(__name__)
_MAX_STARTS: Final = 2
"""One death may be bad luck."""


@dataclass(frozen=True, slots=True)
class System:
    """A running one-machine system."""

    control: Control
    broker_url: str
    worker: SupervisedProcess

    def require_worker(self) -> None:
        """Whoever waits for a first outcome asks this too.

        Raises:
            WorkerDiedError: the worker cannot start, or ends whenever it did; with the tail of its log.
        """
        if self.worker.num_starts > _MAX_STARTS:
            raise WorkerDiedError(
                f"the worker ended {self.worker.num_starts - 1} times and no video has its outcome: correct what its log says and start "
                f"again; it ends with\n{self.worker.log_tail()}"
            )


def apart(settings: Settings) -> Settings:
    """The same settings for a system that lives as long as one command, with nobody else's broker, ledger, receivers and ports.

    In a container the environment names those of production, where the command's worker would take real videos and fail them for good.
    """
    return settings.model_copy(
        update={
            "broker_url": None,
            "embedded_broker_port": 0,
            "ledger_url": None,
            "webhook_url": None,
            "otlp_endpoint": None,
            "metrics_port": 0,
            "shadow_bundle_set": None,
            "dispatch_lanes": DISPATCH_LANES,  # there is no other worker for those that this machine's leaves out
        }
    )


def worker_command() -> list[str]:
    """The command line of one worker."""
    return [sys.executable, "-m", "workers", "worker"]


@contextmanager
def start_system(settings: Settings, *, command: list[str] | None = None, worker_log: Path | None = None) -> Iterator[System]:
    """Start all but the API; stops everything in the right order at the end.

    Args:
        settings: all settings; without a `broker_url` the embedded broker is started.
        command: how a worker is started.
        worker_log: file for the worker's output; None: this process's.

    Raises:
        AlreadyRunningError, PortInUseError, DiskFullError, FileAccessError, BrokerUnavailableError, BrokerPolicyError: with what to do.
    """
    with ExitStack() as stack:
        with using_path(settings.state_dir, doing="make the state folder"):
            settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        require_disk_space(settings.state_dir)
        broker_url = settings.broker_url
        if broker_url is None:
            broker = EmbeddedBroker(
                settings.state_dir, port=settings.embedded_broker_port, memory_bytes=settings.embedded_broker_memory_bytes
            )
            broker_url = stack.enter_context(broker).url
        control = stack.enter_context(open_control(settings, broker_url=broker_url))
        stop = threading.Event()
        threads = [
            _thread("ingest", lambda: control.make_ingest().run(stop)),
            # a client of its own: its blocking calls never meet the API's
            _thread("janitor", lambda: replace(control).make_janitor().run(stop)),
        ]

        def stop_threads() -> None:
            stop.set()
            for thread in threads:
                thread.join(timeout=15)

        stack.callback(stop_threads)
        for thread in threads:
            thread.start()
        environment = {**base_environment(), **settings.as_environment(), "VERIFRAME_BROKER_URL": broker_url}
        worker = SupervisedProcess(
            "worker", command or worker_command(), env=environment, grace_seconds=settings.exit_seconds + 5, log_path=worker_log
        )
        stack.callback(worker.stop)
        worker.start()
        yield System(control=control, broker_url=broker_url, worker=worker)


def _thread(name: str, target: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=target, name=name, daemon=True)


def run_up(settings: Settings) -> None:
    """The command: start everything and serve the API until a signal says stop. Raises as `start_system`."""
    require_free_port(settings.api_host, settings.api_port, setting="VERIFRAME_API_PORT")
    with start_system(settings) as system:
        log.info("up", api=f"http://{settings.api_host}:{settings.api_port}", broker=system.broker_url, state=str(settings.state_dir))
        app = create_app(system.control, extra_health=lambda: {"worker_running": system.worker.is_running})
        _print_login(system.control)
        serve(app, settings=settings)


def _print_login(control: Control) -> None:
    """A one-time link for whoever started this: the terminal it is printed on is theirs."""
    try:
        name = reviewer_name(getpass.getuser()) or "reviewer"
    except (KeyError, OSError):  # a user without an entry in the system's list
        name = "reviewer"
    address = login_address(control.settings, control.ledger.make_login(name, seconds=LINK_SECONDS))
    sys.stdout.write(
        f"\nReview pages, signed in as {name} (this link works once, for {LINK_SECONDS / 60:.0f} minutes):\n\n    {address}\n\n"
    )
    sys.stdout.flush()


def server_config(app: object, *, settings: Settings) -> uvicorn.Config:
    """How the server listens, and whom it believes where a request came from."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=settings.api_host,
        port=settings.api_port,
        forwarded_allow_ips=list(settings.trusted_proxies),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
    )


def serve(app: object, *, settings: Settings) -> None:
    """Serve an application until a signal says stop.

    Raises:
        PortInUseError: the port is taken.
    """
    config = server_config(app, settings=settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has shut down: without a handler that would end us before the rest is stopped
        signal.signal(number, lambda *_frame: None)
    try:
        uvicorn.Server(config).run()
    except SystemExit as err:
        raise PortInUseError(f"cannot listen on {settings.api_host}:{settings.api_port}: free it or set VERIFRAME_API_PORT") from err
