"""Real servers that tests start themselves: redis-server, Postgres, the API. Each lives in its own folder on a random port."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import uvicorn

from workers.embedded import server_binary


def must_have_services() -> bool:
    """Whether a missing service fails (CI) instead of skipping (a laptop)."""
    return os.environ.get("CI") == "true" or os.environ.get("FAIL_WITHOUT_SERVICES") == "1"


def missing(what: str) -> None:
    """Skip, or fail where everything must be there."""
    if must_have_services():
        pytest.fail(f"{what} is missing: install it (apt-get install {what})")
    pytest.skip(f"{what} is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server of this test; survives kill -9 by its append-only file."""

    def __init__(self, folder: Path, *, port: int | None = None, **options: str) -> None:
        self.folder, self.port = folder, port or free_port()
        self.options = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction", **options}
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def binary() -> str | None:
        """A real redis-server; on a machine without one the embedded Valkey, except where everything must be there."""
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        return found or (None if must_have_services() else str(server_binary()))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        binary = self.binary()
        assert binary is not None
        arguments = [part for name, value in self.options.items() for part in (f"--{name}", value)]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *arguments],
                stdout=log,
                stderr=log,
            )
        self.wait()
        return self

    def wait(self, seconds: float = 20.0) -> None:
        client, end = redis.Redis(port=self.port, socket_timeout=1), time.monotonic() + seconds
        while True:
            try:
                client.ping()
                client.close()
                return
            except redis.RedisError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class PostgresServer:
    """A Postgres cluster of this test, run as an unprivileged user."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="veriframe-pg-", dir="/tmp"))
        self.port = free_port()
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self.binaries = self.find_binaries()
        assert self.binaries is not None
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")

    @staticmethod
    def find_binaries() -> Path | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if found:
            return found[-1].parent
        on_path = shutil.which("initdb")
        return Path(on_path).parent if on_path else None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://veriframe@127.0.0.1:{self.port}/postgres"

    def _run(self, *command: str) -> None:
        subprocess.run([*self.as_user, *command], check=True, capture_output=True, cwd="/tmp", timeout=60)

    def start(self) -> PostgresServer:
        self._run(str(self.binaries / "initdb"), "-D", self.data, "-U", "veriframe", "-A", "trust", "-E", "UTF8", "--no-sync")
        self._start_server()
        return self

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def _start_server(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c shared_buffers=64MB"
        self._run(str(self.binaries / "pg_ctl"), "-D", self.data, "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def restart(self, *, pause_seconds: float) -> None:
        """Down without farewell, and up again after a while."""
        self._run(str(self.binaries / "pg_ctl"), "-D", self.data, "-m", "immediate", "stop")
        time.sleep(pause_seconds)
        self._start_server()

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self._run(str(self.binaries / "pg_ctl"), "-D", self.data, "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def serving(app: object) -> Iterator[str]:
    """Serve an application on a random port of this machine; gives its base URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
