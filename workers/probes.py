"""A worker's own small HTTP server: /metrics, /livez, /readyz. Off unless `VERIFRAME_METRICS_PORT` is set."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .errors import PortInUseError


def serve_probes(
    *, host: str, port: int, registry: CollectorRegistry, is_live: Callable[[], bool], is_ready: Callable[[], bool]
) -> ThreadingHTTPServer:
    """Start the server in a daemon thread.

    Raises:
        PortInUseError: something else listens on the port.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif self.path in ("/livez", "/readyz"):
                good = is_live() if self.path == "/livez" else is_ready()
                self._answer(200 if good else 503, b"ok\n" if good else b"no\n", "text/plain")
            else:
                self._answer(404, b"try /metrics, /livez or /readyz\n", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
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
