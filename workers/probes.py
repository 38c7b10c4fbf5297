"""A process's own small HTTP server: /metrics, /startupz, /livez, /readyz, /health. Off unless `VERIFRAME_METRICS_PORT` is set."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from .errors import PortInUseError
from .metrics import Metrics


def _always() -> bool:
    return True


_STUCK_SECONDS: Final = 300.0
"""No round of a loop takes so long: a wait for broker or ledger ends long before, with an error."""


class LoopWatch:
    """Says whether a loop still turns. Whoever loops calls `tick` once a round."""

    def __init__(self) -> None:
        self._ticked = time.monotonic()

    def tick(self) -> None:
        """A round begins."""
        self._ticked = time.monotonic()

    @property
    def is_live(self) -> bool:
        """Whether the last round began not too long ago."""
        return time.monotonic() - self._ticked < _STUCK_SECONDS


@dataclass(frozen=True, slots=True)
class Probes:
    """What an orchestrator may ask a process."""

    is_ready: Callable[[], bool]
    """Takes work: broker and ledger reachable, not draining."""
    is_live: Callable[[], bool] = _always
    """Its heartbeat ticks. Never broker or task progress: that would kill what only has to wait."""
    is_started: Callable[[], bool] = _always
    """Bundles are loaded and the self-test passed; liveness is asked from then on."""
    facts: Callable[[], dict[str, Any]] = dict
    """What `/health` tells people beside ready or not."""

    def answer(self, path: str) -> bool | None:
        """The answer to one path; None for a path that is no probe."""
        ask = {"/startupz": self.is_started, "/livez": self.is_live, "/readyz": self.is_ready}.get(path)
        return None if ask is None else ask()


def serve_probes(probes: Probes, *, host: str, port: int, metrics: Metrics) -> ThreadingHTTPServer:
    """Start the server in a daemon thread.

    Raises:
        PortInUseError: something else listens on the port.
    """

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # head and page leave together, not as two packets that wait for each other

        def do_GET(self) -> None:
            if self.path == "/metrics":
                page, content_type = metrics.expose(self.headers.get("Accept"))
                if "gzip" in self.headers.get("Accept-Encoding", ""):
                    self._answer(200, gzip.compress(page, compresslevel=1), content_type, ("Content-Encoding", "gzip"))
                else:
                    self._answer(200, page, content_type)
                return
            if self.path == "/health":
                ready = probes.is_ready()
                page = json.dumps({"status": "ok" if ready else "not ready", **probes.facts()}).encode()
                self._answer(200 if ready else 503, page, "application/json")
                return
            good = probes.answer(self.path)
            if good is None:
                self._answer(404, b"try /metrics, /startupz, /livez, /readyz or /health\n", "text/plain")
            else:
                self._answer(200 if good else 503, b"ok\n" if good else b"no\n", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Probes are not logged."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as err:
        raise PortInUseError(f"port {port} on {host} is taken ({err.strerror}): free it or set VERIFRAME_METRICS_PORT") from err
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server
